"""Gaussians and mixtures through the generate job: samples by seed like any other."""

from __future__ import annotations

import json

import numpy as np
import pytest
from job_runs import run_job

from regimes.images.pixels import to_uint8
from regimes.images.sources import load_images, open_source


def job(output, *options, expect=0):
    return run_job(
        "generate",
        "--output",
        str(output),
        "--format",
        "npz",
        "--cpus",
        "2",
        *options,
        expect=expect,
    )


def test_a_gaussian_of_digits_is_drawn_by_seed_and_stored_as_images(tmp_path):
    text = job(
        tmp_path / "a",
        "--model",
        "gaussian:digits",
        "--seeds",
        "0-599",
        "--float",
        "--batch-size",
        "250",
    )
    assert "% of values lie outside the range of images and are clipped" in text
    with np.load(tmp_path / "a" / "samples.npz") as arrays:
        seeds, images, samples = (arrays[name] for name in ("seeds", "images", "samples"))
    assert seeds.tolist() == list(range(600))
    assert samples.shape == (600, 1, 8, 8)
    import torch

    assert (to_uint8(torch.from_numpy(samples)) == images).all()
    clipping = json.loads((tmp_path / "a" / "config.json").read_text())["clipping"]
    assert clipping["clipped"] == pytest.approx((np.abs(samples) > 1).mean())
    # Unclipped samples have the moments of the digits.
    _, real, _ = load_images(open_source("digits"))
    x = real.reshape(len(real), -1) / 127.5 - 1
    y = samples.transpose(0, 2, 3, 1).reshape(600, -1)
    deviation = x.std(0) / 600**0.5
    assert (np.abs(y.mean(0) - x.mean(0)) <= 4.5 * deviation + 1e-9).all()
    assert np.trace(np.cov(y.T)) == pytest.approx(np.trace(np.cov(x.T)), rel=0.05)


def test_a_dry_run_says_what_a_mixture_is(tmp_path):
    text = job(tmp_path / "c", "--model", "gmm:digits", "--dry-run")
    assert "10 Gaussians" in text
    assert "gmm-n1797-A" in text
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            ("--model", "gaussian:digits", "--mixture.by", "class"),
            "one Gaussian; for several pass gmm:digits",
        ),
        (("--model", "gaussian:digits", "--scheduler", "ddim"), "draws its samples directly"),
        (
            ("--model", "wiener:digits", "--mixture.components", "3"),
            "--mixture: for --model gaussian:SOURCE",
        ),
    ],
)
def test_options_that_do_not_apply_are_refused(tmp_path, options, text):
    assert text in job(tmp_path, *options, "--seeds", "0-3", expect=1)
