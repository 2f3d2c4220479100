"""The law behind a fitted Gaussian: eigenvalues whose *sample* eigenvalues are those that were fitted.

N rows of a law of D dimensions have eigenvalues spread about those of the law, the more so the larger D / N.
Who draws rows of a Gaussian as it was fitted spreads them a second time, and gets a law that is not the
data's. For N > D the first spread can be undone: find tau with

    E[ eigenvalues of the covariance of N rows of N(0, diag tau) ] = fitted eigenvalues

by tau <- tau * fitted / drawn, each step with new rows. Directions stay those that were fitted.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from regimes.gaussians.model import Gaussian, Mixture
from regimes.noise import keyed_generator

_STEPS, _AVERAGED = 20, 10


def unsmeared_mixture(mixture: Mixture) -> Mixture:
    """The same of every component, by ``unsmeared``."""
    return replace(mixture, components=tuple(unsmeared(g) for g in mixture.components))


def unsmeared(gaussian: Gaussian) -> Gaussian:
    """The Gaussian of which as many rows as this one was fitted to would be fitted by this one, on average.

    Args:
        gaussian: fitted to more rows than it has directions, without shrinkage, its factor's rows
            orthogonal. Any other is returned as it is: what lies beyond its rows cannot be known.

    Cost: 20 covariances of as many rows, and their eigenvalues: O(20 (N R^2 + R^3)).
    """
    free, rank = gaussian.num_fitted - 1, len(gaussian.factor)
    if free <= rank or gaussian.isotropic > 0:
        return gaussian
    fitted = (gaussian.factor**2).sum(1)
    order = np.argsort(fitted)
    target = fitted[order]
    tau, logs = target, np.zeros(rank)
    rng = keyed_generator("unsmeared", free, rank)
    for step in range(_STEPS):
        rows = rng.standard_normal((free, rank)) * np.sqrt(tau)
        drawn = np.linalg.eigvalsh(rows.T @ rows / free)
        tau = np.sort(tau * target / np.maximum(drawn, np.finfo(np.float64).tiny))
        if step >= _STEPS - _AVERAGED:
            logs += np.log(tau) / _AVERAGED
    scale = np.empty(rank)
    scale[order] = np.sqrt(np.exp(logs) / target)
    return replace(gaussian, factor=gaussian.factor * scale[:, None])
