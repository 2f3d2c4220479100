"""What classifier curves found, in sentences."""

from __future__ import annotations

import math

from regimes.studies.classifier_curves import ClassifierCurves, Gap


def answer(found: ClassifierCurves) -> list[str]:
    """A sentence for every gap."""
    return [_sentence(found, gap) for gap in found.gaps]


def _sentence(found: ClassifierCurves, gap: Gap) -> str:
    kind, first, second = gap.classifier, gap.first, gap.second
    if not found.learned(kind):
        return (
            f"{kind.capitalize()} classifiers of {found.sources[0]} images are not above chance and shuffled "
            "labels: nothing follows about the others."
        )
    ends = [found.of(kind, source)[-1].accuracy.value for source in (first, second)]
    e = gap.by_size[-1]
    interval = "" if math.isnan(e.low) else f" [{e.low:+.3f}, {e.high:+.3f}]"
    text = f"{_verdict_words(found, gap)}: at {found.sizes[-1]} images per class a balanced accuracy of "
    text += f"{ends[0]:.3f} against {ends[1]:.3f} (chance: {1 / found.num_classes:.3f}), a gap of "
    return f"{text[0].upper()}{text[1:]}{e.value:+.3f}{interval}."


def _verdict_words(found: ClassifierCurves, gap: Gap) -> str:
    kind, first, second = gap.classifier, gap.first, gap.second
    if gap.verdict == "no measurable difference":
        return f"{first} and {second} images train {kind} classifiers equally well, as far as this measures"
    if gap.verdict == "one seed, no verdict":
        return f"one seed of {kind} classifiers tells nothing about {first} against {second} images"
    if gap.verdict == "the same images in every seed, no verdict":
        return (
            f"all seeds of {kind} classifiers are trained on the same {first} or {second} images, which "
            "tells nothing about others"
        )
    parts = [
        f"{word} {kind} classifiers than {second} ones at n = "
        + ", ".join(str(n) for n, s in zip(found.sizes, gap.signs, strict=True) if s == sign)
        for word, sign in (("better", 1), ("worse", -1))
        if sign in gap.signs
    ]
    return f"{first} images train {' and '.join(parts)}"
