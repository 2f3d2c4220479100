"""Stored features: recipes, weights in the store, centres, blocks of a source, and what is left out."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from regimes.descriptors.network import NetworkConfig
from regimes.descriptors.options import DescriptorOptions, find_network
from regimes.errors import (
    BadDescriptor,
    BadImage,
    BadSource,
    BrokenArtifact,
    ConfigError,
    DescriptorMismatch,
)
from regimes.images.arrays import ArraySource
from regimes.images.sources import open_source
from regimes.images.split import Split
from regimes.scores.features import check_comparable
from regimes.storage.descriptors import read_centre
from regimes.storage.features import (
    DescriptorRecipe,
    FeaturesRecipe,
    SourceRecipe,
    describe_block,
    finish,
    fit_descriptor,
    import_weights,
    load_descriptor,
    read_block,
    read_features,
    read_left_out,
    require_same,
    split_work,
    write_block,
)
from regimes.storage.images import ImagesRecipe, Subset, decode_source, ingest, read_subset


class Net(nn.Module):
    """Means of the channels and of their squares, moved away from 0."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x.mean((2, 3)), x.square().mean((2, 3))], 1) + 3


@pytest.fixture
def script(tmp_path):
    """A TorchScript file of 6 features."""
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(Net().eval()).save(str(path))
    return path


@pytest.fixture
def network(script):
    """Its configuration and its file."""
    return find_network(DescriptorOptions(descriptor=f"torchscript:{script}", resize="skew-8"))


@pytest.fixture
def source(rng):
    return ArraySource("random", rng.integers(0, 256, (23, 9, 9, 3), dtype=np.uint8))


def recipe_of(source):
    return ImagesRecipe(
        fingerprint=source.fingerprint, image_size=None, channels=None, skip_bad=False
    )


def subset_of(source, size=11):
    split = Split(num_images=len(source.ids), seed=1)
    return Subset(images=recipe_of(source), split=split, half="A", size=size)


def prepared(store, network, **parts):
    """A descriptor with its weights in the store."""
    config, path = network
    recipe = DescriptorRecipe(name=config.name, network=config, **parts)
    import_weights(store, recipe, path)
    fit_descriptor(store, recipe)
    return recipe


def complete(store, recipe, source=None):
    """Describe what is missing, here and now; returns how many units that were."""
    descriptor = load_descriptor(store, recipe.descriptor)
    entries, missing = split_work(store, recipe, source)
    for unit, name in missing:
        block = read_block(store, recipe, unit, name, source)
        features = describe_block(descriptor, block) if len(block.ids) else None
        entries += write_block(store, recipe, unit, block, features)
    finish(store, recipe, entries)
    return len(missing)


def test_weights_travel_through_the_store(store, network, script, source):
    recipe = prepared(store, network)
    script.unlink()
    pictures = np.stack([source.read(i) for i in range(5)])
    seen = network[0].preprocessing(torch.from_numpy(pictures))
    expected = Net()(seen).numpy()
    np.testing.assert_allclose(load_descriptor(store, recipe).raw(pictures), expected, atol=1e-6)


def test_weights_are_stored_once_and_checked(store, network):
    recipe = prepared(store, network)
    artifact = store.artifact(recipe.weights)
    config, path = network
    path.write_bytes(b"another file")
    import_weights(store, recipe, path)  # there already: not read again
    assert artifact.files[0].sha256 == config.weights_sha256
    artifact.location.write("weights", b"x" * artifact.files[0].num_bytes)
    with pytest.raises(BrokenArtifact, match="checksum"):
        load_descriptor(store, recipe)


def test_weights_that_do_not_fit_are_refused_before_they_are_stored(store, network, tmp_path):
    config, _ = network
    bad = tmp_path / "bad.pt"
    bad.write_bytes(b"no program")
    recipe = DescriptorRecipe(name=config.name, network=config)
    with pytest.raises(BadDescriptor, match="not a TorchScript file"):
        import_weights(store, recipe, bad)
    assert store.missing([recipe.weights])


