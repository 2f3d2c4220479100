"""All figures of a memorization study, drawn once per grid."""

from __future__ import annotations

from functools import cache

import numpy as np
from matplotlib.text import Text
from memorization_tables import SIZES, TAU, WIDTHS, table

from regimes.figures import curves, histograms, sheets


def pairs(n, similarity, seed=0, channels=1, side=8):
    images = np.random.default_rng(seed).integers(
        0, 256, (2, len(similarity), side, side, channels), np.uint8
    )
    return sheets.PairedImages(
        n=n,
        seeds=np.arange(len(similarity)),
        upper=images[0],
        lower=images[1],
        similarity=np.array(similarity),
    )


@cache
def all_figures(sizes=SIZES, widths=WIDTHS, channels=1):
    rows = table(sizes, widths)
    blocks = [pairs(n, [0.95, 0.2, 0.9, -0.1], channels=channels) for n in sizes]
    w = widths[0]
    return {
        "copies": curves.copies(rows, sizes, widths),
        "reproducibility": curves.reproducibility(rows, sizes, widths),
        "fidelity": curves.fidelity(rows, sizes, widths),
        "similarity": histograms.similarity_histogram(rows, sizes, w, TAU),
        "nearest": sheets.nearest_sheet(blocks, width=w, threshold=TAU.value),
        "noise": sheets.same_noise_sheet(blocks, blocks, width=w, threshold=TAU.value),
    }


def texts(figure):
    return [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
