"""The copy audit: which generated images are training images, and how sure is that?

Every generated image is compared with its nearest training image in the space of one descriptor. What
"near" means is set by real images that are known not to be copies, which are compared in the same way:
the **reference** images. They are held-out images where there are any. Without, each training image is
compared with the *other* training images (leave-one-out), which is weaker: real data hold series of
similar images, so the threshold is higher and copies may be missed. A descriptor must then not be fitted
to the training images alone, but to the generated ones with them (then, as long as there is no copy, all
are exchangeable), or to neither.

Training images that are duplicates of each other count as one, an image and its flip (where flips
count) too: otherwise d1 = d2 for a copy of a duplicated image, and the ratio test would miss the copies
that matter most. An image without contrast is a row of zeros: it is similar to nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regimes.errors import ConfigError
from regimes.scores.calibration import Threshold, quantile_threshold
from regimes.scores.features import Features, Index, check_comparable, check_mirrored
from regimes.scores.neighbours import Search, nearest, similarities
from regimes.scores.resampling import effective_number
from regimes.scores.result import wilson_interval
from regimes.studies.audit_matches import Flags, Floats, Look, Matches, Repeats, SamePixels

FEWEST = 8
"""Images of a set, at least."""
CROWDED = 10
"""Images per number of a descriptor that is fitted to them, below which it knows them too well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts as a copy."""

    quantile: float
    """Share of reference images that the calibrated threshold lets pass."""
    published: tuple[float, ...]
    """Similarities that are used as thresholds elsewhere."""
    ratio: float
    """d1/d2 below which an image is far nearer to one training image than to all others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSets:
    """The images, as unit rows of one descriptor.

    Raises:
        DescriptorMismatch: if descriptors differ.
        ConfigError: if there are too few images to say anything.
    """

    train: Features
    generated: Features
    heldout: Features | None = None
    mirrored: Features | None = None
    """Flips of ``train``, in its order, where copies of flips count."""
    is_fitted: bool = False
    """Whether the descriptor was fitted to ``train``, and not to ``generated`` as well."""

    def __post_init__(self) -> None:
        """Check once what every score needs."""
        others = {"generated": self.generated, "heldout": self.heldout}
        for name, features in {"train": self.train, **others}.items():
            if features is None:
                continue
            check_comparable(features, self.train)
            if len(features) < FEWEST:
                raise ConfigError(
                    f"--{name}: expected at least {FEWEST} images, got {len(features)}"
                )
        if self.mirrored is not None:
            check_mirrored(self.train, self.mirrored)

    @property
    def is_biased(self) -> bool:
        """Whether the null says nothing, because the descriptor knows the training images it rests on.

        A whitening of N images of D numbers makes these N unlike one another, and so all others seem
        near to them. 49 of 50 new images passed as copies at N = 60, D = 1728; at N = 600, D = 768 6.5%
        did instead of 5%.
        """
        few = len(self.train) < CROWDED * self.train.values.shape[1]
        return self.is_fitted and self.heldout is None and few

    @property
    def reference(self) -> str:
        """What stands for images that are no copies: "heldout", or "train" (leave-one-out)."""
        return "train" if self.heldout is None else "heldout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What the audit says of every generated image."""

    rules: Rules
    reference: str
    """See ``AuditSets.reference``."""
    threshold: Threshold
    generated: Matches
    real: Matches
    """Of the reference images."""
    identical: Flags
    """Generated images whose pixels equal those of their nearest training image (or its flip)."""
    identical_real: Flags
    """The same of the reference images; none where they are training images."""
    repeats: Repeats
    is_biased: bool = False
    """See ``AuditSets.is_biased``."""

    @property
    def independent(self) -> float:
        """How many different images the generated ones count for."""
        return effective_number(self.repeats.generated)

    @property
    def distinct_beyond(self) -> tuple[int, int]:
        """How many of how many different generated images are beyond all reference images."""
        first = self.repeats.generated
        return len(np.unique(first[self.is_beyond])), len(np.unique(first))

    @property
    def real_similarity(self) -> Floats:
        """Of the reference images that are not training images themselves."""
        return self.real.similarity[~self.identical_real]

    def chance(self, hits: int) -> tuple[float, float]:
        """How many of how many independent images the reference images count for, of which ``hits`` are hit.

        Held-out images that are the same count once. Without held-out images each counts for half of one,
        and one of them for nothing. Two training images that are nearest to one another have *one*
        similarity between them, so it is there twice; and an image like the training images is one of their
        closest pair with chance 2 / (N + 1), not 1 / (N + 1).
        """
        count = len(self.real_similarity)
        if self.reference == "train":
            return hits / 2, (count - 1) / 2
        independent = effective_number(self.repeats.heldout[~self.identical_real])
        return hits * independent / count, independent

    @property
    def is_copy(self) -> Flags:
        """Above the calibrated threshold, or equal in every pixel."""
        return (self.generated.similarity > self.threshold.value) | self.identical

    @property
    def is_flip(self) -> Flags:
        """Copies that are nearer to the flip of their training image than to any image itself."""
        return self.is_copy & self.generated.flipped

    @property
    def is_beyond(self) -> Flags:
        """More similar to a training image than any reference image is."""
        return self.generated.similarity > self.real_similarity.max()

    @property
    def is_ratio(self) -> Flags:
        """The ratio test's copies."""
        return self.generated.d1 < self.rules.ratio * self.generated.d2

    def is_published(self, threshold: float) -> Flags:
        """Above a published threshold; flips never counted there."""
        return self.generated.unflipped > threshold

    @property
    def p_value(self) -> Floats:
        """Chance that an image like the reference images is at least as similar, (M,).

        (1 + #{reference >= similarity}) / (1 + #reference), of training images (2 + #) / (1 + #), see
        ``chance``, where held-out images that are the same are one: valid for each image alone, if it is
        exchangeable with the reference images.
        """
        ordered = np.sort(self.real_similarity)
        at_least = len(ordered) - np.searchsorted(ordered, self.generated.similarity, "left")
        if self.reference == "train":
            return np.minimum(1.0, (2 + at_least) / (1 + len(ordered)))
        _, independent = self.chance(0)
        return (1 + at_least * independent / len(ordered)) / (1 + independent)

    @property
    def intervals(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """95% intervals (Wilson) of the shares of copies among generated and among reference images."""
        passed, independent = self.chance(int((self.real_similarity > self.threshold.value).sum()))
        return self.interval(self.is_copy), wilson_interval(min(passed, independent), independent)

    def interval(self, hits: Flags) -> tuple[float, float]:
        """95% interval (Wilson) of a share of generated images, of which those that are the same are one."""
        n = self.independent
        return wilson_interval(min(n * float(hits.mean()), n), n)

    def rules_met(self) -> dict[str, Flags]:
        """Every rule that marks a generated image as a copy, strongest first."""
        published = {
            f"above {t:g}": self.is_published(t) for t in sorted(self.rules.published)[::-1]
        }
        return {
            "identical": self.identical,
            "flip": self.is_flip,
            "beyond all real": self.is_beyond,
            "ratio": self.is_ratio,
            "calibrated": self.is_copy,
            **published,
        }


def find_copies(
    sets: AuditSets,
    rules: Rules,
    groups: Index,
    same_pixels: SamePixels,
    on_step: Callable[[], None] = lambda: None,
    *,
    search: Search = nearest,
    repeats: Repeats | None = None,
) -> Copies:
    """Compare every generated image, and every reference image, with the training images.

    Args:
        sets: the images.
        rules: what counts as a copy.
        groups: (N,) for every training image the position of the first that counts as the same.
        same_pixels: compares images pixel by pixel; asked about look-alikes only.
        on_step: called twice.
        search: finds nearest references, as ``nearest`` does.
        repeats: which images of the other sets are the same; None compares rows.

    Raises:
        ConfigError: if the training images are too few or too alike to be told apart.

    Cost: two searches, O((M + H) N D) time; memory O(N D).
    """
    index = _References.of(sets, groups, search)
    generated = index.match(sets.generated)
    on_step()
    if sets.heldout is None:
        kept = np.unique(groups)
        real = index.match(sets.train.take(kept), own=kept)
    else:
        real = index.match(sets.heldout)
    on_step()
    look = Look(groups=groups, same_pixels=same_pixels, flips=sets.mirrored is not None)
    generated, known = look.identical("generated", generated)
    leaked = np.zeros(len(real.similarity), np.bool_)
    if sets.heldout is not None:
        real, leaked = look.identical("heldout", real)
    if (~leaked).sum() < FEWEST:
        raise ConfigError(
            f"--heldout: {leaked.sum()} of {len(leaked)} images are training images; expected "
            f"{FEWEST} or more that the model did not see"
        )
    return Copies(
        rules=rules,
        reference=sets.reference,
        threshold=quantile_threshold(
            real.similarity[~leaked], quantile=rules.quantile, num_train=len(sets.train)
        ),
        generated=generated,
        real=real,
        identical=known,
        identical_real=leaked,
        repeats=Repeats.of(sets.generated, sets.heldout) if repeats is None else repeats,
        is_biased=sets.is_biased,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _References:
    """One row per distinct training image, and one for its flip."""

    rows: npt.NDArray[np.float32]
    positions: Index
    """(R,) of the training image of every row."""
    flipped: Flags
    search: Search

    @classmethod
    def of(cls, sets: AuditSets, groups: Index, search: Search) -> _References:
        kept = np.unique(groups)
        kept = kept[sets.train.values[kept].any(1)]
        if len(kept) < 3:
            raise ConfigError(
                f"--train: expected 3 images or more that differ and have contrast, got {len(kept)}"
            )
        rows, copies = sets.train.values[kept], 1
        if sets.mirrored is not None:
            rows, copies = np.concatenate([rows, sets.mirrored.values[kept]]), 2
        flipped = np.arange(len(rows)) >= len(kept)
        return cls(rows=rows, positions=np.tile(kept, copies), flipped=flipped, search=search)

    def match(self, items: Features, own: Index | None = None) -> Matches:
        """Match images; ``own`` are the (M,) training images that they must not be matched with."""
        rows, squared = self._two_nearest(items, own)
        best = similarities(items.values, self.rows[rows[:, 0]])
        flipped = self.flipped[rows[:, 0]]
        return Matches(
            nearest=self.positions[rows[:, 0]],
            flipped=flipped,
            similarity=best,
            unflipped=np.where(flipped, self._unflipped(items, own, flipped), best),
            d1=np.sqrt(squared[:, 0]),
            d2=np.sqrt(squared[:, 1]),
        )

    def _two_nearest(self, items: Features, own: Index | None) -> tuple[Index, Floats]:
        """The nearest row of each of the two nearest images: rows (M, 2), squared distances (M, 2)."""
        # An image has at most two rows, so two others are among the nearest 3, or 5 besides its own.
        wanted = min(3 if own is None else 5, len(self.rows))
        rows, squared = self.search(items.values, self.rows, wanted)
        of = self.positions[rows]
        allowed = np.ones_like(of, np.bool_) if own is None else of != own[:, None]
        first = allowed.argmax(1)[:, None]
        other = allowed & (of != np.take_along_axis(of, first, 1))
        columns = np.concatenate([first, other.argmax(1)[:, None]], axis=1)
        return np.take_along_axis(rows, columns, 1), np.take_along_axis(squared, columns, 1)

    def _unflipped(self, items: Features, own: Index | None, flipped: Flags) -> Floats:
        """Similarity to the nearest row that is no flip, (M,); computed where ``flipped``."""
        plain = ~self.flipped
        if not flipped.any():
            return np.zeros(len(items))
        alone = _References(
            rows=self.rows[plain],
            positions=self.positions[plain],
            flipped=self.flipped[plain],
            search=self.search,
        )
        asked = np.flatnonzero(flipped)
        mine = None if own is None else own[asked]
        rows, _ = alone._two_nearest(items.take(asked), mine)
        found = np.zeros(len(items))
        found[asked] = similarities(items.values[asked], alone.rows[rows[:, 0]])
        return found


def counts(copies: Copies) -> Mapping[str, int]:
    """How many generated images every rule marks."""
    return {name: int(flags.sum()) for name, flags in copies.rules_met().items()}
