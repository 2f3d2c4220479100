"""Vendi score: the effective number of different items in a set (Friedman & Dieng 2023).

    K_ij = <f(x_i), f(x_j)>,  K_ii = 1,    l = eigenvalues of K / n, which sum to 1
    VS_q = (sum_i l_i^q)^(1 / (1 - q)),    VS_1 = exp(-sum_i l_i log l_i),    VS_inf = 1 / max l

n equal items score 1, n orthogonal ones n. It is at most min(n, D), and grows with n until it
saturates: compare at equal n.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from regimes.scores.features import Features, check_comparable
from regimes.scores.resampling import equal_number, interval, jackknife_variance, random_groups
from regimes.scores.result import Score

Floats = npt.NDArray[np.float64]


def vendi_number(rows: npt.NDArray[np.float32], *, q: float = 1.0) -> float:
    """The Vendi score of unit rows.

    Args:
        rows: (N, D), of length 1 within 1e-3 (they are normalised again in float64).
        q: order, 0 to inf; large orders look at common items only, small ones at rare ones too. At
            q = 0 it is the rank.

    Returns:
        A number in [1, min(N, D)].

    Raises:
        ValueError: if q is negative, there is no row, or a row is not of length 1 (an image without
            contrast is described by zeros, and has no direction to compare).

    Cost: O(N D min(N, D)) time, O(min(N, D)^2) memory: the smaller of the two Gram matrices.
    """
    return order_q(spectrum(_unit(rows)), q)


def vendi_score(
    generated: Features,
    heldout: Features,
    *,
    q: float = 1.0,
    name: str = "vendi",
    num_groups: int = 20,
    seed: int = 0,
) -> Score:
    """Vendi score of samples; its value is a number of items, not a fraction.

    Args:
        generated: (M, D) unit rows.
        heldout: (H, D) unit rows of real images, H >= M.
        q: order, see ``vendi_number``; it is the score's ``threshold``.
        name: name of the result.
        num_groups: groups of the jackknife that gives the interval.
        seed: of the groups, and of the choice of held-out images.

    Returns:
        The score. Null: that of M held-out images. Neither direction is better: below the null
        samples lack diversity, above it they scatter more than real images. The interval is too wide
        where the score is near its maximum D, where it does not depend on single items any more.

    Raises:
        DescriptorMismatch: if the descriptors differ.
        ValueError: see ``vendi_number`` and ``equal_number``.

    Cost: ``num_groups`` + 2 eigenvalue problems of size min(M, D).
    """
    check_comparable(generated, heldout)
    rows = _unit(generated.values)
    value = order_q(spectrum(rows), q)
    groups = random_groups(len(rows), num_groups, seed=seed)
    left_out = [order_q(spectrum(rows[groups != g]), q) for g in range(num_groups)]
    low, high = interval(value, jackknife_variance(left_out), num_groups=num_groups)
    return Score(
        name=name,
        value=value,
        low=max(1.0, low),
        high=high,
        null=vendi_number(equal_number(heldout, len(rows), seed=seed).values, q=q),
        threshold=q,
        num_generated=len(rows),
        num_train=len(heldout),
        descriptor=generated.descriptor,
        higher_is_better=None,
        per_item={"id": generated.ids},
    )


def _unit(rows: npt.NDArray[np.float32]) -> Floats:
    values = rows.astype(np.float64)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    wrong = int((np.abs(lengths - 1) > 1e-3).sum())
    if wrong or len(rows) == 0:
        raise ValueError(f"vendi: expected rows of length 1, got {wrong} others of {len(rows)}")
    return values / lengths


def spectrum(rows: Floats) -> Floats:
    """Eigenvalues of K / n, (min(N, D),), at least 0: those of rows^T rows / n if that is smaller."""
    n, width = rows.shape
    gram = (rows.T @ rows if width < n else rows @ rows.T) / n
    return np.linalg.eigvalsh(gram).clip(0)


def order_q(eigenvalues: Floats, q: float) -> float:
    """Effective number of a distribution, (sum l^q)^(1 / (1 - q)) and its limits (Hill 1973)."""
    if not q >= 0:
        raise ValueError(f"q: expected a number from 0 to inf, got {q}")
    tiny = len(eigenvalues) * np.finfo(np.float64).eps * eigenvalues.max()
    positive = eigenvalues[eigenvalues > tiny]
    if math.isinf(q):
        return float(1 / positive.max())
    if q == 1:
        return float(np.exp(-(positive * np.log(positive)).sum()))
    return float((positive**q).sum() ** (1 / (1 - q)))