def test_the_centre_is_the_mean_of_the_features_of_its_images(store, network, source):
    ingest(store, recipe_of(source), decode_source(source, recipe_of(source)))
    subset = subset_of(source)
    plain, centred = prepared(store, network), prepared(store, network, centre=subset)
    _, background = read_subset(store, subset)
    pictures = np.stack([source.read(i) for i in range(23)])
    raw = load_descriptor(store, plain).raw(pictures).astype(float)
    moved = raw - load_descriptor(store, plain).raw(background).astype(float).mean(0)
    rows = load_descriptor(store, centred)(pictures)
    np.testing.assert_allclose(
        rows, moved / np.linalg.norm(moved, axis=1, keepdims=True), atol=1e-4
    )
    assert (rows @ rows.T).min() < -0.5
    unmoved = load_descriptor(store, plain)(pictures)
    assert (unmoved @ unmoved.T).min() > 0.9


def test_labels_differ_where_features_cannot_be_compared(network, source):
    config, _ = network
    recipe = DescriptorRecipe(name=config.name, network=config)
    others = [
        dataclasses.replace(recipe, centre=subset_of(source)),
        dataclasses.replace(recipe, centre=subset_of(source, 10)),
        dataclasses.replace(recipe, network=dataclasses.replace(config, precision="bf16")),
        dataclasses.replace(recipe, network=dataclasses.replace(config, weights_sha256="0" * 64)),
        DescriptorRecipe(name="pixels"),
        DescriptorRecipe(name="whitened-pixels", fit=subset_of(source), ridge=0.5),
        DescriptorRecipe(name="whitened-pixels", fit=subset_of(source), ridge=0.4),
    ]
    assert len({recipe.label, *(other.label for other in others)}) == len(others) + 1
    for other in others:
        with pytest.raises(DescriptorMismatch):
            require_same(recipe, other)


@pytest.mark.parametrize("centred", [False, True])
def test_batch_sizes_may_differ(network, source, centred):
    config, _ = network
    centre = subset_of(source) if centred else None
    first = DescriptorRecipe(name=config.name, network=config, centre=centre)
    second = dataclasses.replace(first, network=dataclasses.replace(config, batch_size=7))
    assert first.label == second.label
    assert first.address != second.address
    require_same(first, second)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precision": "bf16"}, r"network\.precision \(float32 and bf16\)"),
        ({"weights_sha256": "0" * 64}, r"network\.weights_sha256 \(.* and 0000"),
        ({"layer": "pool"}, r"network\.layer \(output and pool\)"),
    ],
)
def test_a_mismatch_names_what_differs(network, change, words):
    config, _ = network
    first = DescriptorRecipe(name=config.name, network=config)
    second = dataclasses.replace(first, network=dataclasses.replace(config, **change))
    with pytest.raises(DescriptorMismatch, match=f"they differ in {words}.*; describe"):
        require_same(first, second)


def test_parts_that_do_not_belong_together_are_refused(network, source):
    config: NetworkConfig = network[0]
    for parts in (
        {"name": "whitened-pixels"},
        {"name": "pixels", "ridge": 0.5},
        {"name": "pixels", "network": config},
        {"name": "pixels", "centre": subset_of(source)},
        {"name": config.name},
    ):
        with pytest.raises(ConfigError):
            DescriptorRecipe(**parts)


