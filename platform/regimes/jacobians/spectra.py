"""Singular values of Jacobians: all of them, or the largest by random projection.

Randomised SVD (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1), with G a Gaussian matrix:

    Q = orth(J (J^T J)^q G),    B = Q^T J,    s_i(B) ~ s_i(J)

The values of B never exceed those of J. What Q misses is measured, not assumed: for fresh Gaussian
w, E ||(I - Q Q^T) J w||^2 is the energy outside of Q, so a few such w estimate it with its standard
error. The width of Q grows until the values it holds reach the published energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from regimes.errors import ConfigError
from regimes.jacobians.linearization import Dense, Linearization, LinearMap, full_jacobian
from regimes.jacobians.ranks import ROOT_ENERGY, Spectrum
from regimes.noise import keyed_generator

Method = Literal["auto", "full", "randomised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumConfig:
    """How singular values are found."""

    method: Method = "auto"
    """full: all of them, from the whole Jacobian; randomised: the largest, from products with random
    directions; auto: full where the Jacobians of a batch fit into ``memory_mb``."""
    width: int = 64
    """Randomised: directions to begin with; doubled until they hold the energy."""
    max_width: int | None = None
    """Randomised: most directions; a quarter of all if not given."""
    power: int = 2
    """Randomised: rounds of power iteration, two products each."""
    probes: int = 10
    """Randomised: directions that measure what is missed."""
    memory_mb: int = 1024
    """Largest Jacobian that auto computes, in megabytes."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name, least in (("width", 1), ("power", 0), ("probes", 2), ("memory_mb", 1)):
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

    Cost: full, n products and an SVD of n^3 per point; randomised, (2 power + 2) width products.
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
        not reach says so by its rank's upper bound.
    """
    _, n = local.shape
    most = min(n, config.max_width or max(config.width, n // 4))
    width = min(config.width, most)
    while True:
        spectra, outputs, inputs = _project(local, like, config, (seed, width))
        if width >= most or all(_reaches(s) for s in spectra):
            return Decomposition(spectra, outputs[:, :vectors], inputs[:, :vectors])
        width = min(2 * width, most)


def _reaches(spectrum: Spectrum) -> bool:
    held = float((spectrum.values**2).sum())
    return held >= ROOT_ENERGY**2 * (held + spectrum.rest + 2 * spectrum.rest_error)


def _project(
    local: LinearMap, like: Tensor, config: SpectrumConfig, key: tuple[int, int]
) -> tuple[list[Spectrum], Tensor, Tensor]:
    """Values, left and right vectors of the projection on ``width`` directions."""
    points, n = local.shape
    width = key[1]
    Q = _range(local, _gaussian(like, (points, width, n), "directions", *key), config.power)
    U, s, Vh = torch.linalg.svd(local.pull(Q), full_matrices=False)  # of B (P, width, n)
    images = local.push(_gaussian(like, (points, config.probes, n), "probes", *key))
    missed = (images - images @ Q.mT @ Q).to(torch.float64).square().sum(-1)  # (P, probes)
    if width == n:
        missed = torch.zeros_like(missed)  # Q spans everything: what is left is rounding
    error = missed.std(1) / config.probes**0.5
    rows = zip(s.to(torch.float64).cpu().numpy(), missed.mean(1).tolist(), error.tolist())
    spectra = [Spectrum(values=v, size=n, rest=r, rest_error=e) for v, r, e in rows]
    return spectra, U.mT @ Q, Vh


def _range(local: LinearMap, directions: Tensor, power: int) -> Tensor:
    """Orthonormal rows (P, k, n) that nearly span the leading outputs of each map."""
    Q = _orthonormal(local.push(directions))
    for _ in range(power):
        Q = _orthonormal(local.push(_orthonormal(local.pull(Q))))
    return Q


def _orthonormal(rows: Tensor) -> Tensor:
    return torch.linalg.qr(rows.mT).Q.mT


def _leading(local: Dense, like: Tensor, seed: int, vectors: int) -> tuple[Tensor, Tensor]:
    """Leading vectors of matrices that are held, without a full SVD with vectors."""
    points, n = local.shape
    width = min(n, vectors + 8)
    Q = _range(local, _gaussian(like, (points, width, n), "leading", seed, width), 6)
    U, _, Vh = torch.linalg.svd(local.pull(Q), full_matrices=False)
    return (U.mT @ Q)[:, :vectors], Vh[:, :vectors]


def _gaussian(like: Tensor, shape: tuple[int, ...], *key: int | str) -> Tensor:
    draws = keyed_generator("jacobian", *key).standard_normal(shape, dtype=np.float32)
    return torch.from_numpy(draws).to(like)
