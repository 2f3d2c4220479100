"""Images with planted copies, and what an audit finds in them."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from regimes.descriptors.pixels import Pixels
from regimes.scores.features import Features
from regimes.studies.audit import AuditSets, Rules, find_copies

RULES = Rules(quantile=0.95, published=(0.5, 0.6, 0.75), ratio=1 / 3)
PLANTED = {
    "exact": slice(0, 50),
    "noisy": slice(50, 100),
    "flipped": slice(100, 150),
    "novel": slice(150, 200),
    "ordinary": slice(200, None),
}


def smooth_images(count, seed, side=10, sigma=1.0):
    """Random fields, (N, side, side, 1) uint8: any two differ, as natural images do."""
    noise = np.random.default_rng(seed).standard_normal((count, side, side))
    fields = gaussian_filter(noise, (0, sigma, sigma))
    return np.clip(128 + 120 * fields / fields.std() / 2, 0, 255).astype(np.uint8)[..., None]


def planted(train, count, seed=7):
    """50 copies, 50 noisy copies, 50 flipped copies of training images, 50 images of a kind that is not
    among these, and for the rest new images of their kind: ``count`` in all."""
    rng = np.random.default_rng(seed)
    images = smooth_images(count, seed)
    images[PLANTED["exact"]] = train[:50]
    noisy = train[50:100] + rng.normal(0, 8, train[50:100].shape)
    images[PLANTED["noisy"]] = np.clip(noisy, 0, 255)
    images[PLANTED["flipped"]] = train[100:150, :, ::-1]
    images[PLANTED["novel"]] = smooth_images(50, seed + 1, sigma=0.4)
    return images


def described(images, name):
    ids = np.array([f"{name}-{i:04d}.png" for i in range(len(images))])
    return Features(ids, Pixels()(images), "pixels")


def audit_sets(train, generated, heldout=None, *, flips=False):
    found = described(train, "train")
    return AuditSets(
        train=found,
        generated=described(generated, "generated"),
        heldout=None if heldout is None else described(heldout, "heldout"),
        mirrored=described(train[:, :, ::-1], "train") if flips else None,
    )


def same_pixels_in(**images):
    """Compares images that are in memory, as ``find_copies`` asks for it."""

    def same(name, items, references, flipped):
        pairs = zip(images[name][items], images["train"][references], flipped)
        return np.array([np.array_equal(a, b[:, ::-1] if f else b) for a, b, f in pairs])

    return same


def audited(train, generated, heldout=None, *, flips=False, groups=None, rules=RULES):
    """What ``find_copies`` says."""
    sets = audit_sets(train, generated, heldout, flips=flips)
    groups = np.arange(len(train)) if groups is None else groups
    same = same_pixels_in(train=train, generated=generated, heldout=heldout)
    return find_copies(sets, rules, groups, same)
