"""The house: imports run one way, and nothing shadows the standard library."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "platform" / "regimes"
ROOMS = ("actors", "jobs", "storage")


def python_files(room):
    """Files of a room; those of the library leave out what lies behind the three symlinks."""
    if room != "regimes":
        return sorted((ROOT / room).rglob("*.py"))
    files = LIBRARY.rglob("*.py")
    return sorted(f for f in files if f.relative_to(LIBRARY).parts[0] not in ROOMS)


def imported_modules(source):
    """Every module that a source imports, anywhere in it, also under TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_are_found_wherever_they_are():
    source = "import a.b\ndef f():\n    from c import d\nif TYPE_CHECKING:\n    import e as g\n"
    assert set(imported_modules(source)) == {"a.b", "c", "c.d", "e"}


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("regimes", ("ray", "regimes.storage", "regimes.actors", "regimes.jobs", *ROOMS)),
        ("storage", ("ray", "regimes.actors", "regimes.jobs", *ROOMS)),
        ("actors", ("regimes.jobs", *ROOMS)),
    ],
)
def test_imports_run_one_way(room, forbidden):
    files = python_files(room)
    assert len(files) >= 4
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files
        for module in imported_modules(path.read_text())
        for name in forbidden
        if module == name or module.startswith(f"{name}.")
    ]
    assert wrong == []


def test_what_jobs_share_knows_no_job():
    shared = list((ROOT / "jobs" / "support").glob("*.py"))
    rooms = {path.parent.name for path in (ROOT / "jobs" / "support").glob("*/__init__.py")}
    assert len(shared) >= 5
    assert {"audit", "memorization"} <= rooms
    for path in shared:
        modules = set(imported_modules(path.read_text()))
        parts = {m.split(".")[3] for m in modules if m.startswith("regimes.jobs.support.")}
        assert not parts & rooms, path


def test_library_files_are_those_of_the_library():
    names = {f.relative_to(LIBRARY).as_posix() for f in python_files("regimes")}
    assert {"noise.py", "scores/result.py", "studies/verdict.py"} <= names
    assert not any(n.startswith(ROOMS) for n in names)


def test_rooms_are_symlinks_to_the_folders_at_the_top():
    for room in ROOMS:
        assert (LIBRARY / room).is_symlink()
        assert (LIBRARY / room).resolve() == ROOT / room


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, **options
    )


def test_platform_has_no_init_and_does_not_shadow_the_standard_library():
    assert not (ROOT / "platform" / "__init__.py").exists()
    found = run("import platform; print(platform.python_version(), platform.__file__)", cwd=ROOT)
    assert found.returncode == 0, found.stderr
    version, file = found.stdout.split()
    assert version == ".".join(map(str, sys.version_info[:3]))
    assert not Path(file).is_relative_to(ROOT / "platform")


def modules_of(room):
    base = LIBRARY if room == "regimes" else ROOT / room
    prefix = ("regimes",) if room == "regimes" else ("regimes", room)
    for path in python_files(room):
        parts = (*prefix, *path.relative_to(base).with_suffix("").parts)
        yield ".".join(p for p in parts if p != "__init__")


def test_importing_library_storage_and_actors_loads_no_heavy_package():
    modules = [*modules_of("regimes"), *modules_of("storage"), *modules_of("actors")]
    assert len(modules) > 30
    heavy = ("faiss", "ray", "diffusers", "sklearn", "torchvision", "tensorboardX")
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    found = run(code)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"


def test_no_pickle_is_ever_read():
    for room in ("regimes", "storage", "actors"):
        for path in python_files(room):
            source = path.read_text()
            modules = set(imported_modules(source))
            assert not modules & {"pickle", "dill", "cloudpickle", "joblib"}, path
            assert not re.search(r"(?<!safetensors\.)torch\.load\(", source), path
            assert "allow_pickle=True" not in source, path
