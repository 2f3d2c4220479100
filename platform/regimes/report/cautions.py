"""What to beware of when reading a memorization study, with its own numbers where it has them."""

from __future__ import annotations

from collections.abc import Sequence

from regimes.scores.result import Score
from regimes.studies.memorization import Row, pooled

_HALVES = (
    "Held-out images are the other half of the data: unseen by the model that they judge, but the "
    "training images of its counterpart. Precision, the threshold and the model of the other half "
    "therefore rest on the same images."
)
_ONE_PART = (
    "Models were trained on one part of the data only. Held-out images are those that the largest "
    "training set leaves; whether models of disjoint data would agree was not tested (--parts 2 does)."
)
_INTERVALS = (
    "Intervals cover the choice of seeds for these models, this split and this threshold. They do "
    "not cover training again: change the seed of the study to see that spread."
)
_THRESHOLD = (
    "A copy is what the threshold says is one. It was set on real images so that few of them count "
    "by chance; the picture sheets show what lies on either side of it."
)


def cautions(rows: Sequence[Row]) -> list[str]:
    """Sentences for the report, about the largest size."""
    n = max((row.n for row in rows), default=0)

    def at(name: str) -> Score | None:
        return pooled(rows, name, n)

    return [
        _novel_is_not_good(n, at("gl"), at("gl_heldout"), at("precision"), at("precision_heldout")),
        _linear_scores_too(n, at("gl_wiener"), at("rp_disjoint_wiener"), at("precision_null")),
        _HALVES if any(row.half == "B" for row in rows) else _ONE_PART,
        _INTERVALS,
        _THRESHOLD,
    ]


def _novel_is_not_good(
    n: int, gl: Score | None, heldout: Score | None, fidelity: Score | None, real: Score | None
) -> str:
    text = (
        "GL = 1 is not success: noise copies nothing either. Read GL beside precision, and beside "
        "the GL of real held-out images, which is what good samples would score."
    )
    if gl is None or heldout is None or fidelity is None or real is None:
        return text
    return (
        f"{text} At n = {n}, GL is {gl.value:.3f} (real images: {heldout.value:.3f}) and precision "
        f"{fidelity.value:.3f} (real images: {real.value:.3f})."
    )


def _linear_scores_too(n: int, gl: Score | None, rp: Score | None, fidelity: Score | None) -> str:
    text = (
        "The linear (Wiener) denoiser, which knows only the mean and the covariance of the images, "
        "can pass both tests: it copies nothing, and with enough data it is reproducible."
    )
    if gl is None or rp is None or fidelity is None:
        return text
    return (
        f"{text} At n = {n} it scores GL = {gl.value:.3f} and RP = {rp.value:.3f} on disjoint data, "
        f"with a precision of {fidelity.value:.3f}. So copies and agreement alone do not show that "
        "a model has learned more than that."
    )
