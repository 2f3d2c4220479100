"""Equal data give equal files, whatever the machine's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from drawn import all_figures

from regimes.figures.style import pdf_bytes, png_bytes


def test_two_renderings_are_byte_identical():
    first, second = (all_figures.__wrapped__((16, 850)) for _ in range(2))
    for name in first:
        assert png_bytes(first[name]) == png_bytes(second[name]), name
    for name in ("copies", "nearest"):
        assert pdf_bytes(first[name]) == pdf_bytes(second[name]), name


def test_bytes_do_not_depend_on_the_users_settings_or_on_the_process(tmp_path):
    (tmp_path / "matplotlibrc").write_text("font.size: 30\naxes.facecolor: red\nsavefig.dpi: 30\n")
    code = (
        "import sys, hashlib; sys.path.insert(0, sys.argv[1]); import memorization_tables as t;"
        "from regimes.figures import curves, style;"
        "f = curves.copies(t.table(), t.SIZES, t.WIDTHS);"
        "print(hashlib.sha256(style.png_bytes(f) + style.pdf_bytes(f)).hexdigest())"
    )
    tests = str(Path(__file__).parents[1])
    prints = {
        subprocess.run(
            [sys.executable, "-c", code, tests],
            env={**os.environ, "PYTHONHASHSEED": seed, **extra},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, extra in (("1", {}), ("2", {"MATPLOTLIBRC": str(tmp_path)}))
    }
    assert len(prints) == 1


def test_pyplot_is_not_used():
    code = (
        "import sys; from regimes.figures import curves, sheets, histograms; import regimes.report;"
        "bad = [m for m in ('matplotlib.pyplot', 'ray', 'regimes.storage') if m in sys.modules];"
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
