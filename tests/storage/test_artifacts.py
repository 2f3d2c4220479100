"""Artifacts: addresses, manifests and what happens to broken files."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import ClassVar

import pytest

from regimes.errors import BrokenArtifact
from regimes.images.split import Split
from regimes.samplers.edm import SamplerConfig
from regimes.storage.artifacts import MANIFEST, RECIPE, FileEntry, Recipe, Store, to_json
from regimes.storage.denoisers import ClosedFormRecipe
from regimes.storage.features import DescriptorRecipe, FeaturesRecipe
from regimes.storage.images import ImagesRecipe, Subset
from regimes.storage.models import ModelRecipe
from regimes.storage.samples import SamplesRecipe
from regimes.storage.seeds import Seeds
from regimes.training.ensemble import TrainingConfig

IMAGES = ImagesRecipe(fingerprint="f" * 64, image_size=None, channels=None, skip_bad=False)
SUBSET = Subset(images=IMAGES, split=Split(num_images=10, seed=0), half="A", size=4)
MODEL = ModelRecipe(
    train=SUBSET,
    width=8,
    blocks=1,
    steps=10,
    sigma_data=0.5,
    training=TrainingConfig(),
    seed=0,
    ensemble=("w8-n4-A",),
)
SAMPLES = SamplesRecipe(
    denoiser=MODEL, sampler=SamplerConfig(), seeds=Seeds.first(10), seeds_per_unit=4
)
DESCRIPTOR = DescriptorRecipe(name="whitened-pixels", fit=SUBSET, ridge=0.5)
RECIPES = [
    IMAGES,
    MODEL,
    ClosedFormRecipe(form="wiener", train=SUBSET),
    SAMPLES,
    DESCRIPTOR,
    FeaturesRecipe(images=SAMPLES, descriptor=DESCRIPTOR),
]


def changed(value):
    """All values that differ from ``value`` in one plain field, however deep."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            for other in changed(getattr(value, field.name)):
                copy = object.__new__(type(value))  # past validation: only the address matters
                for f in dataclasses.fields(value):
                    object.__setattr__(copy, f.name, getattr(value, f.name))
                object.__setattr__(copy, field.name, other)
                yield copy
    elif isinstance(value, tuple):
        yield (*value, "one more")
    elif isinstance(value, bool):
        yield not value
    elif isinstance(value, str):
        yield value + "x"
    elif value is None:
        yield 17
    elif value == math.inf:
        yield 3.0
    else:
        yield value + 1


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.kind)
def test_address_changes_with_every_field_however_deep(recipe):
    variants = list(changed(recipe))
    addresses = {v.address for v in variants}
    assert len(variants) >= 3
    assert len(addresses) == len(variants)
    assert recipe.address not in addresses


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.kind)
def test_address_is_kind_and_hash_and_equal_for_equal_recipes(recipe):
    kind, _, digest = recipe.address.partition("/")
    assert kind == recipe.kind
    assert len(digest) == 20
    assert dataclasses.replace(recipe).address == recipe.address


@pytest.mark.parametrize("cls", [ImagesRecipe, ModelRecipe, SamplesRecipe])
def test_address_changes_with_the_code_version_of_every_step_before_it(monkeypatch, cls):
    before = SAMPLES.address
    monkeypatch.setattr(cls, "code_version", cls.code_version + 1)
    assert SAMPLES.address != before


