"""What a study of diverse samples says in words, and what to beware of.

A count alone says nothing: some real images are always outside the region of the others. So every
sentence holds the count and what real images in place of the samples give.
"""

from __future__ import annotations

from collections.abc import Sequence

from regimes.studies.audit_words import share
from regimes.studies.diverse import HULLS, DiverseStudy, Finding, Rule
from regimes.words import counted

NOTHING_NEW = "no more than chance: no evidence of anything new"
MORE = "more than chance"

WHAT: dict[Rule, str] = {
    "calibrated": "farther from its nearest real image than {share} of {calibrated_by} are{gates}",
    "knn": "in no ball around a real image that reaches to its neighbour number {neighbours}",
    "pca-hull": "outside the convex hull of the real images on their two principal components",
    "tsne-hull": "not strictly inside the convex hull of the real images on a joint t-SNE map with "
    "seed 0, by {library}{published}",
}
"""When a sample is diverse, by rule."""


def verdict(finding: Finding) -> str:
    """Whether a count says anything."""
    return MORE if finding.exceeds_null else NOTHING_NEW


def what(study: DiverseStudy, rule: Rule) -> str:
    """When a sample is diverse by this rule, with the settings of the study."""
    r = study.rules
    own = "" if study.calibrated_by != "real images" else " from one another"
    return WHAT[rule].format(
        share=f"{100 * r.quantile:.3g}%",
        calibrated_by=f"{study.calibrated_by}{own}",
        gates=_gates(study),
        neighbours=r.neighbours,
        library=r.library,
        published=": the published rule"
        if r.library == "scikit-learn"
        else " (published: scikit-learn)",
    )


def _gates(study: DiverseStudy) -> str:
    """What else ``calibrated`` asks."""
    g = study.rules.gates
    parts = []
    if g.looseness is not None:
        parts.append(
            f"within {g.looseness:g} times the distance of a real image to its neighbour number {g.k}"
        )
    if g.least_realism is not None:
        parts.append(f"of realism {g.least_realism:g} at least")
    if g.copy_ratio is not None:
        parts.append(f"no copy (d1/d2 of {g.copy_ratio:.3g} or more)")
    return f", and {', '.join(parts)}" if parts else ", and nothing else is asked"


def sentence(finding: Finding) -> str:
    """One row of the table in words."""
    s = finding.score
    return (
        f"{finding.set_name}, rule {finding.rule}: {finding.count:,} of {s.num_generated:,} "
        f"({share(s.value)} [{share(s.low)}, {share(s.high)}]) are selected{_repeated(finding)}; "
        f"{finding.expected:,.1f} would be if they were real images themselves (up to "
        f"{finding.critical:,} in 95% of cases): {verdict(finding)}."
    )


def _repeated(finding: Finding) -> str:
    """Samples that are equal are no independent evidence."""
    if finding.independent > 0.9 * finding.score.num_generated:
        return ""
    return f", many of which are equal and count once (as {finding.independent:,.0f} samples)"


def answer(study: DiverseStudy) -> list[str]:
    """The answer: a sentence for a single row, a summary per rule for several sets."""
    if len(study.names) == 1:
        return [sentence(f) for f in study.samples]
    return [_summary(study, rule) for rule in study.rules.names]


def _summary(study: DiverseStudy, rule: Rule) -> str:
    rows = [f for f in study.samples if f.rule == rule]
    found = [f for f in rows if f.exceeds_null]
    if not found:
        return (
            f"Rule {rule}: in none of {counted(len(rows), 'set')} more than chance: no evidence of anything "
            "new."
        )
    counts = ", ".join(
        f"{f.set_name} ({f.count:,} of {f.score.num_generated:,}; {f.expected:,.1f} expected)"
        for f in sorted(found, key=lambda f: -f.score.value)
    )
    if len(found) == len(rows):
        return f"Rule {rule}: more than chance in all of {counted(len(rows), 'set')}: {counts}."
    return (
        f"Rule {rule}: more than chance in {len(found)} of {counted(len(rows), 'set')}: {counts}."
    )


