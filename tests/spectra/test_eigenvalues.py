"""Eigenvalues by the smaller matrix: numpy's, for any blocks; identities; leading ones; files."""

import io

import numpy as np
import pytest
import torch

from regimes.errors import BadSource
from regimes.spectra.files import npy_bytes, published_files, read_spectrum, spectrum_bytes
from regimes.spectra.leading import leading
from regimes.spectra.matrix import eigenvalues
from regimes.spectra.rows import Rows, pixel_rows, symmetric_rows

SHAPES = [(40, 90), (90, 40), (50, 50)]
NORMALISATIONS = {"raw": (False, 1.0), "per-image": (False, 0.0), "covariance": (True, -1.0)}


def data(count, width, seed=0):
    rng = np.random.default_rng(seed)
    return 2 + rng.standard_normal((count, width)) * np.geomspace(0.05, 3, width)


def matrix_of(x, normalisation):
    if normalisation == "covariance":
        x = x - x.mean(0)
    scale = {"raw": 1, "per-image": len(x), "covariance": len(x) - 1}[normalisation]
    return x, scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_gram_covariance_and_singular_values_agree(shape, normalisation):
    values = data(*shape)
    found = eigenvalues(Rows(values=values), normalisation, num_bytes=8 * shape[1] * 7)
    x, scale = matrix_of(values, normalisation)
    k = found.rank_bound
    for other in (
        np.linalg.svd(x, compute_uv=False) ** 2 / scale,
        np.linalg.eigvalsh(x @ x.T / scale)[::-1],
        np.linalg.eigvalsh(x.T @ x / scale)[::-1],
    ):
        rounding = 1e-15 * found.values[0]
        np.testing.assert_allclose(found.values[:k], other[:k], rtol=1e-10, atol=rounding)
    assert found.values.sum() == pytest.approx((x**2).sum() / scale, rel=1e-12)
    assert found.trace == pytest.approx((x**2).sum() / scale, rel=1e-12)
    assert (found.values**2).sum() == pytest.approx(found.frobenius**2, rel=1e-12)
    assert found.frobenius == pytest.approx(np.linalg.norm(x.T @ x) / scale, rel=1e-12)
    if normalisation == "raw":
        assert found.values[0] >= len(values) * found.mean_norm**2
    if normalisation == "covariance" and shape[0] <= shape[1]:
        assert found.values[-1] < 1e-12 * found.values[0]  # centring leaves one exact 0
        assert len(found.positive()) == shape[0] - 1


@pytest.mark.parametrize("shape", SHAPES)
def test_order_blocks_and_storage_do_not_matter(shape, tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (shape[0], shape[1], 1, 1), dtype=np.uint8)
    rows = pixel_rows(images)
    whole = eigenvalues(rows)
    order = np.random.default_rng(2).permutation(shape[0])
    np.save(tmp_path / "a.npy", images)
    mapped = pixel_rows(np.load(tmp_path / "a.npy", mmap_mode="r"))
    for other in (rows.take(order), mapped, Rows(values=rows.dense())):
        for num_bytes in (1, 2**24):
            again = eigenvalues(other, num_bytes=num_bytes)
            np.testing.assert_allclose(again.values, whole.values, atol=1e-13 * whole.values[0])
    # [-1, 1] is [0, 1] times 2: centred eigenvalues are 4 times as large.
    np.testing.assert_allclose(
        eigenvalues(symmetric_rows(images)).values, 4 * whole.values, atol=1e-12 * whole.values[0]
    )


def test_single_precision_is_off_by_its_rounding_and_says_so():
    x = data(60, 200)
    exact, single = (eigenvalues(Rows(values=x), precision=p) for p in ("float64", "float32"))
    assert single.precision == "float32"
    gap = np.abs(single.values - exact.values).max() / exact.values[0]
    assert 1e-12 < gap < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gpu_gives_the_same_eigenvalues(shape):
    rows = Rows(values=data(*shape))
    here, there = eigenvalues(rows), eigenvalues(rows, device="cuda")
    np.testing.assert_allclose(there.values, here.values, atol=1e-12 * here.values[0])


@pytest.mark.parametrize("solver", ["randomised", "lanczos"])
@pytest.mark.parametrize("shape", [(80, 200), (200, 80)])
def test_leading_eigenvalues_and_directions_are_those_of_all(solver, shape):
    x = data(*shape) * np.geomspace(1, 0.01, shape[1])
    found = leading(Rows(values=x), 5, solver=solver, passes=60)
    whole = eigenvalues(Rows(values=x))
    np.testing.assert_allclose(found.spectrum.values, whole.values[:5], rtol=1e-9)
    assert np.abs(found.spectrum.values - whole.values[:5]).max() <= found.spectrum.residual + 1e-12
    centred = x - x.mean(0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:5]
    np.testing.assert_allclose(np.abs((found.directions * directions).sum(1)), 1, atol=1e-6)
    assert found.explained.sum() == pytest.approx(whole.values[:5].sum() / whole.values.sum())
    assert not found.spectrum.is_complete


