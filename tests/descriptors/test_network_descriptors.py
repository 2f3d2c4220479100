"""Networks as descriptors: files, layers, batches, precision, and what is refused."""

from __future__ import annotations

import dataclasses
import pickle
import sys

import made_networks as made
import numpy as np
import pytest
import torch
from PIL import Image

from regimes.descriptors.families import stored_weights
from regimes.descriptors.network import NetworkConfig, NetworkDescriptor, NotFinite
from regimes.descriptors.options import DescriptorOptions, find_network
from regimes.descriptors.registry import ENTRIES, descriptor_names
from regimes.descriptors.resize import Preprocessing
from regimes.errors import BadDescriptor, ConfigError, RegimesError, UnsafeCheckpoint


def describe(options, **changes):
    """The descriptor that options ask for, loaded as a worker does."""
    config, path = find_network(options)
    data = None if path is None else stored_weights(config.family, path)
    return NetworkDescriptor.load(config, data, **changes)


def script(path, **options):
    return DescriptorOptions(descriptor=f"torchscript:{path}", **({"resize": "skew-16"} | options))


@pytest.fixture
def images(rng):
    """(9, 20, 24, 3) uint8."""
    return rng.integers(0, 256, (9, 20, 24, 3), dtype=np.uint8)


@pytest.fixture
def tiny(tmp_path):
    """A TorchScript file: 3 channels to 5 features."""
    return made.tiny_script(tmp_path / "tiny.pt")


