"""Cells of a guidance sweep: what they hold, that they are kept, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from regimes.errors import BrokenArtifact, NotFiniteSamples
from regimes.guidance.config import GuidanceConfig
from regimes.guidance.sampler import guided_sample_seeds
from regimes.images.pixels import to_float
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.samplers.edm import SamplerConfig
from regimes.scores.modes import REJECTED
from regimes.storage.artifacts import Store
from regimes.storage.denoisers import ClosedFormRecipe, load_denoiser
from regimes.storage.guidance import (
    GuidedRecipe,
    make_cell,
    make_units,
    read_cell,
    sample_cell,
)
from regimes.storage.guided_targets import ImageTarget, KnownTarget
from regimes.storage.images import ImagesRecipe, Subset, decode_source, ingest
from regimes.storage.judges import JudgeRecipe, load_judge, make_judge

STEPS = SamplerConfig(num_steps=8, sigma_min=0.03, sigma_max=20.0, solver="euler")


def ring_cell(factor=0.0, **options):
    fields = {
        "target": KnownTarget(name="ring", weights=(0.1,) * 10),
        "sampler": STEPS,
        "guidance": GuidanceConfig(factor=factor, group_size=4, space="x", bandwidth="sigma"),
        "groups": 3,
        "first_seed": 5,
    }
    return GuidedRecipe(**fields | options)


@pytest.fixture
def digits(tmp_path):
    """A store with the digits, and the closed form and the judge of most of them."""
    store = Store(str(tmp_path))
    source = open_source("digits")
    recipe = ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )
    decoded = decode_source(source, recipe)
    ingest(store, recipe, decoded)
    split = Split(num_images=len(decoded.ids), seed=0, parts=1)
    train = Subset(images=recipe, split=split, half="A", size=1400)
    target = ImageTarget(
        denoiser=ClosedFormRecipe(form="empirical", train=train),
        judge=JudgeRecipe(train=train, seed=0),
    )
    return store, target, to_float(decoded.images)


def test_a_cell_holds_samples_modes_and_distances_of_all_groups(store):
    recipe = ring_cell(3.0)
    make_cell(store, recipe)
    cell = read_cell(store, recipe)
    assert cell.samples.shape == (12, 1, 1, 2)
    assert cell.modes.shape == cell.quality.shape == (3, 4)
    assert cell.seconds > 0
    torch.testing.assert_close(torch.from_numpy(cell.samples), sample_cell(store, recipe))
    angles = 2 * np.pi * np.arange(10) / 10
    centres = np.stack([np.cos(angles), np.sin(angles)], 1)
    distances = np.linalg.norm(cell.samples.reshape(12, 1, 2) - centres, axis=2)
    np.testing.assert_allclose(cell.quality.ravel(), distances.min(1))
    near = distances.min(1) <= 4 * 0.005**0.5
    expected = np.where(near, distances.argmin(1), REJECTED)
    assert cell.modes.ravel().tolist() == expected.tolist()


def test_a_complete_cell_is_kept_and_an_altered_one_is_refused(tmp_path):
    store, recipe, reports = Store(str(tmp_path)), ring_cell(), []
    make_units(store, [(recipe, 0)], "cpu", lambda *r: reports.append(r))
    files = sorted((tmp_path / "artifacts").rglob("*"))
    before = {f: f.stat().st_mtime_ns for f in files if f.is_file()}
    make_units(store, [(recipe, 0)], "cpu", lambda *r: reports.append(r))
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert [r[0] for r in reports] == [1, 1]
    shard = next(f for f in before if f.name.startswith("shard"))
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(BrokenArtifact, match="bytes expected"):
        read_cell(store, recipe)


def test_a_seed_starts_the_same_whatever_the_group_and_the_number_of_groups(store):
    one = sample_cell(store, ring_cell(), groups=range(1))
    more = sample_cell(store, ring_cell(groups=5))
    torch.testing.assert_close(more[:4], one, rtol=1e-9, atol=1e-9)


def test_a_large_cell_is_made_by_units_in_any_order_as_by_one_worker(store, monkeypatch):
    recipe, monkey = ring_cell(2.0, groups=7), "regimes.storage.guidance."
    whole = sample_cell(store, recipe)
    monkeypatch.setattr(monkey + "_ROWS", 8)  # two groups at a time
    monkeypatch.setattr(monkey + "_UNIT", 8)
    assert recipe.units == [range(2), range(2, 4), range(4, 6), range(6, 7)]
    for unit in (2, 0, 3):
        make_units(store, [(recipe, unit)], "cpu", lambda *_: None)
    assert store.missing([recipe])
    before = store.artifact(recipe).location.sizes()
    make_cell(store, recipe)  # what another run left is kept, the rest is made
    assert not store.missing([recipe])
    assert store.artifact(recipe).location.sizes().items() >= before.items()
    cell = read_cell(store, recipe)
    torch.testing.assert_close(torch.from_numpy(cell.samples), whole)
    assert cell.modes.shape == (7, 4)


def test_samples_of_a_model_are_those_of_its_seeds_and_are_judged(digits):
    store, target, _images = digits
    guidance = GuidanceConfig(factor=0.1, group_size=5)
    recipe = ring_cell(target=target, guidance=guidance)
    make_judge(store, target.judge)
    make_cell(store, recipe)
    cell = read_cell(store, recipe)
    loaded = load_denoiser(store, target.denoiser)
    expected = guided_sample_seeds(
        loaded.denoiser, range(5, 20), (1, 8, 8), config=STEPS, guidance=guidance
    )
    np.testing.assert_allclose(cell.samples, expected.numpy())
    modes, distances = load_judge(store, target.judge)(expected)
    assert cell.modes.ravel().tolist() == modes.tolist()
    np.testing.assert_allclose(cell.quality.ravel(), distances, rtol=1e-5)


def test_a_judge_sets_its_limits_by_images_that_it_did_not_learn(digits):
    store, target, images = digits
    make_judge(store, target.judge)
    judge = load_judge(store, target.judge)
    held = images[target.judge.train.split.heldout("A", 1400)]
    assert len(held) == 397
    assert float((judge(held)[0] != REJECTED).mean()) == pytest.approx(judge.accepted)
    assert len(judge.reference) == 1400


def test_samples_that_are_not_finite_are_refused_with_what_to_do(store):
    wild = dataclasses.replace(
        ring_cell(), guidance=GuidanceConfig(factor=1e308, group_size=4, strength="constant")
    )
    with pytest.raises(NotFiniteSamples, match=r"factor 1e\+308, kernel rbf: .*--cap"):
        make_cell(store, wild)
    assert store.missing([wild])
