"""What every report has in common, and how it becomes HTML."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jinja2

from regimes.words import counted

# Escaping keeps quotes out of an address, but not "javascript:"; a path has no colon.
_PATH = re.compile(r"[\w .-]+(/[\w .-]+)*/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one report says.

    Raises:
        ValueError: if there is no figure, or a link leads anywhere but to a sibling file.
    """

    template: ClassVar[str] = "base.html.j2"
    """The template, which extends ``base.html.j2``: it fills the blocks ``verdict`` (after the first
    figure) and ``numbers`` (after the others), and those of the style."""

    title: str
    answer: Sequence[str]
    """One sentence each."""
    figures: Sequence[tuple[str, bytes]]
    """(one-line caption, PNG); the first stands below the answer, the rest are evidence."""
    recipe: str
    """The configuration as JSON text."""
    command: str
    """What to type to get the same numbers."""
    links: Sequence[tuple[str, str]] = ()
    """(text, path relative to the report)"""

    def __post_init__(self) -> None:
        """Check what a template could not."""
        if not self.figures:
            raise ValueError("figures: expected the curve at least, got none")
        for text, path in self.links:
            if not _PATH.fullmatch(path):
                raise ValueError(f"link {text!r}: expected a path beside the report, got {path!r}")

    def context(self) -> Mapping[str, Any]:
        """What the template shows besides the fields of the page (its name there: ``page``)."""
        return {}

    def cautions(self) -> Sequence[str]:
        """What to beware of, one sentence or two each."""
        return ()


def render(page: Page) -> str:
    """The report as HTML; equal reports give equal text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regimes.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    figures = [(caption, _data_uri(png)) for caption, png in page.figures]
    return environment.get_template(page.template).render(
        page=page,
        curve=figures[0],
        evidence=figures[1:],
        cautions=page.cautions(),
        **page.context(),
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
