"""Repulsive forces of a group of particles.

    U = sum_{i<j} k_ij,   k_ij = exp(-delta_ij / h),   F_i = -dU/dz_i = sum_j (k_ij / h) d delta_ij/dz_i

h is one number per group and a constant to the derivative, so that forces between two particles are
opposite where delta depends on z_i - z_j: they add up to 0. Where particles coincide delta is at its
minimum and F is 0. Closed forms for rbf, cosine and angular; iou and custom by autograd.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from regimes.guidance.config import GuidanceConfig

Dissimilarity = Callable[[Tensor], Tensor]
"""(G, B, D) float64 -> (G, B, B) float64, symmetric, at least 0, and 0 between equal particles."""
_TINY = 1e-12


def group_forces(
    z: Tensor, config: GuidanceConfig, sigma: float, custom: Dissimilarity | None = None
) -> Tensor:
    """Forces on the particles of independent groups.

    Args:
        z: (G, B, D) float64; for the iou kernel pixels in [-1, 1].
        config: kernel, bandwidth and average are used.
        sigma: noise level, for a bandwidth in proportion to it.
        custom: the dissimilarity of kernel custom.

    Returns:
        (G, B, D) float64, -dU/dz with h held constant.

    Raises:
        ValueError: if the dissimilarity is missing, or of another shape.

    Cost: O(G B^2 D) time; memory O(G B (B + D)), but O(G B^2 D) for iou.
    """
    if config.kernel == "rbf":
        force = _rbf_forces(z, config, sigma)
    elif config.kernel in ("cosine", "angular"):
        force = _angle_forces(z, config, sigma)
    else:
        force = _autograd_forces(z, config, sigma, custom)
    return force / z.shape[1] if config.average else force


def potential(
    z: Tensor, config: GuidanceConfig, bandwidths: Tensor, custom: Dissimilarity | None = None
) -> Tensor:
    """U of every group for given bandwidths; for checks of the forces.

    Args:
        z: (G, B, D) float64.
        config: kernel and average are used.
        bandwidths: (G, 1, 1) float64.
        custom: the dissimilarity of kernel custom.

    Returns:
        (G,) float64.
    """
    weights = _weights(dissimilarities(z, config, custom), bandwidths)
    total = weights.triu(1).sum((1, 2))
    return total / z.shape[1] if config.average else total


def dissimilarities(
    z: Tensor, config: GuidanceConfig, custom: Dissimilarity | None = None
) -> Tensor:
    """Dissimilarity delta between the particles of every group, (G, B, D) -> (G, B, B) float64."""
    if config.kernel == "rbf":
        return _distances(z).square()
    if config.kernel == "iou":
        return 1 - overlaps(z)
    if config.kernel == "cosine":
        return _distances(_directions(z)).square() / 2
    if config.kernel == "angular":
        return _angles(_directions(z)).square()
    return _checked(custom, z)


def bandwidth(delta: Tensor, config: GuidanceConfig, sigma: float) -> Tensor:
    """Bandwidth h of every group, (G, B, B) -> (G, 1, 1), without gradient.

    The median rule takes the lower median over pairs i < j, and their mean if that is 0 (more than
    half of the pairs coincide). 0 if all particles coincide.
    """
    groups, size = delta.shape[:2]
    if config.bandwidth != "median":
        h = config.width * (sigma if config.bandwidth == "sigma" else 1.0)
        return delta.new_full((groups, 1, 1), h)
    i, j = torch.triu_indices(size, size, 1, device=delta.device)
    pairs = delta.detach()[:, i, j]
    middle = pairs.median(1).values
    middle = torch.where(middle > 0, middle, pairs.mean(1))
    return (config.width * middle / math.log(size))[:, None, None]


def overlaps(z: Tensor) -> Tensor:
    """Overlap sum min / sum max of images in [-1, 1], taken to [0, 1]; (G, B, D) -> (G, B, B).

    Two black images overlap entirely.
    """
    pixels = ((z + 1) / 2).clamp(0, 1)
    a, b = pixels[:, :, None], pixels[:, None]
    both, either = torch.minimum(a, b).sum(-1), torch.maximum(a, b).sum(-1)
    return torch.where(either > 0, both / either.clamp(min=_TINY), 1.0)


def _rbf_forces(z: Tensor, config: GuidanceConfig, sigma: float) -> Tensor:
    # Relative to one of the particles: coinciding ones then give exact zeros.
    z = z - z[:, :1]
    delta = _distances(z).square()
    h = bandwidth(delta, config, sigma)
    pull = 2 * _over(_weights(delta, h), h)
    return pull.sum(2, keepdim=True) * z - pull @ z


def _angle_forces(z: Tensor, config: GuidanceConfig, sigma: float) -> Tensor:
    """By d angle_ij / dz_i = -(u_j - cos u_i) / (sin |z_i|) with directions u."""
    norms = z.norm(dim=2, keepdim=True)
    u = _directions(z)
    angles = _angles(u)
    delta = angles.square() if config.kernel == "angular" else 2 * (angles / 2).sin().square()
    h = bandwidth(delta, config, sigma)
    pull = _over(_weights(delta, h), h)
    if config.kernel == "angular":
        pull = pull * 2 / torch.sinc(angles / math.pi).clamp(min=_TINY)
    apart = u - u[:, :1]  # coinciding particles then give exact zeros
    along = pull @ apart - pull.sum(2, keepdim=True) * apart
    along = along - (along * u).sum(2, keepdim=True) * u  # u_j - u_i, across u_i
    return torch.where(norms > 0, -along / norms.clamp(min=_TINY), 0.0)


def _autograd_forces(
    z: Tensor, config: GuidanceConfig, sigma: float, custom: Dissimilarity | None
) -> Tensor:
    with torch.enable_grad():
        leaf = z.detach().clone().requires_grad_()
        delta = dissimilarities(leaf, config, custom)
        h = bandwidth(delta, config, sigma)
        total = torch.where(h > 0, _weights(delta, h), delta * 0).triu(1).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
    return -gradient


def _checked(custom: Dissimilarity | None, z: Tensor) -> Tensor:
    if custom is None:
        raise ValueError("kernel custom: expected a dissimilarity, got none")
    delta = custom(z)
    if delta.shape != (*z.shape[:2], z.shape[1]):
        raise ValueError(
            f"dissimilarity: expected shape {(*z.shape[:2], z.shape[1])}, got {tuple(delta.shape)}"
        )
    return delta


def _weights(delta: Tensor, h: Tensor) -> Tensor:
    """Kernel k between different particles; a particle does not repel itself."""
    size = delta.shape[1]
    k = (-delta / torch.where(h > 0, h, 1.0)).exp()
    return k * (1 - torch.eye(size, dtype=k.dtype, device=k.device))


def _over(weights: Tensor, h: Tensor) -> Tensor:
    return torch.where(h > 0, weights / torch.where(h > 0, h, 1.0), 0.0)


def _distances(z: Tensor) -> Tensor:
    return torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist")


def _directions(z: Tensor) -> Tensor:
    return z / z.norm(dim=2, keepdim=True).clamp(min=_TINY)


def _angles(u: Tensor) -> Tensor:
    """Between unit vectors, in [0, pi]; accurate for small ones, where arccos is not."""
    return 2 * (_distances(u) / 2).clamp(max=1).asin()
