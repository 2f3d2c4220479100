"""Fitting Gaussians and mixtures to rows: one Gaussian, one per class, or K components by EM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError
from regimes.gaussians.model import Gaussian, Mixture
from regimes.gaussians.moments import StreamedMoments
from regimes.spectra.rows import Rows
from regimes.words import counted

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Shrinkage = Literal["none", "ridge", "ledoit-wolf"]
LARGEST_EM = 3072
"""Values per image (32x32x3) up to which EM is run: it keeps a D x D matrix per component, twice."""
_SMALLEST_RIDGE = 1e-6
_RIDGE, _EM_ITERATIONS = 1e-3, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How a mixture is fitted."""

    by: Literal["pooled", "class"] = "pooled"
    """One Gaussian of all images, or one per class."""
    components: int = 1
    """Components fitted by EM (scikit-learn, full covariances) instead; 1 needs no EM."""
    shrinkage: Shrinkage = "none"
    """none; ridge adds a constant variance; ledoit-wolf moves the covariance towards a multiple of the
    identity by the weight that is best for its mean squared error."""
    ridge: float = _RIDGE
    """That constant, in units of the mean eigenvalue."""
    em_seed: int = 0
    """Of the first means of EM."""
    em_iterations: int = _EM_ITERATIONS
    """Most steps of EM."""

    def __post_init__(self) -> None:
        """Refuse what could not be fitted."""
        for name in ("components", "em_iterations"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"--mixture.{name.replace('_', '-')}: expected at least 1, got {getattr(self, name)}"
                )
        if not (self.ridge > 0 and np.isfinite(self.ridge)):
            raise ConfigError(f"--mixture.ridge: expected a number above 0, got {self.ridge}")
        self._check_unused()
        if self.components > 1 and self.by == "class":
            raise ConfigError(
                "--mixture.by class: one Gaussian per class; leave --mixture.components out"
            )
        if self.components > 1 and self.shrinkage == "ledoit-wolf":
            raise ConfigError(
                "--mixture.shrinkage ledoit-wolf: of single Gaussians; EM takes ridge or none"
            )

    def _check_unused(self) -> None:
        """Refuse what would change nothing."""
        if self.ridge != _RIDGE and self.shrinkage != "ridge":
            raise ConfigError(
                f"--mixture.ridge: of --mixture.shrinkage ridge, got {self.shrinkage}; leave it out"
            )
        if self.components == 1 and (self.em_seed, self.em_iterations) != (0, _EM_ITERATIONS):
            raise ConfigError(
                "--mixture.em-seed, --mixture.em-iterations: of EM, for --mixture.components of 2 or more; "
                "leave them out"
            )

    @property
    def words(self) -> str:
        """What is fitted, for people."""
        if self.components > 1:
            what = f"{self.components} Gaussians by EM"
        else:
            what = "one Gaussian per class" if self.by == "class" else "one Gaussian"
        how = {"none": "", "ridge": f", ridge {self.ridge:g}", "ledoit-wolf": ", Ledoit-Wolf"}
        return what + how[self.shrinkage]


def fit_mixture(
    rows: Rows, config: FitConfig, labels: Labels | None = None, *, device: str = "cpu"
) -> Mixture:
    """Fit a mixture.

    Args:
        rows: (N, D).
        config: what to fit.
        labels: (N,) classes, for ``by="class"``.
        device: where moments are accumulated.

    Raises:
        ConfigError: if there are no classes, a class or the set has fewer than 2 rows, or D is too
            large for EM.

    Cost: O(N D) where N <= D; O(N D^2 + D^3) else; EM that per component and step.
    """
    if config.components > 1:
        return _fit_em(rows, config)
    if config.by == "pooled":
        one = fit_gaussian(rows, config, device=device)
        return Mixture(weights=np.ones(1), components=(one,))
    if labels is None:
        raise ConfigError(
            "--mixture.by class: the images do not say their classes; expected class folders or labels, or "
            "--mixture.by pooled"
        )
    classes, counts = np.unique(labels, return_counts=True)
    parts = (rows.take(np.flatnonzero(labels == c)) for c in classes)
    return Mixture(
        weights=counts / counts.sum(),
        components=tuple(fit_gaussian(part, config, device=device) for part in parts),
        labels=tuple(int(c) for c in classes),
    )


