"""The report of a memorization study: one HTML file that needs nothing else.

It answers first and proves later: two sentences, the curve, the regime of every model with the rule
that gave it, the other figures, the numbers, what to beware of, and the recipe. Pictures are data
URIs and styles are inline; there is no script, and the page forbids the browser to load anything.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

import jinja2

from regimes.report.cautions import cautions
from regimes.report.tables import families
from regimes.scores.calibration import Threshold
from regimes.studies.memorization import Row
from regimes.studies.verdict import RULES, Regime

# Escaping keeps quotes out of an address, but not "javascript:"; a path has no colon.
_PATH = re.compile(r"[\w .-]+(/[\w .-]+)*/?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one report says.

    Raises:
        ValueError: if there is no figure, or a link leads anywhere but to a sibling file.
    """

    title: str
    answer: tuple[str, str]
    """Does it memorize, does it generalize: one sentence each."""
    regimes: Sequence[Regime]
    """One per size and width, in the order to show."""
    figures: Sequence[tuple[str, bytes]]
    """(one-line caption, PNG); the first is the curve below the answer, the rest are evidence."""
    threshold: Threshold
    rows: Sequence[Row]
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


def render(report: Report) -> str:
    """The report as HTML; equal reports give equal text."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("regimes.report", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    figures = [(caption, _data_uri(png)) for caption, png in report.figures]
    return environment.get_template("report.html.j2").render(
        report=report,
        curve=figures[0],
        evidence=figures[1:],
        rules=RULES,
        descriptor=report.rows[0].score.descriptor if report.rows else "the study's descriptor",
        families=families(report.rows),
        cautions=cautions(report.rows),
    )


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
