"""Singular values of Jacobians: all of them, or the largest by random projection.

Block Krylov iteration (Musco & Musco 2015, algorithm 2), with G a Gaussian matrix of ``width`` columns:

    Q = orth[J G, (J J^T) J G, ..., (J J^T)^q J G],    B = Q^T J,    s_i(B) ~ s_i(J)

Randomised SVD with power iteration (Halko, Martinsson & Tropp 2011) keeps the last block only; all of
them cost the same products of J, hold q + 1 times as many values, and find the leading ones sooner. The
last ``width`` of these are the least exact, and are counted by their energy only. The values of B
never exceed those of J. What Q misses is measured, not assumed: for fresh Gaussian w,
E ||(I - Q Q^T) J w||^2 is the energy outside of Q, so a few such w estimate it with its standard
error, wider for fewer (``_widened``). How exact the values are is measured too: leaving out the last
round changes them by more than they still lack (``Spectrum.value_error``). The width grows until the
values that are listed reach the published energy, and the last round changed those by no more than a
thousandth of the largest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student
from torch import Tensor

from regimes.errors import ConfigError
from regimes.jacobians.linearization import Dense, Linearization, LinearMap, full_jacobian
from regimes.jacobians.ranks import ROOT_ENERGY, Spectrum
from regimes.noise import keyed_generator

Method = Literal["auto", "full", "randomised"]
Floats = npt.NDArray[np.float64]
TOLERANCE = 1e-3
"""Of singular values that are found by projection, as a share of the largest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumConfig:
    """How singular values are found."""

    method: Method = "auto"
    """full: all of them, from the whole Jacobian; randomised: the largest, from products with random
    directions; auto: full where a Jacobian fits into ``memory_mb``."""
    width: int = 64
    """Randomised: directions to begin with, each of which finds ``power`` values; doubled until the values
    hold the energy."""
    max_width: int | None = None
    """Randomised: most directions; as many as find a quarter of all values if not given."""
    power: int = 2
    """Randomised: rounds of the iteration, two products of each direction."""
    probes: int = 10
    """Randomised: directions that measure what is missed."""
    memory_mb: int = 256
    """Largest Jacobian that auto computes whole, in megabytes: 36 for 3x32x32 images, 576 for 3x64x64,
    where the SVD alone would take hours of a CPU. A batch holds as many as it has points."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name, least in (("width", 1), ("power", 1), ("probes", 2), ("memory_mb", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        if self.max_width is not None and self.max_width < self.width:
            raise ConfigError(
                f"max_width: expected at least the width {self.width}, got {self.max_width}"
            )

    def is_full(self, size: int, itemsize: int) -> bool:
        """Whether a Jacobian of this side is computed whole."""
        if self.method != "auto":
            return self.method == "full"
        return size**2 * itemsize <= self.memory_mb * 2**20


@dataclass(frozen=True, slots=True)
class Decomposition:
    """Singular values of P matrices, and the leading vectors of each."""

    spectra: list[Spectrum]
    outputs: Tensor
    """(P, k, n), left singular vectors as rows: directions in which D can change."""
    inputs: Tensor
    """(P, k, n), right singular vectors: changes of x that D follows."""


def decompose(
    local: Linearization, config: SpectrumConfig, *, seed: int = 0, vectors: int = 4
) -> Decomposition:
    """Singular values and leading vectors of the Jacobians at P points.

    Args:
        local: the denoiser at these points.
        config: full or randomised.
        seed: of the random directions.
        vectors: leading vectors to return; at most n.

    Cost: full, n products and an SVD of n^3 per point; randomised, (3 power + 2) width products.
    """
    like, (_, n) = local.value, local.shape
    if config.is_full(n, like.element_size()):
        matrices = full_jacobian(local, like)
        spectra = full_spectra(matrices)
        outputs, inputs = _leading(Dense(matrices), like, seed, vectors)
        return Decomposition(spectra, outputs, inputs)
    return randomised(local, like, config, seed=seed, vectors=vectors)


def full_spectra(matrices: Tensor) -> list[Spectrum]:
    """All singular values of (P, n, n) matrices, by LAPACK."""
    values = torch.linalg.svdvals(matrices).to(torch.float64).cpu().numpy()
    return [Spectrum(values=v, size=len(v)) for v in values]


def randomised(
    local: LinearMap,
    like: Tensor,
    config: SpectrumConfig,
    *,
    seed: int = 0,
    vectors: int = 4,
) -> Decomposition:
    """The largest singular values, as many as it takes to hold the published energy.

    Args:
        local: P maps.
        like: a tensor of their dtype and device.
        config: widths, power iterations and probes.
        seed: of the random directions; the result depends on it by the error estimated.
        vectors: leading vectors to return.

    Returns:
        Spectra with the unlisted energy and its error. A spectrum that ``max_width`` directions do
        not reach says so by its rank's upper bound, and by its ``value_error``.
    """
    _, n = local.shape
    most = min(n, config.max_width or max(config.width, n // (4 * config.power)))
    width = min(config.width, most)
    while True:
        spectra, outputs, inputs = _project(local, like, config, (seed, width))
        if width >= most or all(_is_found(s) for s in spectra):
            return Decomposition(spectra, outputs[:, :vectors], inputs[:, :vectors])
        width = min(2 * width, most)


def _is_found(spectrum: Spectrum) -> bool:
    """Whether the listed values hold the energy, and are exact."""
    held = float((spectrum.values**2).sum())
    reaches = held >= ROOT_ENERGY**2 * (held + spectrum.rest + 2 * spectrum.rest_error)
    return reaches and spectrum.value_error <= TOLERANCE * float(spectrum.values[0])


def _project(
    local: LinearMap, like: Tensor, config: SpectrumConfig, key: tuple[int, int]
) -> tuple[list[Spectrum], Tensor, Tensor]:
    """Values, left and right vectors of the projection that ``width`` directions give."""
    points, n = local.shape
    width = key[1]
    Q = _range(local, _gaussian(like, (points, width, n), "directions", *key), config.power)
    B = local.pull(Q)  # (P, k, n)
    U, s, Vh = torch.linalg.svd(B, full_matrices=False)
    images = local.push(_gaussian(like, (points, config.probes, n), "probes", *key))
    missed = (images - images @ Q.mT @ Q).to(torch.float64).square().sum(-1)  # (P, probes)
    values, kept = s.to(torch.float64).cpu().numpy(), width * config.power
    before = torch.linalg.svdvals(B[:, :kept])  # of the rows that were there before the last round
    lacks = values[:, :kept] - before.to(torch.float64).cpu().numpy()
    if Q.shape[1] == n:  # Q spans everything: what is left is rounding
        missed, lacks, kept = torch.zeros_like(missed), np.zeros_like(lacks), n
    error = missed.std(1) / config.probes**0.5 * _widened(config.probes)
    rest = missed.mean(1).cpu().numpy() + (values[:, kept:] ** 2).sum(1)
    spectra = [
        Spectrum(values=v, size=n, rest=r, rest_error=e, value_error=_leading_error(v, r, d))
        for v, r, e, d in zip(values[:, :kept], rest.tolist(), error.tolist(), lacks)
    ]
    return spectra, (U.mT @ Q)[:, :kept], Vh[:, :kept]


def _widened(probes: int) -> float:
    """What makes two standard errors of so few probes an interval of 95%, by Student's t."""
    return float(student.ppf(0.975, probes - 1)) / 2


