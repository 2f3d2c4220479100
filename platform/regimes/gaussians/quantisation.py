"""What it does to samples of a Gaussian to become images: values are clipped to [-1, 1] and rounded.

A Gaussian fitted to images has mass outside their range. Stored as the real images are, its samples
have another mean and another covariance than were fitted; how far off they are belongs beside every
comparison of the two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantisationError:
    """How images differ from the samples that they were made of, from M samples and their images."""

    num_samples: int
    clipped: float
    """Fraction of values outside [-1, 1]."""
    mean_error: float
    """|mean of images - mean of samples| / sqrt(trace of the samples' covariance)."""
    trace_ratio: float
    """Total variance of images over that of samples; 1 is no error."""
    covariance_error: float
    """|cov of images - cov of samples|_F / |cov of samples|_F."""

    @property
    def words(self) -> str:
        """One sentence."""
        return (
            f"{100 * self.clipped:.2g}% of values lie outside the range of images and are clipped; the "
            f"mean moves by {100 * self.mean_error:.2g}% of the standard deviation, the total variance "
            f"becomes {self.trace_ratio:.3f} of what was fitted, the covariance is off by "
            f"{100 * self.covariance_error:.2g}% (Frobenius)."
        )


def quantise(samples: Floats) -> npt.NDArray[np.uint8]:
    """(..., ) float in [-1, 1] -> uint8 by the house's rule, floor(clip(127.5 x + 128, 0, 255))."""
    return np.clip(samples * 127.5 + 128, 0, 255).astype(np.uint8)


def quantisation_error(samples: Floats) -> QuantisationError:
    """Compare samples with their images.

    Args:
        samples: (M, D) float, in the range where images are [-1, 1]; M >= 2.

    Cost: O(M^2 D); norms of covariances are those of M x M Gram matrices. Both sides have the same M
    samples, so that their sampling errors cancel.
    """
    images = quantise(samples) / 127.5 - 1
    x, q = (v - v.mean(0) for v in (samples, images))
    trace = float((x**2).sum())
    xx, qq, xq = (float(((a @ b.T) ** 2).sum()) for a, b in ((x, x), (q, q), (x, q)))
    shift = images.mean(0) - samples.mean(0)
    return QuantisationError(
        num_samples=len(samples),
        clipped=float((np.abs(samples) > 1).mean()),
        mean_error=float(np.linalg.norm(shift) / (trace / (len(samples) - 1)) ** 0.5),
        trace_ratio=float((q**2).sum()) / trace,
        covariance_error=(max(xx + qq - 2 * xq, 0.0) / xx) ** 0.5,
    )
