"""The console command, and the package as a wheel."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from job_runs import ROOT, environment

from regimes.errors import ConfigError
from regimes.jobs import __main__ as command
from regimes.jobs.generate import Destination
from regimes.jobs.support.classifier.experiment import ClassifierOptions
from regimes.jobs.support.console import RunOptions
from regimes.jobs.support.tutorial.experiment import TutorialRun
from regimes.jobs.train import TrainOptions


def test_without_arguments_it_lists_every_job(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    scripts = {p.stem for p in (ROOT / "jobs").glob("*.py") if not p.stem.startswith("_")}
    assert scripts == set(command.names())
    for name in scripts:
        about = importlib.import_module(f"regimes.jobs.{name}").__doc__
        assert f"  {name:<17}{about.splitlines()[0]}\n" in listed


def test_an_unknown_job_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["memorisation"]) == 2
    error = capsys.readouterr().err
    assert "memorisation: no such job; choose " in error
    assert "memorization" in error.split("choose")[1]


def test_every_field_of_the_experiment_is_an_option() -> None:
    import dataclasses

    from regimes.jobs.support.memorization.experiment import MLPExperiment

    text = subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "memorization.py"), "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=environment() | {"COLUMNS": "200"},
    ).stdout
    for field in dataclasses.fields(MLPExperiment):
        if field.name not in ("training", "sampler"):
            assert f"--{field.name.replace('_', '-')}" in text
    for option in ("--preset", "--dry-run", "--output", "--resume", "--sampler.num-steps"):
        assert option in text


@pytest.mark.parametrize("options", [RunOptions, TrainOptions, TutorialRun, ClassifierOptions])
@pytest.mark.parametrize(
    ("variable", "expected"), [("s3://bucket/x", "s3://bucket/x"), ("", "results")]
)
def test_the_cluster_s_place_for_results_is_the_default_of_every_job(
    options: type, variable: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGIMES_OUTPUT", variable)
    assert options().output == expected


@pytest.mark.parametrize(
    "options", [RunOptions, TrainOptions, TutorialRun, ClassifierOptions, Destination]
)
def test_no_job_leaves_its_results_in_the_memory_of_a_process(options: type) -> None:
    with pytest.raises(ConfigError, match="memory://x: expected a place that outlives"):
        options(output="memory://x")


def test_nor_what_workers_are_to_read_there() -> None:
    with pytest.raises(ConfigError, match="memory://x: expected a place that outlives"):
        Destination(store="memory://x")


def test_a_wheel_holds_the_whole_package_and_runs(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(tmp_path)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("regimes-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    sources = [p for folder in ("actors", "jobs", "storage") for p in (ROOT / folder).rglob("*.py")]
    assert {f"regimes/{p.relative_to(ROOT).as_posix()}" for p in sources} <= names
    library = (ROOT / "platform").rglob("*.*")
    expected = {p.relative_to(ROOT / "platform").as_posix() for p in library}
    assert {n for n in expected if n.endswith((".py", ".j2"))} <= names
    assert not [n for n in names if n.startswith(("tests/", "platform/"))]
    code = "import sys; from regimes.jobs.__main__ import main; sys.exit(main(sys.argv[1:]))"
    job = ["memorization", "--preset", "digits-smoke", "--dry-run", "--output", str(tmp_path / "o")]
    done = subprocess.run(
        [sys.executable, "-c", "import regimes; print(regimes.__file__)\n" + code, *job],
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "site") in done.stdout
    assert "total" in done.stdout