def fit_gaussian(rows: Rows, config: FitConfig | None = None, *, device: str = "cpu") -> Gaussian:
    """Mean and covariance (over N - 1) of rows, as a factor of the smaller side.

    Args:
        rows: (N, D), N >= 2.
        config: shrinkage.
        device: where moments are accumulated, if D < N.

    Raises:
        ConfigError: if there are fewer than 2 rows.
    """
    config = config or FitConfig()
    count, width = rows.shape
    if count < 2:
        raise ConfigError(f"a Gaussian: expected 2 images or more to fit it to, got {count}")
    if count <= width:
        mean = rows.mean()
        factor = (rows.dense() - mean) / (count - 1) ** 0.5
    else:
        moments = StreamedMoments.of(rows, device=device)
        mean, factor = moments.mean, factor_of(moments.covariance)
    mean_variance = float((factor**2).sum()) / width
    if config.shrinkage == "ridge":
        return Gaussian(
            mean=mean, factor=factor, isotropic=config.ridge * mean_variance, num_fitted=count
        )
    rho = ledoit_wolf(rows, mean, factor) if config.shrinkage == "ledoit-wolf" else 0.0
    return Gaussian(
        mean=mean,
        factor=factor * (1 - rho) ** 0.5 if rho else factor,
        isotropic=rho * mean_variance,
        num_fitted=count,
        shrinkage=rho,
    )


def factor_of(covariance: Floats) -> Floats:
    """(R, D) F with F^T F = S for a semidefinite S; directions whose variance is rounding are left out."""
    variances, directions = np.linalg.eigh(covariance)
    kept = variances > len(variances) * np.finfo(np.float64).eps * max(variances[-1], 0.0)
    return np.sqrt(variances[kept])[:, None] * directions[:, kept].T


def ledoit_wolf(rows: Rows, mean: Floats, factor: Floats) -> float:
    """The weight rho in [0, 1] of the identity that minimises E |(1 - rho) S + rho m I - cov|_F^2.

    Args:
        rows: (N, D).
        mean: (D,) of them.
        factor: (R, D) with F^T F = S over N - 1.

    Source: Ledoit & Wolf 2004, lemma 3.2 to 3.4; |S|_F^2 = |F F^T|_F^2, so no D x D matrix.
    """
    count, width = rows.shape
    gram = factor @ factor.T if len(factor) <= width else factor.T @ factor
    unbiased = (count - 1) / count  # they divide by N
    energy = float((gram**2).sum()) * unbiased**2
    trace = float((factor**2).sum()) * unbiased
    fourth = sum(float((((b - mean) ** 2).sum(1) ** 2).sum()) for b in rows.blocks()) / count
    distance = energy - trace**2 / width
    error = (fourth - energy) / count
    return 0.0 if distance <= 0 else float(np.clip(error / distance, 0, 1))


def _fit_em(rows: Rows, config: FitConfig) -> Mixture:
    """scikit-learn's EM; its covariances become factors like any other."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    count, width = rows.shape
    if width > LARGEST_EM:
        raise ConfigError(
            f"--mixture.components {config.components}: EM takes images of at most {LARGEST_EM} values, got "
            f"{width}; pass --mixture.by class, or leave it out"
        )
    if count < 2 * config.components:
        raise ConfigError(
            f"--mixture.components {config.components}: expected at least {2 * config.components} "
            f"images, got {count}"
        )
    x = rows.dense()
    ridge = config.ridge if config.shrinkage == "ridge" else _SMALLEST_RIDGE
    mixture = GaussianMixture(
        config.components,
        covariance_type="full",
        reg_covar=ridge * float(x.var(0).mean()),
        max_iter=config.em_iterations,
        random_state=config.em_seed,
    )
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, in the result
        mixture.fit(x)
    converged = bool(mixture.converged_)
    notes = (
        () if converged else (f"EM did not converge in {counted(config.em_iterations, 'step')}.",)
    )
    return Mixture(
        weights=np.asarray(mixture.weights_) / mixture.weights_.sum(),
        components=tuple(
            Gaussian(mean=m, factor=factor_of(c), num_fitted=max(1, round(w * count)))
            for m, c, w in zip(mixture.means_, mixture.covariances_, mixture.weights_)
        ),
        notes=notes,
    )