def test_a_residual_bounds_the_error_of_an_unfinished_iteration():
    rows = Rows(values=np.random.default_rng(0).standard_normal((300, 200)))  # no gap to find
    found, whole = leading(rows, 5, passes=2).spectrum, eigenvalues(rows)
    gaps = [np.abs(whole.values - v).min() for v in found.values]
    assert 1e-3 < found.residual / whole.values[0] < 0.5
    assert max(gaps) <= found.residual


def test_what_has_no_spectrum_is_refused():
    with pytest.raises(ValueError, match="expected 2 or more, got 1"):
        eigenvalues(Rows(values=np.ones((1, 3))))
    with pytest.raises(ValueError, match="row 1: expected finite"):
        eigenvalues(Rows(values=np.array([[1.0, 2], [np.nan, 1]])))
    with pytest.raises(ValueError, match="1 to 2 eigenvalues"):
        leading(Rows(values=np.eye(3)), 3)
    assert eigenvalues(Rows(values=np.ones((4, 3)))).positive().size == 0


def test_a_spectrum_is_read_as_it_was_written(tmp_path):
    found = eigenvalues(Rows(values=data(20, 30)))
    (tmp_path / "a.npz").write_bytes(spectrum_bytes(found, name="real", range="[0, 1]"))
    again, about = read_spectrum(tmp_path / "a.npz")
    assert again.values.tolist() == found.values.tolist()
    assert (again.num_rows, again.width, again.normalisation) == (20, 30, "covariance")
    assert (again.trace, again.frobenius, again.mean_norm) == (
        found.trace,
        found.frobenius,
        found.mean_norm,
    )
    assert about == {"name": "real", "range": "[0, 1]"}


@pytest.mark.parametrize("shape", [(20, 30), (30, 20)])
def test_published_names_hold_the_published_numbers(shape, tmp_path):
    x = data(*shape)
    files = published_files("church", Rows(values=x))
    n = shape[0]
    assert set(files) == {
        f"church_n{n}_gramian_eigenvalues.npy",
        f"church_n{n}_gramian_eigenvectors.npy",
        f"church_p2_n{n}_norms.npy",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    u, s, _ = np.linalg.svd(x, full_matrices=True)
    spectrum, about = read_spectrum(tmp_path / f"church_n{n}_gramian_eigenvalues.npy")
    np.testing.assert_allclose(spectrum.values, s**2, rtol=1e-10)
    assert (spectrum.normalisation, spectrum.num_rows, about["name"]) == ("raw", n, "church")
    vectors = np.load(tmp_path / f"church_n{n}_gramian_eigenvectors.npy")
    np.testing.assert_allclose(np.abs((vectors * u[:, :10]).sum(0)), 1, atol=1e-8)
    norms = np.load(tmp_path / f"church_p2_n{n}_norms.npy")
    np.testing.assert_allclose(norms, np.linalg.norm(x, axis=1))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("a_eigenvalues.npy", np.arange(4.0)),
        ("a_n3_gramian_eigenvalues.npy", np.arange(4.0)),
        ("a_n4_gramian_eigenvalues.npy", np.array([1.0, np.nan, 0, 0])),
        ("a_n2_gramian_eigenvalues.npy", np.array([1 + 1j, 0])),
    ],
)
def test_files_that_are_no_spectra_are_refused_by_name(tmp_path, name, values):
    (tmp_path / name).write_bytes(npy_bytes(values))
    with pytest.raises(BadSource, match=name):
        read_spectrum(tmp_path / name)


@pytest.mark.parametrize("name", ["a_n4_gramian_eigenvalues.npy", "a.npz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and nothing of a zip"])
def test_damaged_files_are_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadSource, match=name):
        read_spectrum(tmp_path / name)


def test_an_archive_of_another_format_is_refused(tmp_path):
    written = io.BytesIO(spectrum_bytes(eigenvalues(Rows(values=data(20, 30)))))
    with np.load(written) as arrays:
        text = str(arrays["about"]).replace("spectrum 1", "spectrum 9")
        np.savez(tmp_path / "a.npz", eigenvalues=arrays["eigenvalues"], about=text)
    with pytest.raises(BadSource, match=r"a.npz: expected a spectrum.*spectrum 9"):
        read_spectrum(tmp_path / "a.npz")


def test_published_eigenvalues_of_single_precision_are_cut_at_its_rounding(tmp_path):
    values = np.array([1.0, 1e-3, 1e-9])
    found = {}
    for kind in (np.float32, np.float64):
        path = tmp_path / f"{np.dtype(kind)}_n3_gramian_eigenvalues.npy"
        path.write_bytes(npy_bytes(values.astype(kind)))
        found[kind], _ = read_spectrum(path)
    assert (found[np.float32].precision, len(found[np.float32].positive())) == ("float32", 2)
    assert (found[np.float64].precision, len(found[np.float64].positive())) == ("float64", 3)
