"""A user's own function, named MODULE:CALLABLE: found, imported, and hashed by its source."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import itertools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from regimes.errors import BadDescriptor
from regimes.images.fingerprints import hash_parts

PYTHON = "python:"
_TARGET = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")


def is_target(target: str) -> bool:
    """Whether a text is of the form MODULE:CALLABLE."""
    return _TARGET.fullmatch(target) is not None


def load_callable(target: str, name: str) -> Callable[..., Any]:
    """The function, or an instance of the class, of MODULE:CALLABLE.

    Args:
        target: of that form.
        name: what to call it in errors.

    Raises:
        BadDescriptor: if it cannot be imported or is not callable.
    """
    module, _, attribute = target.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise BadDescriptor(
            f"{name}: {error}; expected python:MODULE:CALLABLE, importable where workers run: put the folder "
            "of a module of yours on PYTHONPATH"
        ) from error
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise BadDescriptor(f"{name}: expected a callable, found {type(found).__name__}")
    made: Callable[..., Any] = found
    return made


def source_sha256(name: str, module: str) -> str:
    """Hash of a module's file, and of all .py files of its top-level package if it is in one.

    Importing the parents of a dotted name runs them.

    Raises:
        BadDescriptor: if there is no such file.
    """
    try:
        spec = importlib.util.find_spec(module)
        package = importlib.util.find_spec(module.partition(".")[0])
    except ImportError as error:
        raise BadDescriptor(f"{name}: {error}") from error
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise BadDescriptor(
            f"{name}: no module {module} with a source file can be imported; put its folder on PYTHONPATH"
        )
    own = Path(spec.origin).read_bytes()
    folders = list((package and package.submodule_search_locations) or ())
    if not folders:
        return hashlib.sha256(own).hexdigest()
    files = [(path.relative_to(f).as_posix(), path) for f in folders for path in _python_files(f)]
    parts = (
        part for inside, path in sorted(files) for part in (inside.encode(), path.read_bytes())
    )
    return hash_parts(itertools.chain([own], parts))


def _python_files(folder: str) -> Iterator[Path]:
    return (path for path in Path(folder).rglob("*.py") if path.is_file())
