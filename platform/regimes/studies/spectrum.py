"""Is the data more than its covariance? Spectra of samples and of a Gaussian mixture beside real ones.

The real images are cut into halves A and B. Models and the mixture come from A; everything is compared
with B, at one number of rows n:

    set            distance of its spectrum to that of B
    floor          distances of random real halves: what is seen when nothing is going on
    mixture        fitted to A, then sampled: its spectrum is smeared twice, once by fitting
    control        data that *are* such a mixture, put through the same steps: fitted on as many rows,
                   sampled, compared with held-out rows. Only beyond this is data more than its moments

Without the control a mixture fitted to few images differs from real images whatever these are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import ks_2samp

from regimes.errors import ConfigError
from regimes.gaussians.fit import FitConfig, Labels, fit_mixture
from regimes.gaussians.model import Mixture
from regimes.gaussians.quantisation import QuantisationError, quantisation_error, quantise
from regimes.gaussians.unsmeared import unsmeared_mixture
from regimes.images.split import Split
from regimes.noise import keyed_generator
from regimes.scores.spectrum import (
    LEAST_SPLITS,
    SpectralComparison,
    SpectralDistance,
    spectral_distance,
    split_half_floor,
)
from regimes.spectra.matrix import Normalisation, Precision, Spectrum, eigenvalues
from regimes.spectra.rows import Rows
from regimes.threads import few_threads

Floats = npt.NDArray[np.float64]
REAL, OTHER_HALF = "real", "real, other half"
MIXTURE, AS_IMAGES = "mixture", "mixture, as images"
FEWEST = 8
ENOUGH_FIT = 10
"""Rows per dimension below which a covariance is fitted too poorly to be called the data's."""
_QUANTISED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumConfig:
    """What is measured, and how sure."""

    normalisation: Normalisation = "covariance"
    """raw (X X^T, as published), per-image (divided by N) or covariance (centred, divided by N - 1)."""
    spikes: int | None = None
    """Largest eigenvalues that are compared one by one, apart from the bulk; by default none of a
    covariance, and that of the mean otherwise."""
    num_images: int = 2048
    """Most images per set; all sets are compared at one number, half of the real ones at most."""
    splits: int = 40
    """Random real halves that give the noise floor."""
    draws: int = 5
    """Sets of samples drawn of the mixture, and most parts that a large set is cut into."""
    control: int = 40
    """Repeats of the double-sampling control; 0 leaves it out."""
    arithmetic: Precision = "float64"
    """float64, or float32 for GPUs whose float64 is slow: eigenvalues below 1e-6 of the largest are lost."""
    seed: int = 0
    """Of halves, splits and samples."""

    def __post_init__(self) -> None:
        """Refuse what could not be judged."""
        if self.spikes is not None and self.spikes < 0:
            raise ConfigError(f"--spikes: expected at least 0, got {self.spikes}")
        if self.num_images < FEWEST:
            raise ConfigError(f"--num-images: expected at least {FEWEST}, got {self.num_images}")
        if self.splits < LEAST_SPLITS:
            raise ConfigError(
                f"--splits: expected at least {LEAST_SPLITS}, to tell a chance of 5%, got {self.splits}"
            )
        if self.control != 0 and self.control < LEAST_SPLITS:
            raise ConfigError(
                f"--control: expected 0 (none) or at least {LEAST_SPLITS}, got {self.control}"
            )
        if self.draws < 1:
            raise ConfigError(f"--draws: expected at least 1, got {self.draws}")

    @property
    def num_spikes(self) -> int:
        """Spikes that are compared apart."""
        return (
            (0 if self.normalisation == "covariance" else 1) if self.spikes is None else self.spikes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureOf:
    """Which mixture is fitted, and what its samples become."""

    config: FitConfig
    labels: Labels | None = None
    """(N,) classes of the real rows."""
    images: bool = True
    """Whether rows are pixels in [0, 1], so that samples are also measured clipped and rounded as real
    images are."""

    def draw(self, mixture: Mixture, count: int, *key: int | str) -> tuple[Floats, Labels]:
        """Samples (count, D) of a mixture, and their classes."""
        x, chosen = mixture.draw(count, *key)
        return x, chosen if mixture.labels is None else np.asarray(mixture.labels)[chosen]


@dataclass(frozen=True, slots=True, kw_only=True)
class NormTest:
    """Norms of a set beside those of real images."""

    name: str
    mean: float
    spread: float
    """Standard deviation over mean: small where a law is concentrated."""
    p_value: float
    """Of the two-sample Kolmogorov-Smirnov test; nan for the real images themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpectrumStudy:
    """What was found for one group of images: all, or one class."""

    group: str
    num_rows: int
    """n, of every set."""
    width: int
    config: SpectrumConfig
    spectra: Mapping[str, Spectrum]
    """By set: "real" (half B) first, "real, other half", the sets, "mixture"."""
    comparisons: Sequence[SpectralComparison]
    """Of every set with half B."""
    control: SpectralComparison | None
    """The mixture beside data that are such a mixture."""
    norms: Mapping[str, Floats]
    """(n,) by set."""
    norm_tests: Sequence[NormTest]
    population: Floats | None
    """(D,) eigenvalues of the mixture's own covariance."""
    num_fit: int
    """Rows that the mixture's smallest component was fitted to."""
    quantisation: QuantisationError | None
    notes: Sequence[str]

    @property
    def is_underdetermined(self) -> bool:
        """Whether a component has no more rows than dimensions: no control knows what it looks like then."""
        return 0 < self.num_fit <= self.width

    def comparison(self, name: str) -> SpectralComparison:
        """Of one set."""
        return next(c for c in self.comparisons if c.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Halves:
    """The real images of one group, cut once for everything."""

    rows: Rows
    a: npt.NDArray[np.int64]
    b: npt.NDArray[np.int64]

    @classmethod
    def of(cls, rows: Rows, seed: int) -> Halves:
        """Halves A and B as models here are trained on them."""
        return cls.within(rows, np.arange(len(rows)), len(rows), seed)

    @classmethod
    def within(cls, rows: Rows, index: npt.NDArray[np.int64], num_all: int, seed: int) -> Halves:
        """Of some of the images, such as a class: each stays in the half that it has among all.

        Args:
            rows: (M, D) of some images.
            index: (M,) their positions among all.
            num_all: number of all images.
            seed: of the split of all.
        """
        place = np.full(num_all, -1)
        place[index] = np.arange(len(index))
        split = Split(num_images=num_all, seed=seed)
        a, b = place[split.indices("A")], place[split.indices("B")]
        return cls(rows=rows, a=a[a >= 0], b=b[b >= 0])


def num_compared(num_real: int, sets: Sequence[int], config: SpectrumConfig) -> int:
    """Rows that every set is compared at.

    Raises:
        ConfigError: if they are too few.
    """
    count = min(num_real // 2, config.num_images, *sets)
    if count < FEWEST:
        raise ConfigError(
            f"sets: expected at least {FEWEST} images each and {2 * FEWEST} real ones, got {num_real} "
            f"real ones and {', '.join(map(str, sets)) or 'no'} others"
        )
    return count


def num_steps(config: SpectrumConfig, *, mixture: bool) -> int:
    """How often ``advance`` is called."""
    return config.splits + (config.control if mixture else 0)


def study_spectra(
    real: Rows,
    sets: Mapping[str, Rows],
    config: SpectrumConfig,
    mixture: MixtureOf | None,
    *,
    saved: Mapping[str, Spectrum] | None = None,
    halves: Halves | None = None,
    group: str = "all images",
    device: str = "cpu",
    advance: Callable[[], None] = lambda: None,
) -> SpectrumStudy:
    """Compare spectra.

    Args:
        real: (N, D); models should be trained on half A of ``Split(N, seed)`` only.
        sets: by name, (M, D) each.
        config: what is measured.
        mixture: what is fitted to half A; None leaves it out.
        saved: spectra that exist, by name, of n rows each.
        halves: of the real rows, if these are a class whose models saw half A of all classes.
        group: what the images are.
        device: where eigenvalues are computed.
        advance: called ``num_steps`` times.

    Raises:
        ConfigError: if there are too few images, or widths differ.

    Cost: 2 ``splits`` + 2 ``control`` spectra of n rows, and ``control`` fits.
    """
    for name, rows in sets.items():
        if rows.width != real.width:
            raise ConfigError(
                f"{name}: expected {real.width} values per image, as the real ones have, got {rows.width}"
            )
    halves = Halves.of(real, config.seed) if halves is None else halves
    count = 2 * min(len(halves.a), len(halves.b))
    n = num_compared(count, [len(rows) for rows in sets.values()], config)
    with few_threads(min(n, real.width)):
        return _study(_Run(config, halves, n, device), sets, mixture, saved or {}, group, advance)


def _study(
    run: _Run,
    sets: Mapping[str, Rows],
    mixture: MixtureOf | None,
    saved: Mapping[str, Spectrum],
    group: str,
    advance: Callable[[], None],
) -> SpectrumStudy:
    config, halves, n, real = run.config, run.halves, run.n, run.halves.rows
    heldout = real.take(halves.b[:n])
    parts = {name: run.parts(name, rows) for name, rows in sets.items()}
    fitted = run.fit(mixture) if mixture is not None else None
    if mixture is not None and fitted is not None:
        parts |= run.mixture_parts(mixture, fitted)
    spectra = {REAL: run.spectrum(heldout), OTHER_HALF: run.spectrum(real.take(halves.a[:n]))}
    measured = {name: [run.spectrum(part) for part in some] for name, some in parts.items()}
    measured = {name: [one] for name, one in saved.items()} | measured
    floor = split_half_floor(
        real,
        n,
        config.normalisation,
        spikes=config.num_spikes,
        splits=config.splits,
        seed=config.seed,
        precision=config.arithmetic,
        device=run.device,
        advance=advance,
    )
    comparisons = [
        SpectralComparison(
            name=name,
            num_rows=n,
            draws=[run.distance(one, spectra[REAL]) for one in some],
            floor=floor,
        )
        for name, some in measured.items()
    ]
    control = None
    if mixture is not None and config.control:
        null = run.double_sampling(mixture, advance)
        control = replace(next(c for c in comparisons if c.name == MIXTURE), floor=null)
    norms = {REAL: heldout.norms()} | {name: some[0].norms() for name, some in parts.items()}
    return SpectrumStudy(
        group=group,
        num_rows=n,
        width=real.width,
        config=config,
        spectra=spectra | {name: some[0] for name, some in measured.items()},
        comparisons=comparisons,
        control=control,
        norms=norms,
        norm_tests=[_norm_test(name, x, norms[REAL]) for name, x in norms.items()],
        population=None if fitted is None else fitted.population(),
        num_fit=0 if fitted is None else fitted.num_fitted,
        quantisation=_quantisation(mixture, fitted),
        notes=[] if fitted is None else list(fitted.notes),
    )


@dataclass(frozen=True, slots=True)
class _Run:
    config: SpectrumConfig
    halves: Halves
    n: int
    device: str

    def spectrum(self, rows: Rows) -> Spectrum:
        return eigenvalues(
            rows,
            self.config.normalisation,
            precision=self.config.arithmetic,
            device=self.device,
        )

    def distance(self, one: Spectrum, two: Spectrum) -> SpectralDistance:
        return spectral_distance(one, two, spikes=self.config.num_spikes)

    def parts(self, name: str, rows: Rows) -> list[Rows]:
        """Disjoint parts of n rows, drawn at random."""
        count = min(self.config.draws, len(rows) // self.n)
        key = ("spectrum parts", self.config.seed, len(rows))
        order = keyed_generator(*key).permutation(len(rows))
        return [rows.take(np.sort(order[i * self.n : (i + 1) * self.n])) for i in range(count)]

    def mixture_parts(self, mixture: MixtureOf, fitted: Mixture) -> dict[str, list[Rows]]:
        """Samples as they are, and as the images that they become."""
        drawn = [
            mixture.draw(fitted, self.n, "set", self.config.seed, i)[0]
            for i in range(self.config.draws)
        ]
        found = {MIXTURE: [Rows(values=x) for x in drawn]}
        if mixture.images:
            found[AS_IMAGES] = [Rows(values=quantise(2 * x - 1), scale=1 / 255) for x in drawn]
        return found

    def fit(self, mixture: MixtureOf) -> Mixture:
        """The mixture of half A."""
        labels = None if mixture.labels is None else mixture.labels[self.halves.a]
        part = self.halves.rows.take(self.halves.a)
        return fit_mixture(part, mixture.config, labels, device=self.device)

    def truth(self, mixture: MixtureOf) -> Mixture:
        """The mixture of all real images, without what fitting it to that many did to its eigenvalues.

        As it was fitted it is no such law: rows of it are spread twice, those of the data once.
        """
        plain = replace(mixture.config, shrinkage="none", ridge=FitConfig().ridge)
        all_rows = self.halves.rows
        return unsmeared_mixture(fit_mixture(all_rows, plain, mixture.labels, device=self.device))

    def double_sampling(
        self, mixture: MixtureOf, advance: Callable[[], None]
    ) -> list[SpectralDistance]:
        """The same steps on data that are such a mixture as all real images may come from."""
        truth = self.truth(mixture)
        found, num_fit = [], len(self.halves.a)
        for repeat in range(self.config.control):
            key = ("control", self.config.seed, repeat)
            x, labels = mixture.draw(truth, num_fit + self.n, *key)
            again = fit_mixture(
                Rows(values=x[:num_fit]),
                mixture.config,
                None if mixture.labels is None else labels[:num_fit],
                device=self.device,
            )
            drawn, _ = mixture.draw(again, self.n, *key, "again")
            parts = (Rows(values=drawn), Rows(values=x[num_fit:]))
            found.append(self.distance(*(self.spectrum(part) for part in parts)))
            advance()
        return found


def _norm_test(name: str, norms: Floats, real: Floats) -> NormTest:
    p = float("nan") if name == REAL else float(ks_2samp(norms, real, method="asymp").pvalue)
    spread = float(norms.std(ddof=1) / norms.mean()) if norms.mean() > 0 else float("nan")
    return NormTest(name=name, mean=float(norms.mean()), spread=spread, p_value=p)


def _quantisation(mixture: MixtureOf | None, fitted: Mixture | None) -> QuantisationError | None:
    if mixture is None or fitted is None or not mixture.images:
        return None
    return quantisation_error(2 * fitted.draw(_QUANTISED, "quantised")[0] - 1)
