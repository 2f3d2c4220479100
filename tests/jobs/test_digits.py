"""The default preset, whole: the memorization-to-generalization transition on real digits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from job_runs import ROOT, environment

SEEDS = [int(s) for s in os.environ.get("REGIMES_VERIFY_SEEDS", "0").split(",")]
HALVES = ("A", "B")
WIDTHS = (128, 256)

pytestmark = pytest.mark.slow


class Table:
    """Values of a score table by name and place."""

    def __init__(self, path: Path) -> None:
        self.rows = pq.read_table(path).to_pylist()

    def values(self, score: str, n: int) -> list[float]:
        found = [r["value"] for r in self.rows if r["score"] == score and r["n"] == n]
        assert found, f"no rows of {score} at n={n}"
        return found


@pytest.fixture(scope="module", params=SEEDS)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Table:
    output = tmp_path_factory.mktemp(f"digits-{request.param}")
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "jobs" / "memorization.py"),
            "--output",
            str(output),
            "--seed",
            str(request.param),
        ],
        check=True,
        env=environment(),
    )
    return Table(output / "memorization" / f"digits-seed{request.param}" / "scores.parquet")


def test_small_training_sets_are_memorized(table: Table) -> None:
    assert max(table.values("gl", 16)) < 0.10
    assert min(table.values("ratio", 16)) > 0.85
    assert min(table.values("rp_optimal", 16)) > 0.6


def test_copying_stops_as_data_grows(table: Table) -> None:
    assert min(table.values("gl", 850)) > 0.95
    assert max(table.values("ratio", 256)) < 0.05
    assert max(table.values("ratio_heldout", 256)) < 0.01


def test_models_of_disjoint_data_agree_only_where_they_generalize(table: Table) -> None:
    assert min(table.values("rp_disjoint", 850)) > 0.35
    assert max(table.values("rp_disjoint", 64)) < 0.02
    assert max(table.values("rp_disjoint_null", 850)) < 0.05


def test_agreement_on_the_same_data_dips_between_the_regimes(table: Table) -> None:
    dip = max(table.values("rp_same_data", 256))
    assert dip < min(table.values("rp_same_data", 16))
    assert dip < min(table.values("rp_same_data", 850))


def test_generalizing_models_are_neither_linear_nor_off_the_data(table: Table) -> None:
    assert max(table.values("wiener_similarity", 850)) < 0.25
    assert min(table.values("precision", 850)) > 0.5
    assert min(table.values("precision_heldout", 850)) > 0.85


def test_the_linear_denoiser_alone_would_look_like_generalization(table: Table) -> None:
    assert min(table.values("rp_disjoint_wiener", 850)) > 0.95
    assert min(table.values("gl_wiener", 850)) > 0.95
    assert max(table.values("precision_null", 850)) < 0.2
