"""The result folder of a job: ``<output>/<job>/<name>/``, complete or not there at all.

It is an artifact of its own: files are written whole, the manifest last, and its recipe says what
the results rest on. So a job that finds its folder complete has nothing to do, and a folder is
never half of one configuration and half of another.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.figure import Figure

from regimes import __version__
from regimes.errors import ConfigError
from regimes.figures.style import pdf_bytes, png_bytes
from regimes.jobs.support.asked import apart
from regimes.storage.artifacts import RECIPE, Artifact, Recipe, to_json
from regimes.storage.filesystem import Location

CONFIG, SCORES, TABLE, REPORT = "config.json", "scores.json", "scores.parquet", "report.html"
METRICS = "metrics.parquet"  # of jobs whose table has one row per image
_PACKAGES = ("torch", "numpy", "ray", "pyarrow", "faiss-gpu", "scikit-learn")


class ResultFolder:
    """``<output>/<job>/<name>/``.

    Args:
        output: folder or URI for everything.
        job: name of the job.
        name: name of the run.
        recipe: what determines the results.
        identity: the fields of the recipe in which two runs of one name must agree.
    """

    def __init__(
        self, output: str, job: str, name: str, recipe: Recipe, *, identity: Sequence[str]
    ) -> None:
        self.recipe, self._identity = recipe, identity
        self.location = Location(output).child(f"{job}/{name}")
        self._artifact = Artifact(self.location, recipe)

    def check_name(self) -> None:
        """Refuse to mix two configurations in one folder.

        Raises:
            ConfigError: if the folder holds results of another configuration.
        """
        try:
            found = json.loads(self.location.read(CONFIG))["recipe"]
        except (FileNotFoundError, KeyError, ValueError):
            return
        wanted = json.loads(to_json(self.recipe))
        before, now = ({key: r.get(key) for key in self._identity} for r in (found, wanted))
        if before != now:
            raise ConfigError(
                f"{self.location.uri}: holds results of another configuration ({apart(before, now)}); "
                "choose another --name, or pass --no-resume to replace them"
            )

    def is_complete(self) -> bool:
        """Whether everything was written by this version of the code, and is as it was written."""
        if not self._artifact.is_complete():
            return False
        if self.location.read(RECIPE).decode() != to_json(self.recipe):
            return False
        self._artifact.verify()
        return True

    def write_files(self, files: Iterable[tuple[str, bytes]]) -> None:
        """Write (name, content) one after the other, each name once; the manifest comes last."""
        self._artifact.finish([self._artifact.write(name, data) for name, data in files])

    def read(self, name: str) -> bytes:
        """Content of a file of a complete folder, checked."""
        return self._artifact.read(name)

    def remove(self) -> None:
        """Delete the folder."""
        self._artifact.remove()

    def config(self, **more: Any) -> str:
        """config.json: the recipe, the versions it ran with, and what else the job has to say."""
        packages = {name: _version(name) for name in _PACKAGES}
        about = {
            "recipe": self.recipe,
            "regimes": __version__,
            "python": sys.version.split()[0],
            "packages": packages,
        }
        return to_json(about | more)


class Drawn:
    """Figures as files, and again as what a report shows.

    Args:
        figures: (file name, one-line caption, figure).
    """

    def __init__(self, figures: Iterable[tuple[str, str, Figure]]) -> None:
        self._figures = figures
        self.captioned: list[tuple[str, bytes]] = []

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Names and contents; fills ``captioned`` with (caption, PNG) on the way."""
        for name, caption, figure in self._figures:
            png = png_bytes(figure)
            self.captioned.append((caption, png))
            yield f"figures/{name}.png", png
            yield f"figures/{name}.pdf", pdf_bytes(figure)


def options(original: Any, changed: Any, prefix: str = "--") -> list[str]:
    """The command-line options that turn one configuration into another."""
    found = []
    for field in dataclasses.fields(changed):
        before, after = getattr(original, field.name), getattr(changed, field.name)
        flag = prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(after):
            found += options(before, after, f"{flag}.")
        elif isinstance(after, bool) and before != after:
            found.append(flag if after else flag.replace("--", "--no-", 1))
        elif before != after:
            values = after if isinstance(after, tuple) else (after,)
            found.append(" ".join([flag, *(shlex.quote(str(v)) for v in values)]))
    return found


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as the content of a Parquet file; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


def slug(text: str) -> str:
    """A path's last part as it can stand in the name of a folder; empty if nothing is left."""
    return re.sub(r"[^\w.-]+", "-", Path(text).stem).strip("-.")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
