"""The tutorial as a job: files, exit status, second run, planted failures, bad input."""

from __future__ import annotations

import json
import re
import sys

import pytest

from regimes.jobs import tutorial
from regimes.studies import tutorial_roll
from regimes.toys.laws import OnePoint

EXACT = ("--experiments", "gaussian", "one-point", "two-points", "--samples", "500")


def run(tmp_path, *options):
    return tutorial.main(["--output", str(tmp_path / "out"), "--name", "x", *options])


def folder(tmp_path):
    return tmp_path / "out" / "tutorial" / "x"


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(tutorial_roll, "_VALIDATION", 2**12)
    monkeypatch.setattr(tutorial_roll, "_PER_TIME", 2**10)
    monkeypatch.setattr(tutorial_roll, "_ORACLE_SAMPLES", 50)
    monkeypatch.setattr(tutorial_roll, "ROLL_STEPS", 100)


def test_exact_lessons_pass_and_leave_figures_report_and_numbers(tmp_path, capsys):
    assert run(tmp_path, *EXACT) == 0
    text = capsys.readouterr().out
    assert "FAIL" not in text
    assert re.search(r"All \d+ measured numbers agree with theory\.", text)
    names = ("checks", "gaussian", "one-point", "two-points")
    drawn = {p.name for p in (folder(tmp_path) / "figures").iterdir()}
    assert drawn == {f"{n}.{kind}" for n in names for kind in ("png", "pdf")}
    scores = json.loads((folder(tmp_path) / "scores.json").read_text())
    assert scores["passed"] is True
    assert [lesson["name"] for lesson in scores["lessons"]] == list(names[1:])
    checks = [check for lesson in scores["lessons"] for check in lesson["checks"]]
    assert len(checks) > 30
    report = (folder(tmp_path) / "report.html").read_text()
    for check in checks:
        assert check["what"] in text
        assert f"<td>{check['cells'][1]}</td>" in report
    assert "python jobs/tutorial.py --experiments gaussian one-point two-points" in report


def test_a_second_run_computes_nothing_and_other_options_are_refused(tmp_path, capsys, monkeypatch):
    options = ("--experiments", "one-point")
    assert run(tmp_path, *options) == 0
    first = capsys.readouterr().out
    before = {p: p.read_bytes() for p in folder(tmp_path).rglob("*.*")}

    def never(*_):
        raise AssertionError("computed again")

    with monkeypatch.context() as patch:
        patch.setattr(tutorial, "run_lesson", never)
        assert run(tmp_path, *options) == 0
    second = capsys.readouterr().out
    assert second.startswith("complete: nothing to compute")
    assert second.split("\n\n", 1)[1] == first.split("\n\n", 1)[1]
    assert run(tmp_path, *options, "--seed", "1") == 1
    assert "another configuration" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in folder(tmp_path).rglob("*.*")} == before
    assert run(tmp_path, *options, "--seed", "1", "--no-resume") == 0
    assert {p: p.read_bytes() for p in folder(tmp_path).rglob("*.*")} != before


def test_two_runs_of_one_seed_are_byte_identical(tmp_path):
    for name in "ab":
        assert run(tmp_path / name, *EXACT) == 0
    a, b = ({p.name: p.read_bytes() for p in folder(tmp_path / name).rglob("*.*")} for name in "ab")
    assert a == b


def test_a_wrong_denoiser_fails_by_name_now_and_when_asked_again(tmp_path, capsys, monkeypatch):
    right = OnePoint.posterior_mean
    monkeypatch.setattr(OnePoint, "posterior_mean", lambda self, x, t: right(self, x, t) + 1e-9)
    options = ("--experiments", "one-point", "gaussian", "--samples", "200")
    for _ in range(2):
        assert run(tmp_path, *options) == 1
        text = capsys.readouterr().out
        assert re.search(r"DDIM, 20 steps: farthest end .* FAIL", text)
        assert "Failed: one-point, DDIM, 20 steps: farthest end" in text
    assert 'class="bad">FAIL<' in (folder(tmp_path) / "report.html").read_text()


def test_an_untrained_network_fails(tmp_path, capsys, quick):
    options = ("--experiments", "swiss-roll", "--training-steps", "0", "--samples", "100")
    assert run(tmp_path, *options) == 1
    text = capsys.readouterr().out
    assert re.search(r"DDIM: rms distance from the curve.* FAIL", text)
    assert (folder(tmp_path) / "figures" / "swiss-roll.pdf").exists()
    assert "does not put" in "".join(_titles(folder(tmp_path)))


def _titles(path):
    """Text of a PDF is compressed; the figure is drawn again from the same lesson."""
    from regimes.figures.tutorial import swiss_roll_figure
    from regimes.jobs.support.tutorial.experiment import TutorialExperiment
    from regimes.studies.tutorial_roll import swiss_roll
    from regimes.toys.predictor import PredictorConfig

    config = json.loads((path / "config.json").read_text())["recipe"]["experiment"]
    assert config["training_steps"] == 0
    setting = TutorialExperiment(samples=100).setting("swiss-roll")
    title = swiss_roll_figure(swiss_roll(setting, PredictorConfig(steps=0)))._suptitle
    return title.get_text()


def test_options_reach_the_lessons(tmp_path):
    options = ("--experiments", "one-point", "--samples", "150")
    assert run(tmp_path, *options, "--start", "exact", "--noise", "posterior", "--seed", "3") == 0
    recipe = json.loads((folder(tmp_path) / "config.json").read_text())["recipe"]["experiment"]
    assert (recipe["start"], recipe["noise"], recipe["seed"]) == ("exact", "posterior", 3)
    checks = json.loads((folder(tmp_path) / "scores.json").read_text())["lessons"][0]["checks"]
    assert any(c["what"] == "DDPM: farthest end" and c["measured"] < 1e-12 for c in checks)


def test_dry_run_says_what_would_be_done_and_writes_nothing(tmp_path, capsys):
    assert run(tmp_path, "--dry-run") == 0
    text = capsys.readouterr().out
    for words in ("gaussian", "100,000 samples", "4000 training steps", "tutorial/x"):
        assert words in text
    assert not (tmp_path / "out").exists()


BAD = [
    (["--samples", "99"], "--samples: expected at least 100, got 99"),
    (["--seed", "-1"], "--seed: expected an integer from 0"),
    (["--training-steps", "-1"], "--training-steps: expected at least 0"),
    (["--experiments", "gaussian", "gaussian"], "once at most"),
    (["--name", "../elsewhere"], "--name ../elsewhere: expected letters"),
    (["--output", "gopher://somewhere"], "gopher://somewhere"),
]


@pytest.mark.parametrize(("options", "words"), BAD)
def test_bad_input_is_one_line(options, words, tmp_path, capsys):
    assert run(tmp_path, *options) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not folder(tmp_path).exists()


@pytest.mark.parametrize("options", [["--experiments", "exp5"], ["--start", "nowhere"]])
def test_unknown_words_are_refused_by_the_parser(options, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *options)
    assert stopped.value.code == 2
    assert options[1] in capsys.readouterr().err


def test_ray_is_not_imported(tmp_path):
    import subprocess

    code = (
        "import sys; from regimes.jobs import tutorial; "
        f"status = tutorial.main(['--experiments', 'one-point', '--output', {str(tmp_path)!r}]); "
        "sys.exit(status or 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
