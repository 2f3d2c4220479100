"""What jobs say while they run."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from regimes.jobs.support import console
from regimes.jobs.support.console import Stage


@pytest.mark.parametrize(("total", "words"), [(4, "25%"), (0, "goes on")])
def test_a_stage_says_how_far_it_is_within_a_unit_that_takes_long(
    total, words, monkeypatch, capsys
):
    monkeypatch.setattr(console, "LOG_EVERY_S", 0.001)
    said = ""
    with Stage("compare", total, "step") as stage:
        stage.advance()
        for _ in range(1000):  # nothing else is done in this stage
            said += capsys.readouterr().out
            if f"compare   {words} (" in said:
                break
            time.sleep(0.01)
        else:
            pytest.fail(f"it only said {said!r}")
        stage.done("4 metrics")
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("compare   4 metrics (")


def test_a_stage_that_failed_says_nothing_more(monkeypatch, capsys):
    monkeypatch.setattr(console, "LOG_EVERY_S", 0.001)
    with pytest.raises(RuntimeError), Stage("compare", 4, "step") as stage:
        raise RuntimeError("on purpose")
    assert not stage._pulse.is_alive()


@pytest.mark.parametrize(("status", "code"), [(130, 130), (143, 143), (1, -6), (0, -6)])
def test_after_an_interruption_nothing_at_the_end_of_python_runs(status, code):
    script = (
        "import atexit, os\nfrom regimes.jobs.support import console\natexit.register(os.abort)\n"
        f"print('said')\nconsole.leave({status})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == code
    assert status < 128 or done.stdout == "said\n"
