"""The figures of a memorization study, from its artifacts and findings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from regimes.figures import curves, histograms, sheets
from regimes.images.pixels import Images
from regimes.jobs.support.memorization.findings import Findings
from regimes.jobs.support.memorization.grid import MemorizationGrid
from regimes.scores.neighbours import similarities
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import DenoiserRecipe
from regimes.storage.features import read_features
from regimes.storage.images import read_images
from regimes.storage.tables import Ids

COLUMNS = 10


def figures(
    store: Store, grid: MemorizationGrid, findings: Findings
) -> Iterator[tuple[str, str, Figure]]:
    """(file name, one-line caption, figure), the curve first."""
    rows, sizes, widths = findings.rows, grid.sizes, grid.experiment.widths
    yield (
        "copies",
        "Fraction of samples that are not copies, against training-set size; bands are 95% intervals.",
        curves.copies(rows, sizes, widths),
    )
    yield (
        "reproducibility",
        "How often two models make the same image from the same noise.",
        curves.reproducibility(rows, sizes, widths),
    )
    yield (
        "fidelity",
        "Are samples like real images that the model has not seen, and more than linear?",
        curves.fidelity(rows, sizes, widths),
    )
    for width in widths:
        yield (
            f"similarity-w{width}",
            f"Similarity to the nearest training image, width {width}, beside held-out images.",
            histograms.similarity_histogram(rows, sizes, width, findings.threshold),
        )
    for width in widths:
        yield (
            f"nearest-w{width}",
            f"Samples of width {width} (half A) above their nearest training images.",
            _nearest(store, grid, findings, width),
        )
        if len(grid.halves) == 2:
            yield (
                f"same-noise-w{width}",
                f"What models of width {width} trained on disjoint halves make of the same noise.",
                _same_noise(store, grid, findings, width),
            )
        else:
            yield (
                f"memorizer-w{width}",
                f"What models of width {width} and the perfect memorizer make of the same noise.",
                _memorizer(store, grid, findings, width),
            )


def _nearest(store: Store, grid: MemorizationGrid, findings: Findings, width: int) -> Figure:
    real_ids, real = read_images(store, grid.images)
    position = {str(name): i for i, name in enumerate(real_ids)}
    blocks = []
    for n in grid.sizes:
        items = next(
            r.score.per_item
            for r in findings.rows
            if (r.score.name, r.n, r.width, r.half) == ("gl", n, width, "A")
        )
        ids, images = read_images(store, grid.samples(grid.models[width, n, "A"]))
        first = slice(min(COLUMNS, len(ids)))
        nearest = [position[str(name)] for name in items["nearest_id"][first]]
        blocks.append(
            sheets.PairedImages(
                n=n,
                seeds=np.asarray(ids[first], np.int64),
                upper=images[first],
                lower=real[nearest],
                similarity=items["similarity"][first],
            )
        )
    return sheets.nearest_sheet(
        blocks,
        width=width,
        threshold=findings.threshold.value,
        counted=findings.can_judge(width),
    )


def _same_noise(store: Store, grid: MemorizationGrid, findings: Findings, width: int) -> Figure:
    empirical = grid.closed_form("empirical")
    models = {(n, half): grid.models[width, n, half] for n, half in empirical}
    return sheets.same_noise_sheet(
        [_pair(store, grid, n, (models[n, "A"], models[n, "B"])) for n in grid.sizes],
        [_pair(store, grid, n, (empirical[n, "A"], empirical[n, "B"])) for n in grid.sizes],
        width=width,
        threshold=findings.threshold.value,
        counted=findings.can_judge(width),
    )


def _memorizer(store: Store, grid: MemorizationGrid, findings: Findings, width: int) -> Figure:
    empirical = grid.closed_form("empirical")
    blocks = [
        _pair(store, grid, n, (grid.models[width, n, "A"], empirical[n, "A"])) for n in grid.sizes
    ]
    return sheets.memorizer_sheet(
        blocks,
        width=width,
        threshold=findings.threshold.value,
        counted=findings.can_judge(width),
    )


def _pair(
    store: Store, grid: MemorizationGrid, n: int, denoisers: tuple[DenoiserRecipe, DenoiserRecipe]
) -> sheets.PairedImages:
    """The first samples of two denoisers for the same seeds, and how similar they are."""
    a, b = (_first(store, grid, denoiser) for denoiser in denoisers)
    return sheets.PairedImages(
        n=n,
        seeds=np.asarray(a[0], np.int64),
        upper=a[1],
        lower=b[1],
        similarity=similarities(a[2], b[2]),
    )


def _first(
    store: Store, grid: MemorizationGrid, denoiser: DenoiserRecipe
) -> tuple[Ids, Images, np.ndarray]:
    samples = grid.samples(denoiser)
    ids, images = read_images(store, samples)
    features = read_features(store, grid.features(samples))
    return ids[:COLUMNS], images[:COLUMNS], features.values[:COLUMNS]
