"""The linear classifier of least squares, in closed form, its penalty chosen without any test data.

    W, b = argmin  |X W + b - Y|^2 + lambda |W|^2        Y: one-hot rows; b is not penalised
    x is called by the class whose score x W + b is largest

With X and Y centred, X = A V^T and singular values s, A = U s,

    W = V (s^2 + lambda)^-1 A^T Y,     residual left out = residual / (1 - h),
    h_i = 1 / n + sum_j A_ij^2 / (s_j^2 + lambda)

so that the error of leaving out each image in turn is known from one decomposition (Allen 1974); the
lambda that makes its mean square smallest is taken. This is the minimum of the squared loss on one-hot
targets, whatever the optimiser would have been, and it does not depend on a seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

PENALTIES = tuple(float(p) for p in np.logspace(-5, 2, 15))
"""Penalties that are tried, in units of the mean of the min(n, D) largest eigenvalues of X^T X."""


@dataclass(frozen=True, slots=True)
class Ridge:
    """A linear classifier."""

    weights: Tensor
    """(D, K) float64."""
    offset: Tensor
    """(K,) float64."""
    penalty: float
    """lambda."""

    def scores(self, x: Tensor) -> npt.NDArray[np.float64]:
        """(N, D) -> (N, K) scores; an image is called by the class of the largest."""
        found = x.to(self.weights) @ self.weights + self.offset
        return found.cpu().numpy()


def fit_ridge(x: Tensor, labels: Tensor, num_classes: int) -> Ridge:
    """Least squares on one-hot targets, with the penalty that leaving out single images finds best.

    Args:
        x: (n, D) images or features, n at least 2; computed in float64 on its device.
        labels: (n,) classes from 0 to K - 1.
        num_classes: K.

    Cost: O(n D min(n, D)); of the two Gram matrices only the smaller is made.
    """
    x = x.to(torch.float64)
    mean = x.mean(0)
    x = x - mean
    y = torch.nn.functional.one_hot(labels.to(x.device), num_classes).to(x)
    share = y.mean(0)
    y = y - share
    a, v, s2 = _decomposed(x)
    scale = float(x.square().sum()) / min(x.shape)
    penalties = [p * max(scale, 1e-300) for p in PENALTIES]
    best = min(penalties, key=lambda p: float(_left_out(a, s2, y, p).square().mean()))
    weights = v @ ((a.T @ y) / (s2 + best)[:, None])
    return Ridge(weights, share - mean @ weights, best)


def _decomposed(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A (n, r), V (D, r) and s^2 (r,) of x = A V^T; directions of no length are left out."""
    n, d = x.shape
    s2, vectors = torch.linalg.eigh(x @ x.T if n <= d else x.T @ x)
    kept = s2 > max(float(s2[-1]), 1e-300) * max(n, d) * torch.finfo(s2.dtype).eps
    s2, vectors = s2[kept], vectors[:, kept]
    if n <= d:
        return vectors * s2.sqrt(), x.T @ vectors / s2.sqrt(), s2
    return x @ vectors, vectors, s2


def _left_out(a: Tensor, s2: Tensor, y: Tensor, penalty: float) -> Tensor:
    """(n, K) residual of every image under the classifier of all others."""
    shrunk = a / (s2 + penalty)
    leverage = 1 / len(a) + (a * shrunk).sum(1)
    return (y - shrunk @ (a.T @ y)) / (1 - leverage).clamp_min(1e-12)[:, None]