@pytest.fixture
def folder(tmp_path, rng):
    """13 images of two sizes, and one that is none."""
    path = tmp_path / "pictures"
    path.mkdir()
    for i in range(13):
        pixels = rng.integers(0, 256, (9 + i % 2, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path / f"{i:02d}.png")
    (path / "05b.png").write_bytes(b"nothing")
    return path


def source_features(folder, descriptor, **options):
    source = open_source(str(folder))
    images = SourceRecipe(fingerprint=source.fingerprint, images_per_unit=4, **options)
    return source, FeaturesRecipe(images=images, descriptor=descriptor)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_source_is_described_where_it_is_whatever_the_sizes(store, network, folder, mirrored):
    source, recipe = source_features(folder, prepared(store, network), skip_bad=True)
    recipe = dataclasses.replace(recipe, mirrored=mirrored)
    assert complete(store, recipe, source) == 4
    found, describe = read_features(store, recipe), load_descriptor(store, recipe.descriptor)
    assert found.ids.tolist() == [i for i in source.ids if i != "05b.png"]
    for image_id, row in zip(found.ids, found.values, strict=True):
        image = source.read(source.ids.index(image_id))[:, :: -1 if mirrored else 1]
        np.testing.assert_allclose(describe(np.ascontiguousarray(image)[None])[0], row, atol=1e-5)


def test_the_centre_of_a_source_is_the_mean_over_its_readable_images(store, network, folder):
    """Of two sizes, in units of 4, one of which holds an image that is none."""
    source = open_source(str(folder))
    centre = SourceRecipe(fingerprint=source.fingerprint, skip_bad=True, images_per_unit=4)
    config, path = network
    recipe = DescriptorRecipe(name=config.name, network=config, centre=centre)
    import_weights(store, recipe, path)
    with pytest.raises(ValueError, match="needs its source"):
        fit_descriptor(store, recipe)
    fit_descriptor(store, recipe, background=source)
    describe = load_descriptor(store, prepared(store, network))
    readable = [i for i, image_id in enumerate(source.ids) if image_id != "05b.png"]
    each = [describe.raw(source.read(i)[None])[0].astype(float) for i in readable]
    np.testing.assert_allclose(read_centre(store, recipe), np.mean(each, 0), rtol=1e-5)


def test_a_centre_stops_at_a_bad_image_unless_left_out(store, network, folder):
    source, config = open_source(str(folder)), network[0]
    centre = SourceRecipe(fingerprint=source.fingerprint)
    recipe = DescriptorRecipe(name=config.name, network=config, centre=centre)
    import_weights(store, recipe, network[1])
    with pytest.raises(BadImage, match=r"05b\.png"):
        fit_descriptor(store, recipe, background=source)


@pytest.mark.parametrize(("side", "expected"), [(8, 256), (1024, 21), (None, 256)])
def test_units_hold_fewer_images_the_larger_they_are(folder, side, expected):
    """64 MiB of pixels at most: 21 images of 1024 x 1024 x 3 bytes; the first is one that is none."""
    (folder / "00.png").write_bytes(b"nothing")
    source = open_source(str(folder))
    options = {"image_size": side, "channels": None}
    recipe = SourceRecipe.of(source, **options, skip_bad=True)
    assert recipe.images_per_unit == expected
    assert recipe.num_units(source) == 1
    with pytest.raises(BadImage, match=r"00\.png"):
        SourceRecipe.of(source, **options, skip_bad=False)


def test_an_image_larger_than_a_unit_is_one(monkeypatch, folder):
    monkeypatch.setattr("regimes.storage.blocks.BYTES_PER_UNIT", 100)
    source = open_source(str(folder))
    recipe = SourceRecipe.of(source, image_size=None, channels=None, skip_bad=True)
    assert recipe.images_per_unit == 1
    assert recipe.num_units(source) == 14


def test_features_of_different_length_are_refused_whatever_the_units(store, folder):
    source = open_source(str(folder))
    images = SourceRecipe(fingerprint=source.fingerprint, skip_bad=True, images_per_unit=1)
    recipe = FeaturesRecipe(images=images, descriptor=DescriptorRecipe(name="pixels"))
    complete(store, recipe, source)
    with pytest.raises(BadSource, match="images differ in size, and pixels describes equal"):
        read_features(store, recipe)


def test_what_is_left_out_is_listed_and_not_asked_for_again(store, network, folder):
    source, recipe = source_features(folder, prepared(store, network), skip_bad=True)
    complete(store, recipe, source)
    left_out = read_left_out(store, recipe)
    assert list(left_out) == ["05b.png"]
    assert "05b.png" in left_out["05b.png"]
    assert complete(store, recipe, source) == 0


def test_a_unit_of_bad_images_is_done_without_a_shard(store, network, folder):
    for name in ("04.png", "05.png", "06.png"):
        (folder / name).write_bytes(b"nothing")
    source, recipe = source_features(folder, prepared(store, network), skip_bad=True)
    complete(store, recipe, source)
    assert len(read_left_out(store, recipe)) == 4
    assert len(read_features(store, recipe)) == 10
    assert complete(store, recipe, source) == 0


def test_a_source_of_bad_images_alone_is_refused(store, network, folder):
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    source, recipe = source_features(folder, prepared(store, network), skip_bad=True)
    with pytest.raises(BadSource, match="no image could be described"):
        complete(store, recipe, source)


def test_a_bad_image_stops_by_name_unless_left_out(store, network, folder):
    source, recipe = source_features(folder, prepared(store, network))
    with pytest.raises(BadImage, match=r"05b\.png"):
        complete(store, recipe, source)


def test_units_that_exist_are_kept_and_the_bytes_are_the_same(store, network, folder):
    source, recipe = source_features(folder, prepared(store, network), skip_bad=True)
    complete(store, recipe, source)
    artifact = store.artifact(recipe)
    before = artifact.files
    artifact.location.filesystem.delete_file(f"{artifact.location.path}/shard-000002.parquet")
    assert complete(store, recipe, source) == 1
    assert store.artifact(recipe).files == before


def test_images_whose_features_are_not_finite_are_named(store, network, folder, monkeypatch):
    descriptor = prepared(store, network)
    source, recipe = source_features(folder, descriptor, skip_bad=True)
    describe = load_descriptor(store, descriptor)
    plain = describe._network
    describe._network = lambda x: torch.where(
        (x.shape[0] == 2) & (torch.arange(len(x)) == 1)[:, None], torch.nan, plain(x)
    )
    block = read_block(store, recipe, 0, "", source)
    with pytest.raises(BadDescriptor, match=r"not finite.*images 02\.png"):
        describe_block(describe, block)


def test_pixel_descriptors_refuse_images_of_different_sizes(store, folder):
    descriptor = DescriptorRecipe(name="pixels")
    fit_descriptor(store, descriptor)
    source, recipe = source_features(folder, descriptor, skip_bad=True)
    with pytest.raises(BadSource, match=r"images differ in size.*--image-size"):
        complete(store, recipe, source)


def test_raw_features_are_the_networks_and_cannot_be_compared_with_rows(store, network, folder):
    source, recipe = source_features(folder, prepared(store, network), skip_bad=True)
    raw = dataclasses.replace(recipe, raw=True)
    block = read_block(store, raw, 0, "", source)
    describe = load_descriptor(store, recipe.descriptor)
    values = describe_block(describe, block, raw=True)
    rows = describe_block(describe, block)
    np.testing.assert_allclose(
        rows, values / np.linalg.norm(values, axis=1, keepdims=True), atol=1e-6
    )
    assert np.linalg.norm(values, axis=1).min() > 2
    found = []
    for one, features in ((recipe, rows), (raw, values)):
        finish(store, one, write_block(store, one, 0, block, features))
        found.append(read_features(store, one))
    with pytest.raises(DescriptorMismatch, match="raw"):
        check_comparable(*found)


def test_raw_features_are_refused_where_there_are_none(source):
    with pytest.raises(ConfigError, match="raw features are those of networks"):
        FeaturesRecipe(
            images=recipe_of(source), descriptor=DescriptorRecipe(name="pixels"), raw=True
        )