def test_json_of_equal_values_is_equal_text_and_strict():
    assert to_json({"b": 1, "a": (1, 2)}) == to_json({"a": [1, 2], "b": 1})
    assert json.loads(to_json(SamplerConfig()))["s_max"] == "inf"
    assert json.loads(to_json({"x": math.nan})) == {"x": "nan"}
    assert json.loads(to_json(SAMPLES))["denoiser"]["train"]["split"] == {
        "type": "Split",
        "num_images": 10,
        "parts": 2,
        "seed": 0,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy(Recipe):
    kind: ClassVar[str] = "toy"
    code_version: ClassVar[int] = 1
    number: int = 0


@pytest.fixture
def artifact(store):
    return store.artifact(Toy())


def fill(artifact):
    artifact.finish([artifact.write("b", b"second", num_rows=2), artifact.write("a", b"first")])


def test_artifact_is_complete_once_finished_and_not_before(store, artifact):
    assert not artifact.is_complete()
    entry = artifact.write("a", b"first")
    assert not artifact.is_complete()
    artifact.finish([entry])
    assert artifact.is_complete()
    assert store.artifact(Toy()).is_complete()
    assert not store.artifact(Toy(number=1)).is_complete()


def test_manifest_is_written_last(artifact, monkeypatch):
    names = []
    write = type(artifact.location).write

    def spy(self, name, data):
        names.append(name)
        write(self, name, data)

    monkeypatch.setattr(type(artifact.location), "write", spy)
    fill(artifact)
    assert names == ["b", "a", RECIPE, MANIFEST]


def test_files_are_listed_sorted_with_size_checksum_and_rows(artifact):
    fill(artifact)
    assert artifact.files == [FileEntry.of("a", b"first"), FileEntry.of("b", b"second", 2)]
    assert artifact.files[1].num_bytes == 6
    # sha256 of "first", from coreutils
    assert artifact.files[0].sha256.startswith("a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b")


def test_present_lists_what_is_there_before_completion(artifact):
    assert artifact.present() == set()
    artifact.write("b", b"second")
    assert artifact.present() == {"b"}
    fill(artifact)
    assert artifact.present() == {"a", "b"}


def test_recipe_is_kept_beside_the_files(artifact):
    fill(artifact)
    assert json.loads(artifact.location.read(RECIPE)) == {
        "kind": "toy",
        "code_version": 1,
        "number": 0,
    }


def test_finishing_twice_is_harmless(artifact):
    fill(artifact)
    before = artifact.location.read(MANIFEST)
    fill(artifact)
    assert artifact.location.read(MANIFEST) == before
    artifact.verify()


def test_read_returns_the_listed_content(artifact):
    fill(artifact)
    assert artifact.read("b") == b"second"
    artifact.verify()


def delete(artifact, name):
    artifact.location.filesystem.delete_file(f"{artifact.location.path}/{name}")


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda a: a.location.write("a", b"firs"), "5 bytes expected, 4 found"),
        (lambda a: a.location.write("a", b"fjrst"), "its checksum differs from the manifest's"),
        (lambda a: delete(a, "a"), "missing"),
    ],
    ids=["truncated", "altered", "missing"],
)
def test_damaged_file_is_named_with_the_remedy(artifact, damage, what):
    fill(artifact)
    damage(artifact)
    folder = artifact.location.uri
    for action in (lambda: artifact.read("a"), artifact.verify):
        with pytest.raises(BrokenArtifact) as caught:
            action()
        message = str(caught.value)
        assert message.startswith(f"{folder}/a: {what}; delete the folder {folder} and run")
        assert "\n" not in message
    assert artifact.read("b") == b"second"


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"files": [{"x": 1}]}', b"\xff\xfe"])
def test_damaged_manifest_is_named_with_the_remedy(artifact, text):
    fill(artifact)
    artifact.location.write(MANIFEST, text)
    with pytest.raises(
        BrokenArtifact, match=r"manifest\.json: not a manifest .*; delete the folder"
    ):
        Store(artifact.location.uri.split("/artifacts/")[0]).artifact(Toy()).is_complete()


def test_file_that_the_manifest_does_not_list_is_refused(artifact):
    fill(artifact)
    artifact.location.write("stray", b"x")
    with pytest.raises(BrokenArtifact, match="stray: not listed in the manifest"):
        artifact.read("stray")


def test_incomplete_artifact_has_no_files_to_read(artifact):
    artifact.write("a", b"first")
    with pytest.raises(BrokenArtifact, match="not complete yet; run the job again"):
        artifact.read("a")


def test_removed_artifact_is_gone(store, artifact):
    fill(artifact)
    fill(other := store.artifact(Toy(number=1)))
    artifact.remove()
    assert not artifact.is_complete()
    assert artifact.present() == set()
    other.verify()