def _leading_error(values: Floats, rest: float, lacks: Floats) -> float:
    """The largest of what values lack (k,), of those that hold the energy."""
    held = (values**2).cumsum()
    count = int((held <= ROOT_ENERGY**2 * (held[-1] + rest)).sum()) + 1
    return float(np.abs(lacks[:count]).max(initial=0.0))


def _range(local: LinearMap, directions: Tensor, power: int) -> Tensor:
    """Orthonormal rows (P, min((power + 1) k, n), n) that nearly span the leading outputs of each map."""
    blocks = [_orthonormal(local.push(directions))]
    for _ in range(power):
        blocks.append(_orthonormal(local.push(_orthonormal(local.pull(blocks[-1])))))
    return _orthonormal(torch.cat(blocks, dim=1))


def _orthonormal(rows: Tensor) -> Tensor:
    return torch.linalg.qr(rows.mT).Q.mT


def _leading(local: Dense, like: Tensor, seed: int, vectors: int) -> tuple[Tensor, Tensor]:
    """Leading vectors of matrices that are held, without a full SVD with vectors."""
    points, n = local.shape
    width = min(n, vectors + 8)
    Q = _range(local, _gaussian(like, (points, width, n), "leading", seed, width), 4)
    U, _, Vh = torch.linalg.svd(local.pull(Q), full_matrices=False)
    return (U.mT @ Q)[:, :vectors], Vh[:, :vectors]


def _gaussian(like: Tensor, shape: tuple[int, ...], *key: int | str) -> Tensor:
    draws = keyed_generator("jacobian", *key).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(draws).to(like)