def test_torchscript_features_are_the_networks_of_pils_resized_image(images, tiny):
    found = describe(script(tiny)).raw(images)
    torch.manual_seed(3)
    network = made.Tiny().eval()
    for image, feature in zip(images, found, strict=True):
        resized = np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR))
        x = torch.from_numpy(resized.transpose(2, 0, 1).copy())[None].float() / 255
        mean, std = (torch.tensor(v)[:, None, None] for v in (
            (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
        expected = network((x - mean) / std)[0].detach().numpy()
        np.testing.assert_allclose(feature, expected, atol=1e-6)


def test_rows_are_features_divided_by_their_length(images, tiny):
    descriptor = describe(script(tiny))
    raw = descriptor.raw(images)
    rows = descriptor(images)
    assert rows.dtype == np.float32
    assert rows.shape == (9, 5)
    np.testing.assert_allclose(rows, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 2, 4, 9])
def test_a_descriptor_does_not_depend_on_the_batch(images, tiny, batch):
    alone = np.concatenate([describe(script(tiny))(images[i : i + 1]) for i in range(9)])
    together = describe(script(tiny, descriptor_batch=batch))(images)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_gray_images_are_described_as_gray_colour_images(images, tiny):
    gray = images[..., :1]
    descriptor = describe(script(tiny))
    np.testing.assert_array_equal(descriptor(gray), descriptor(gray.repeat(3, 3)))


def test_a_network_of_one_channel_takes_its_own_mean(images, tmp_path):
    path = made.tiny_script(tmp_path / "gray.pt", channels=1)
    descriptor = describe(script(path, mean=(0.5,), std=(0.25,)))
    assert descriptor(images[..., :1]).shape == (9, 5)
    with pytest.raises(ConfigError, match="expected 1 channel, got 3"):
        descriptor(images)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("channels_last", [False, True])
def test_lower_precision_changes_directions_little(images, tiny, precision, channels_last):
    exact = describe(script(tiny))(images)
    rough = describe(script(tiny, precision=precision, channels_last=channels_last))(images)
    cosine = (exact * rough).sum(1)
    # bf16 has 8 bits: relative errors of 0.4% per operation, a few operations deep.
    assert cosine.min() > 1 - (1e-3 if precision == "bf16" else 1e-5)
    assert np.abs(exact - rough).max() > 1e-6  # it did compute in lower precision


def test_channels_last_changes_rounding_alone(images, tiny):
    plain = describe(script(tiny))(images)
    np.testing.assert_allclose(describe(script(tiny, channels_last=True))(images), plain, atol=1e-6)


def test_centring_subtracts_before_normalising(images, tiny):
    raw = describe(script(tiny)).raw(images).astype(float)
    centre = raw.mean(0)
    rows = describe(script(tiny), centre=centre)(images)
    expected = (raw - centre) / np.linalg.norm(raw - centre, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_centring_tells_apart_what_random_weights_make_equal(images, tmp_path):
    file = made.torchvision_file("squeezenet1_1", tmp_path / "s.pth")
    options = DescriptorOptions(descriptor="squeezenet-pool", weights=str(file), resize="skew-64")
    raw = describe(options).raw(images)
    plain, centred = describe(options)(images), describe(options, centre=raw.mean(0).astype(float))
    assert (plain @ plain.T).min() > 0.99
    assert (centred(images) @ centred(images).T).min() < 0


TORCHVISION = [name for name, entry in ENTRIES.items() if entry.family == "torchvision"]
SMALL = ["squeezenet", "squeezenet-pool"]


@pytest.mark.parametrize(
    "name", [n if n in SMALL else pytest.param(n, marks=pytest.mark.slow) for n in TORCHVISION]
)
def test_torchvision_features_are_those_of_their_layer(images, tmp_path, name):
    import torchvision

    entry = ENTRIES[name]
    path = made.torchvision_file(entry.model, tmp_path / "net.pth")
    descriptor = describe(DescriptorOptions(descriptor=name, weights=str(path), resize="skew-96"))
    special = {"transform_input": True} if entry.model == "inception_v3" else {}
    if entry.model in ("inception_v3", "vgg16"):
        special["init_weights"] = False
    network = torchvision.models.get_model(entry.model, weights=None, **special).eval()
    network.load_state_dict(torch.load(path, weights_only=True))
    seen = {}
    layers = {
        "squeezenet": network, "squeezenet-pool": network.features if name in SMALL else None,
        "vgg16": getattr(network, "classifier", [0] * 7)[-2] if name == "vgg16" else None,
        "alexnet": getattr(network, "classifier", [0] * 7)[-2] if name == "alexnet" else None,
    }  # fmt: skip
    layer = layers.get(name) or network.avgpool
    layer.register_forward_hook(lambda module, args, out: seen.update(out=out))
    with torch.no_grad():
        network(dataclasses.replace(entry.preprocessing, size=96)(torch.from_numpy(images[:2])))
    out = seen["out"]
    expected = (out.mean((2, 3)) if name == "squeezenet-pool" else out.flatten(1)).numpy()
    assert expected.shape == (2, entry.dimension)
    np.testing.assert_allclose(descriptor.raw(images[:2]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("legacy", [False, True])
def test_state_dicts_of_both_formats_of_torch_and_safetensors_are_read_alike(
    images, tmp_path, legacy
):
    import safetensors.torch

    state = torch.load(
        made.torchvision_file("squeezenet1_1", tmp_path / "s.pth"), weights_only=True
    )
    torch.save(state, tmp_path / "again.pth", _use_new_zipfile_serialization=not legacy)
    safetensors.torch.save_file(state, tmp_path / "s.safetensors")
    first, second = (
        stored_weights("torchvision", tmp_path / name) for name in ("again.pth", "s.safetensors")
    )
    assert first == second


def test_pickles_that_would_run_code_are_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "bomb.pth"
    path.write_bytes(pickle.dumps({"w": Bomb()}))
    with pytest.raises(UnsafeCheckpoint):
        stored_weights("torchvision", path)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    path = made.torchvision_file("mobilenet_v3_small", tmp_path / "m.pth")
    with pytest.raises(BadDescriptor, match="squeezenet: the weights do not fit") as caught:
        describe(DescriptorOptions(descriptor="squeezenet", weights=str(path)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("descriptor", "content", "words"),
    [
        ("torchscript:{}", b"not a program", "not a TorchScript file"),
        ("torchscript:{}", b"PK\x03\x04 half an archive", "not a TorchScript file"),
        ("squeezenet", b"\x80\x04N.", "expected a state dict"),
        ("squeezenet", b"garbage", "file.pt: "),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, descriptor, content, words):
    path = tmp_path / "file.pt"
    path.write_bytes(content)
    named = descriptor.startswith("torchscript:")
    options = DescriptorOptions(
        descriptor=descriptor.format(path), weights=None if named else str(path)
    )
    with pytest.raises(RegimesError, match=words) as caught:
        describe(options)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    for options in (
        script(tmp_path / "no.pt"),
        DescriptorOptions(descriptor="squeezenet", weights=str(tmp_path / "no.pt")),
    ):
        with pytest.raises(BadDescriptor, match=r"no\.pt: cannot be read"):
            find_network(options)  # fmt: skip


def test_features_of_the_wrong_dimension_are_refused(images, tmp_path, monkeypatch):
    monkeypatch.setenv("REGIMES_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    made.tiny_script(tmp_path / "weights" / "sscd_disc_large.torchscript.pt")
    options = DescriptorOptions(descriptor="sscd-disc-large", resize="skew-16")
    with pytest.raises(
        BadDescriptor, match=r"expected features \(9, 1024\), the network gave \(9, 5\)"
    ):
        describe(options)(images)


def test_maps_are_no_features(images, tmp_path):
    path = made.save_script(made.Maps(), tmp_path / "maps.pt")
    with pytest.raises(BadDescriptor, match=r"expected features \(9, D\)"):
        describe(script(path))(images)


def test_features_that_are_not_finite_are_refused_with_their_positions(images, tmp_path):
    images[[2, 7]] = 0
    path = made.save_script(made.Divides(), tmp_path / "divides.pt")
    descriptor = describe(script(path, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)))
    with pytest.raises(NotFinite, match="features of 2 of 9 images are not finite") as caught:
        descriptor(images)
    assert caught.value.rows == (2, 7)


def test_a_network_that_fails_is_reported_in_one_line(images, tmp_path):
    path = made.tiny_script(tmp_path / "gray.pt", channels=1)
    with pytest.raises(BadDescriptor, match="the network failed on images") as caught:
        describe(script(path))(images)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("target", "name"), [
    ("made_networks:mean_levels", "python-made_networks-mean_levels"),
    ("made_networks:Levels", "python-made_networks-Levels"),
])  # fmt: skip
def test_a_users_function_or_module_gets_the_images_as_they_are(images, target, name):
    descriptor = describe(DescriptorOptions(descriptor=f"python:{target}"))
    flat = images.reshape(9, -1).astype(float)
    expected = np.stack([flat.mean(1), flat.std(1, ddof=1)], 1)
    np.testing.assert_allclose(descriptor.raw(images), expected, rtol=1e-5)
    assert descriptor.name == name


def test_a_users_function_is_identified_by_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "some_features.py"
    module.write_text("def f(x): return x.flatten(1).float()\n")
    first, path = find_network(DescriptorOptions(descriptor="python:some_features:f"))
    module.write_text("def f(x): return 2 * x.flatten(1).float()\n")
    second, _ = find_network(DescriptorOptions(descriptor="python:some_features:f"))
    assert path is None
    assert first.label != second.label
    assert "some_features" not in sys.modules  # nothing of it ran


def test_a_users_package_is_identified_by_all_its_sources(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "some_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "helper.py", "inner/__init__.py", "inner/features.py"):
        (package / name).write_text("")

    def label() -> str:
        return find_network(DescriptorOptions(descriptor=f"python:{target}"))[0].label

    for target in ("some_package:f", "some_package.inner.features:f"):
        first = label()
        assert label() == first
        (package / "helper.py").write_text(f"used_by = {target!r}\n")
        second = label()
        (package / "weights.bin").write_bytes(target.encode())
        assert label() == second != first
    two = {find_network(DescriptorOptions(descriptor=f"python:some_package.{m}:f"))[0].weights_sha256
           for m in ("helper", "inner.features")}  # fmt: skip
    assert len(two) == 2
    sys.modules.pop("some_package", None)
    sys.modules.pop("some_package.inner", None)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"descriptor": "resnet"}, "expected one of pixels, whitened-pixels, sscd-disc-mixup"),
        ({"descriptor": "python:made_networks"}, "expected python:MODULE:CALLABLE"),
        ({"descriptor": "python:made_networks:mean_levels", "resize": "skew-8"}, "--resize"),
        ({"descriptor": "python:made_networks:mean_levels", "weights": "x"}, "--weights"),
        ({"descriptor": "torchscript:x.pt", "weights": "x"}, "names its file itself"),
    ],
)
def test_options_that_do_not_apply_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        find_network(DescriptorOptions(**options))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("made_networks:nothing", "nothing"),
        ("made_networks:NOT_CALLABLE", "expected a callable, found int"),
        ("no_such_module:f", "no module no_such_module .*; put its folder on PYTHONPATH"),
    ],
)
def test_a_users_function_that_cannot_be_used_is_refused(target, words):
    with pytest.raises(BadDescriptor, match=words):
        describe(DescriptorOptions(descriptor=f"python:{target}"))


@pytest.mark.parametrize(
    ("name", "project", "module"),
    [("inception-fid", "torch-fidelity", "torch_fidelity"), ("dinov2", "timm", "timm"),
     ("clip", "open_clip_torch", "open_clip")],
)  # fmt: skip
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, project, module):
    path = made.torchvision_file("squeezenet1_1", tmp_path / "s.pth")
    for loaded in [m for m in sys.modules if m.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadDescriptor, match=f"pip install {project}"):
        describe(DescriptorOptions(descriptor=name, weights=str(path)))