def title(finding: Finding) -> str:
    """Of a figure about one row."""
    return (
        f"{finding.set_name}: {finding.count:,} of {finding.score.num_generated:,} by rule "
        f"{finding.rule}, {finding.expected:,.1f} expected: {verdict(finding)}"
    )


def overlap_words(finding: Finding) -> str:
    """How much the hulls share, and how stable the selection is."""
    plane, stability = finding.plane, finding.stability
    assert plane is not None
    text = (
        f"{finding.set_name}, rule {finding.rule}: the hulls share {plane.overlap_percent:.1f}% of the "
        f"area that either covers; the hull of the real images has {len(plane.real_hull.vertices)} "
        "vertices."
    )
    if stability is None:
        return text
    counts = ", ".join(f"{count:,}" for count in stability.counts)
    return (
        f"{text} Over {counted(len(stability.seeds), 'seed')} of t-SNE the counts are {counts}, and two "
        "selections "
        f"have {share(stability.mean_overlap)} of their union in common (Jaccard overlap, mean)."
    )


_BROKEN = (
    "Far from the real images is also where broken images are. The gates keep out what is farther than "
    "real images ever are; look at the sheet before anything is called new."
)
_UNGATED = "The rules knn, pca-hull and tsne-hull ask for nothing besides being outside: broken images count."
_HULL = (
    "A count outside a hull is compatible with no novelty at all: real images in place of the samples "
    "give M V / N of them, V the number of the hull's vertices. The published counts were not compared "
    "with it. A map to two dimensions also moves points across the hull in both directions."
)
_PCA = (
    "Principal components are fitted to the real images, which therefore spread more on them than unseen "
    "images do: of pca-hull the expected number is an upper bound, and a count below it may hide novelty."
)
_TSNE = (
    "A t-SNE map depends on its seed, on the library's version and on how many images of either set are "
    "in it: which samples are selected is as uncertain as the Jaccard overlap says."
)
_LEAVE_ONE_OUT = (
    "There are no held-out images: real images are calibrated against one another. Equal ones count "
    "once, but near duplicates and series among them make the threshold too small, and the count too large: "
    "100 images in series of four made every set of new images seem more than chance. Pass --heldout."
)
_FITTED = (
    "The descriptor was fitted to the real images themselves, which are therefore farther from one another "
    "in it than unseen images are from them: the rules of distances select too few, the more so the fewer "
    "images there are beside their number of pixels (1.8% in place of 5% for 400 random fields of 100 "
    "pixels, 4.6% for 1,000 digits of 64). Pass --heldout, on which these rules then rest, or another "
    "--descriptor."
)
_TRAINING = (
    "New means new beside the real images that were given: give all that the model was trained on, or "
    "samples that resemble the others count as new."
)
_INTERVALS = (
    "Intervals cover the choice of samples of these sets. The numbers in 95% of cases also cover the "
    "choice of real images, but not sampling from another training."
)


def beware(study: DiverseStudy, *, fitted: bool) -> Sequence[str]:
    """Sentences for the report.

    Args:
        study: what was found.
        fitted: whether the descriptor was fitted to the real images.
    """
    names = study.rules.names
    leave_one_out = study.calibrated_by == "real images"
    distances = "calibrated" in names or "knn" in names
    found = [
        _BROKEN if "calibrated" in names else "",
        _UNGATED if set(names) - {"calibrated"} else "",
        _HULL if set(names) & set(HULLS) else "",
        _PCA if "pca-hull" in names else "",
        _TSNE if "tsne-hull" in names else "",
        _LEAVE_ONE_OUT if leave_one_out and "calibrated" in names else "",
        _FITTED if leave_one_out and fitted and distances else "",
        _many(study),
        _TRAINING,
        _INTERVALS,
    ]
    return [text for text in found if text]


def _many(study: DiverseStudy) -> str:
    """Chance has as many occasions as there are rows."""
    rows = len(study.samples)
    if rows < 2:
        return ""
    return (
        f"Each of {rows} rows is judged for itself, at 5%: of as many rows without anything new, "
        f"{0.05 * rows:.2g} would exceed chance."
    )
