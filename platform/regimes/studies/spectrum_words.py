"""What a study of spectra found, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from regimes.scores.spectrum import SpectralComparison
from regimes.studies.spectrum import AS_IMAGES, ENOUGH_FIT, MIXTURE, SpectrumStudy

_RARE = 0.001
_UNIVERSAL = (
    "Equal spectra are no proof of a Gaussian: where D and N are large the spectrum of every concentrated "
    "law is that of the Gaussian of its covariance (universality). Different spectra beyond floor and "
    "control are evidence."
)
_SIZE = (
    "Spectra depend on the number of images: all are compared at the same one, and numbers of another run "
    "with another number are not comparable."
)
_SPLITS = (
    "Splits share images, so that the floor is the scatter for these images, not for new ones."
)
_NOT_CENTRED = (
    "Eigenvalues are not centred: the first is about N times the squared norm of the mean, and is compared "
    "apart."
)


def answer(study: SpectrumStudy, mixture_words: str = "") -> list[str]:
    """One sentence per set, and what they mean together."""
    lines = [_sentence(study, c) for c in study.comparisons if c.name != AS_IMAGES]
    return [*lines, *_more_than_covariance(study, mixture_words)]


def _sentence(study: SpectrumStudy, c: SpectralComparison) -> str:
    null, most = c.null("ks")
    beside = f"KS {c.value('ks'):.3f}; two halves of the real images {null:.3f}, at most {most:.3f} in 95%"
    if not c.differs:
        return (
            f"{_name(c.name)}: its eigenvalues are those of real images as far as {c.num_rows:,} of each "
            f"can tell ({beside})."
        )
    return (
        f"{_name(c.name)}: its eigenvalues differ from those of real images ({beside}; W1 "
        f"{c.value('w1'):.3f} decades, halves {c.null('w1')[0]:.3f}), {_direction(study, c)}."
    )


def _name(name: str) -> str:
    return "The Gaussian mixture" if name == MIXTURE else name


def _direction(study: SpectrumStudy, c: SpectralComparison) -> str:
    """Which way, at the median of the bulk and in total."""
    ours, real = study.spectra[c.name].trace, study.spectra["real"].trace
    factor = 10 ** c.value("shift")
    return f"{factor:.2f} times as large at the median, {ours / real:.2f} times in total variance"


def _more_than_covariance(study: SpectrumStudy, mixture_words: str) -> list[str]:
    """The question of the study, if it can be answered."""
    found = {c.name: c for c in study.comparisons}
    if MIXTURE not in found:
        return []
    what = f" ({mixture_words})" if mixture_words else ""
    lines = [_verdict(study, found[MIXTURE], what)]
    if AS_IMAGES in found and study.quantisation is not None:
        lines.append(_clipping(study, found[AS_IMAGES]))
    return lines + _norms(study)


def _verdict(study: SpectrumStudy, c: SpectralComparison, what: str) -> str:
    if not c.differs:
        return (
            f"So the spectrum gives no evidence that the data are more than the moments of the mixture"
            f"{what}."
        )
    if study.is_underdetermined:
        return (
            f"Nothing can be concluded: the mixture{what} (or its smallest component) was fitted to "
            f"{study.num_fit:,} images of {study.width:,} values, and not even a control can tell what a "
            "Gaussian fitted to no more rows than dimensions looks like. More images, or smaller ones, can."
        )
    if study.control is None:
        return (
            "Whether that is the data or the fit is open: the double-sampling control was left out "
            "(--control)."
        )
    told = min(("ks", "w1"), key=study.control.p_value)
    _, most = study.control.null(told)
    beside = (
        f"of data that are such a mixture{what}, put through the same steps, {told.upper()} is at most "
        f"{most:.3f} in 95% of repeats, here {c.value(told):.3f}"
    )
    if study.control.differs:
        return (
            f"That is more than fitting explains: {beside}. The data are more than these moments."
        )
    return f"But fitting explains it: {beside}. Nothing can be concluded."


def _clipping(study: SpectrumStudy, c: SpectralComparison) -> str:
    q = study.quantisation
    assert q is not None
    verdict = "differ from" if c.differs else "are still those of"
    return (
        f"Stored as images, the mixture's samples lose {100 * q.clipped:.2g}% of their values to clipping "
        f"and keep {100 * q.trace_ratio:.3g}% of their variance; their eigenvalues {verdict} real images' "
        f"(KS {c.value('ks'):.3f}). That is the range of images, not the law of the data."
    )


def _norms(study: SpectrumStudy) -> list[str]:
    """Spectra see two moments; norms see a little more."""
    test = next(t for t in study.norm_tests if t.name == MIXTURE)
    real = next(t for t in study.norm_tests if t.name == "real")
    if math.isnan(test.p_value) or test.p_value > _RARE or study.is_underdetermined:
        return []
    said = (
        f"Norms tell them apart: their spread is {100 * real.spread:.1f}% of the mean for real images and "
        f"{100 * test.spread:.1f}% for the mixture (p {max(test.p_value, 1e-99):.1g}), so in that respect "
        "the data are not such a mixture."
    )
    return [said]


def cautions(study: SpectrumStudy) -> Sequence[str]:
    """What to beware of."""
    found = []
    if 0 < study.num_fit < ENOUGH_FIT * study.width:
        found.append(_few(study))
    found += study.notes
    found += [_UNIVERSAL, _SIZE, _SPLITS]
    if study.config.normalisation != "covariance":
        found.append(_NOT_CENTRED)
    return found


def _few(study: SpectrumStudy) -> str:
    return (
        f"The mixture (or its smallest component) was fitted to {study.num_fit:,} images of "
        f"{study.width:,} values: N is not much larger than D, and its spectrum is smeared by the fit. Read "
        "the mixture's distance beside the control's, not beside the floor."
    )