@pytest.mark.slow
def test_inception_fid_is_torch_fidelitys(images, tmp_path):
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    network = fidelity_network(extractor, tmp_path / "w.pth")
    found = describe(DescriptorOptions(descriptor="inception-fid", weights=str(tmp_path / "w.pth")))
    (expected,) = network(torch.from_numpy(images[:2]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(found.raw(images[:2]), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert found(images[:2, :, :, :1]).shape == (2, 2048)


def fidelity_network(module, path):
    """torch-fidelity's network with random weights, which are written to ``path``."""
    torch.manual_seed(5)
    made_once = {}

    class Unloaded(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *args, **kwargs):
            if not state_dict:
                return made_once.update(self.state_dict())
            return super().load_state_dict(state_dict, *args, **kwargs)

    torch.save({}, path)
    Unloaded("x", ["2048"], feature_extractor_weights_path=str(path))
    torch.save(made_once, path)
    return module.FeatureExtractorInceptionV3(
        "x", ["2048"], feature_extractor_weights_path=str(path)
    )


@pytest.mark.slow
def test_dinov2_is_timms_class_token(images, tmp_path):
    timm = pytest.importorskip("timm")
    import safetensors.torch

    torch.manual_seed(6)
    network = timm.create_model("vit_large_patch14_dinov2", num_classes=0).eval()
    safetensors.torch.save_file(network.state_dict(), tmp_path / "d.safetensors")
    found = describe(
        DescriptorOptions(descriptor="dinov2", weights=str(tmp_path / "d.safetensors"))
    )
    same = timm.create_model("vit_large_patch14_dinov2", num_classes=0, dynamic_img_size=True)
    same.load_state_dict(network.state_dict())
    x = Preprocessing(size=224, filter="bicubic")(torch.from_numpy(images[:1]))
    with torch.no_grad():
        expected = same.eval().forward_features(x)[:, 0].numpy()
    np.testing.assert_allclose(found.raw(images[:1]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_clip_is_open_clips_image_encoder(images, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    import safetensors.torch

    torch.manual_seed(7)
    network = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).eval()
    state = {key: value.clone() for key, value in network.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "c.safetensors")
    found = describe(DescriptorOptions(descriptor="clip", weights=str(tmp_path / "c.safetensors")))
    x = ENTRIES["clip"].preprocessing(torch.from_numpy(images[:2]))
    with torch.no_grad():
        expected = network.encode_image(x).numpy()
    np.testing.assert_allclose(found.raw(images[:2]), expected, rtol=1e-4, atol=1e-5)


def test_labels_say_everything_that_features_depend_on():
    usual = {
        "name": "net", "family": "torchvision", "model": "squeezenet1_1", "layer": "pool",
        "dimension": 512, "weights_sha256": "a" * 64, "preprocessing": Preprocessing(size=32),
    }  # fmt: skip
    label = NetworkConfig(**usual).label
    assert label == "net skew-32 pool weights:aaaaaaaa"
    different = [
        {"name": "other"}, {"layer": "scores"}, {"weights_sha256": "b" * 64},
        {"preprocessing": Preprocessing(size=33)},
        {"preprocessing": Preprocessing(size=32, rule="short-edge")},
        {"preprocessing": Preprocessing(size=32, filter="bicubic")},
        {"preprocessing": Preprocessing(size=32, mean=(0.5, 0.5, 0.5))},
        {"preprocessing": Preprocessing(size=32, std=(0.5, 0.5, 0.5))},
        {"preprocessing": None}, {"precision": "bf16"}, {"channels_last": True},
    ]  # fmt: skip
    labels = [NetworkConfig(**(usual | change)).label for change in different]
    assert len({label, *labels}) == len(different) + 1
    assert NetworkConfig(**usual, batch_size=7).label == label


@pytest.mark.parametrize("change", [{"precision": "int8"}, {"descriptor_batch": 0}])
def test_impossible_arithmetic_is_refused(tiny, change):
    with pytest.raises(ConfigError):
        find_network(script(tiny, **change))


def test_every_entry_is_offered_and_complete():
    assert set(ENTRIES) < set(descriptor_names())
    for name, entry in ENTRIES.items():
        assert entry.name == name
        assert entry.weights.url.startswith("https://")
        assert entry.dimension >= 512
