"""Bad input: one line that names the thing and the remedy, a non-zero exit, and nothing lost."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from job_runs import finish, start
from PIL import Image

from regimes.jobs import audit, convert, generate, memorization


def png(side: int = 8, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png")
    return buffer.getvalue()


def folder(tmp: Path, **files: bytes) -> Path:
    path = tmp / "images"
    path.mkdir()
    for i in range(20):
        (path / f"good-{i:02d}.png").write_bytes(png(seed=i))
    for name, data in files.items():
        (path / f"{name}.png").write_bytes(data)
    return path


def missing_path(tmp: Path) -> list[str]:
    return ["--source", str(tmp / "nowhere")]


def empty_folder(tmp: Path) -> list[str]:
    (tmp / "empty").mkdir()
    return ["--source", str(tmp / "empty")]


def corrupt_png(tmp: Path) -> list[str]:
    return ["--source", str(folder(tmp, broken=png()[:50])), "--sizes", "4"]


def mixed_sizes(tmp: Path) -> list[str]:
    return ["--source", str(folder(tmp, large=png(side=9))), "--sizes", "4"]


def truncated_zip(tmp: Path) -> list[str]:
    (tmp / "images.zip").write_bytes(b"PK\x03\x04 not a zip")
    return ["--source", str(tmp / "images.zip")]


def unknown_preset(tmp: Path) -> list[str]:
    return ["--preset", "digit"]


def more_images_than_there_are(tmp: Path) -> list[str]:
    return ["--sizes", "16", "100000"]


def steps_that_do_not_fit_widths(tmp: Path) -> list[str]:
    return ["--widths", "16", "24", "--steps", "10"]


def a_file_in_the_way_of_the_output(tmp: Path) -> list[str]:
    (tmp / "file").write_text("in the way")
    return ["--output", str(tmp / "file" / "results")]


def unknown_scheme(tmp: Path) -> list[str]:
    return ["--output", "gopher://somewhere/results"]


def memory_that_workers_do_not_share(tmp: Path) -> list[str]:
    return ["--output", "memory://results"]


def an_unset_variable(tmp: Path) -> list[str]:
    return ["--output", ""]


def images_without_size(tmp: Path) -> list[str]:
    return ["--image-size", "0"]


def gray_among_colour(tmp: Path) -> list[str]:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "png")
    return ["--source", str(folder(tmp, red=buffer.getvalue())), "--sizes", "4"]


def too_few_images(tmp: Path) -> list[str]:
    np.save(tmp / "few.npy", np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8))
    return ["--source", str(tmp / "few.npy"), "--sizes", "2"]


def images_without_content(tmp: Path) -> list[str]:
    np.save(tmp / "black.npy", np.zeros((40, 8, 8), np.uint8))
    return ["--source", str(tmp / "black.npy"), "--sizes", "4"]


def equal_images(tmp: Path) -> list[str]:
    one = np.arange(64, dtype=np.uint8).reshape(1, 8, 8)
    np.save(tmp / "equal.npy", one.repeat(40, axis=0))
    return ["--source", str(tmp / "equal.npy"), "--sizes", "4"]


def images_too_large_to_whiten(tmp: Path) -> list[str]:
    images = np.random.default_rng(0).integers(0, 256, (20, 128, 128), dtype=np.uint8)
    np.save(tmp / "large.npy", images)
    return ["--source", str(tmp / "large.npy"), "--sizes", "4"]


def too_few_samples(tmp: Path) -> list[str]:
    return ["--num-samples", "3"]


def a_name_that_leads_elsewhere(tmp: Path) -> list[str]:
    (tmp / "victim").mkdir()
    (tmp / "victim" / "file").write_text("precious")
    return ["--name", "../../victim", "--no-resume"]


def no_replicas(tmp: Path) -> list[str]:
    return ["--replicas", "0"]


TABLE: list[tuple[Callable[[Path], list[str]], list[str]]] = [
    (missing_path, ["nowhere", "no such file or folder"]),
    (empty_folder, ["empty", "holds no images", ".png"]),
    (corrupt_png, ["broken.png", "not a readable image", "--skip-bad-images"]),
    (mixed_sizes, ["large.png is 9x9 gray", "differ in size", "--image-size"]),
    (truncated_zip, ["images.zip", "not a readable zip", "create it again"]),
    (unknown_preset, ["digit:", "no such preset", "digits-smoke"]),
    (more_images_than_there_are, ["100000", "1 to 898", "--sizes"]),
    (steps_that_do_not_fit_widths, ["--steps", "one number per width"]),
    (a_file_in_the_way_of_the_output, ["file/results", "cannot be written", "--output"]),
    (gray_among_colour, ["red.png is 8x8 RGB", "--channels"]),
    (too_few_images, ["at least 8 images", "got 6"]),
    (images_without_content, ["one plain colour"]),
    (equal_images, ["are equal", "two different"]),
    (images_too_large_to_whiten, ["16384 values", "--image-size", "--descriptor pixels"]),
    (too_few_samples, ["--num-samples", "at least 4, got 3"]),
    (a_name_that_leads_elsewhere, ["--name ../../victim", "letters"]),
    (no_replicas, ["--replicas", "at least 1"]),
    (memory_that_workers_do_not_share, ["memory://results: expected", "outlives this process"]),
    (an_unset_variable, ["no path", "is empty", "expected a local path"]),
    (images_without_size, ["--image-size", "at least 1, got 0"]),
    (unknown_scheme, ["gopher://somewhere/results", "s3://bucket"]),
]


@pytest.mark.parametrize(("make", "words"), TABLE, ids=[make.__name__ for make, _ in TABLE])
def test_bad_input_is_one_line_that_names_the_thing_and_the_remedy(
    make: Callable[[Path], list[str]],
    words: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--preset", "digits-smoke", "--output", str(tmp_path / "out"), *make(tmp_path)]
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert memorization.main(options) != 0
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    assert error.startswith("error: ")
    for word in words:
        assert word in error
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


@pytest.mark.parametrize(
    ("job", "options", "has_option"),
    [
        (audit, ["--train", "{bad}", "--generated", "digits", "--output", "{out}"], True),
        (generate, ["--model", "empirical:{bad}", "--seeds", "0-3", "--output", "{out}"], False),
        (convert, ["{bad}", "{out}.zip"], False),
    ],
)
def test_images_are_said_to_be_left_out_where_there_is_an_option_for_it(
    job: ModuleType,
    options: list[str],
    has_option: bool,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = {"bad": folder(tmp_path, a=png()[:50]), "out": tmp_path / "out"}
    assert job.main([o.format(**paths) for o in options]) == 1
    (error,) = capsys.readouterr().err.strip().splitlines()
    assert "a.png: not a readable image" in error
    assert ("--skip-bad-images" in error) == has_option


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1"])
def test_a_ray_address_that_leads_nowhere_is_named(tmp_path: Path, address: str) -> None:
    text = finish(start(tmp_path / "out", env={"RAY_ADDRESS": address}), expect=1)
    (error,) = [line for line in text.splitlines() if line.startswith("error: ")]
    assert f"RAY_ADDRESS={address}" in error
    assert "unset it" in error
    assert "Traceback" not in text


def test_a_long_folder_for_temporary_files_does_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 12)
    folder.mkdir()
    few = ("--sizes", "8", "--widths", "16", "--steps", "20")
    finish(start(tmp_path / "out", *few, env={"TMPDIR": str(folder)}))
