"""Descriptors made of pixels: no network, no weights to download.

A descriptor maps (N, H, W, C) uint8 to (N, D) float32 rows of length 1; the similarity of two
images is the dot product of their rows, in [-1, 1]. An image without any contrast has no direction
and is described by zeros (similarity 0 to everything).
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from regimes.images.pixels import Images, pixel_vectors

Rows = npt.NDArray[np.float32]


class Descriptor(Protocol):
    """A function from uint8 images to unit vectors."""

    @property
    def name(self) -> str:
        """Short name, part of every recipe and score."""
        ...

    def __call__(self, images: Images) -> Rows:
        """(N, H, W, C) uint8 -> (N, D) float32, unit rows."""
        ...


def unit_rows(values: npt.NDArray[np.float64]) -> Rows:
    """(N, D) float64 -> (N, D) float32, each row divided by its length (zero rows stay zero)."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 1e-9).astype(
        np.float32
    )


class Pixels:
    """Pixels minus the image's own mean: the plain correlation of two images.

    Most of it is explained by what all images of a source share (in the digits data two random
    images reach .89), so a threshold separates copies poorly. Prefer ``WhitenedPixels``.
    """

    name = "pixels"

    def __call__(self, images: Images) -> Rows:
        """See ``Descriptor``."""
        values = pixel_vectors(images).astype(np.float64)
        return unit_rows(values - values.mean(1, keepdims=True))


class WhitenedPixels:
    """Pixels whitened by the covariance of a set of real images.

        f(x) = (cov + ridge I)^(-1/2) (x - mean),  normalised;  ridge = strength * trace(cov) / D

    Whitening takes away what images of the source have in common, so that similarity measures what
    is particular to an image; the ridge keeps directions without signal from becoming noise.

    Args:
        mean: (D,) float64.
        transform: (D, D) float64, symmetric.
    """

    name = "whitened-pixels"

    def __init__(self, mean: npt.NDArray[np.float64], transform: npt.NDArray[np.float64]) -> None:
        self.mean, self.transform = mean, transform

    @classmethod
    def fit(cls, images: Images, *, ridge: float = 0.5) -> WhitenedPixels:
        """Fit to (N, H, W, C) uint8 real images; ``ridge`` is relative to the mean eigenvalue.

        Raises:
            ValueError: if the images have no contrast at all. Cost: O(N D^2 + D^3), D = H W C.
        """
        values = pixel_vectors(images).astype(np.float64)
        mean = values.mean(0)
        covariance = (values - mean).T @ (values - mean) / len(values)
        variances, directions = np.linalg.eigh(covariance)
        floor = ridge * variances.mean()
        if floor <= 0:
            raise ValueError("cannot whiten images that are all equal")
        scale = 1 / np.sqrt(variances.clip(0) + floor)
        return cls(mean, (directions * scale) @ directions.T)

    def __call__(self, images: Images) -> Rows:
        """See ``Descriptor``."""
        values = pixel_vectors(images).astype(np.float64)
        return unit_rows((values - self.mean) @ self.transform)
