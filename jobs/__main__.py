"""``regimes``: list the jobs, or run one.

regimes
regimes memorization --preset digits
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from regimes import jobs


def names() -> list[str]:
    """Names of all jobs: the modules of this package that are not packages or private."""
    found = pkgutil.iter_modules(jobs.__path__)
    return sorted(m.name for m in found if not m.ispkg and not m.name.startswith("_"))


def about(name: str) -> str:
    """First line of what a job says of itself; read, not imported, which takes seconds."""
    spec = importlib.util.find_spec(f"regimes.jobs.{name}")
    assert spec is not None
    assert spec.origin is not None
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.splitlines()[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: regimes JOB [options]      (regimes JOB --help lists them)\n")
        for name in names():
            print(f"  {name:<17}{about(name)}")
        return 0
    if arguments[0] not in names():
        print(f"error: {arguments[0]}: no such job; choose {', '.join(names())}", file=sys.stderr)
        return 2
    from regimes.jobs.support import console  # takes seconds

    job = importlib.import_module(f"regimes.jobs.{arguments[0]}")
    status: int = job.main(arguments[1:])
    if status > 128:
        console.leave(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
