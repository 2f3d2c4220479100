"""A model over several devices: the same bits, no operation on tensors of two devices, equal shares."""

from __future__ import annotations

import copy

import made_pipelines
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_unet import NETWORKS, arguments, tiny
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from regimes.denoisers import spread
from regimes.denoisers.compute import Compute, prepare
from regimes.denoisers.spread import deal, num_bytes, place
from regimes.errors import ConfigError
from regimes.pipelines.folders import read_pipeline
from regimes.pipelines.model import Pipeline, build_pipeline, prepare_pipeline
from regimes.pipelines.sampling import sample_pipeline
from regimes.pipelines.schedulers import GuidedConfig, SchedulerConfig

PIPELINES = ("pixel", "latent", "class", "text")
SEEDS = [3, 8]


def network(name):
    """A denoiser with random weights, and what it is called with."""
    made = tiny(name).eval().requires_grad_(False)
    return made, arguments(made)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Whole pipelines with random weights, by name."""
    found = {}
    for name in PIPELINES:
        made = getattr(made_pipelines, f"{name}_pipeline")()
        saved = read_pipeline(made_pipelines.save(made, tmp_path_factory.mktemp(name)))
        states = {part: safetensors.torch.load(data) for part, data in saved.weights.items()}
        found[name] = build_pipeline(saved.config, states)
    return found


def sampled(pipeline, name):
    """Samples of a pipeline, guided if it can be."""
    prompts = ["a cat", "dog"] if name == "text" else []
    config = SchedulerConfig(name="ddim", num_steps=3)
    if name in ("class", "text"):
        config = GuidedConfig(name="ddim", num_steps=3, guidance=4.0)
    return sample_pipeline(pipeline, SEEDS, config, prompts=prompts)


@pytest.mark.parametrize("num_devices", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_a_spread_network_gives_the_same_bits(name, num_devices):
    made, inputs = network(name)
    others = ["cpu"] * (num_devices - 1)
    for compute in (Compute(), Compute(precision="bf16"), Compute(channels_last=True)):
        whole = prepare(copy.deepcopy(made), compute)(*inputs)
        parts = prepare(place(copy.deepcopy(made), "cpu", others), compute)(*inputs)
        assert torch.equal(whole, parts)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_spread_pipeline_gives_the_same_bits(pipelines, name):
    whole = prepare_pipeline(copy.deepcopy(pipelines[name]), Compute(), "cpu")
    parts = prepare_pipeline(copy.deepcopy(pipelines[name]), Compute(), "cpu", ["cpu", "cpu"])
    assert torch.equal(sampled(whole, name), sampled(parts, name))


@pytest.fixture
def copies(pipelines):
    """Pipelines that a test may spread; copied before a fake device could come in between."""
    return copy.deepcopy(pipelines)


@pytest.fixture
def fake_gpus(monkeypatch):
    """Within it tensors may be on GPUs that are not there; operations on tensors of two are errors."""

    def apply(module, function, recurse=True):
        for child in module.children() if recurse else ():
            apply(child, function)
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(function(value), requires_grad=False)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = function(value)
        return module

    monkeypatch.setattr(nn.Module, "_apply", apply)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield [f"cuda:{number}" for number in range(4)]


def on(devices):
    """How many bytes of a model are on each device."""

    def count(model):
        tensors = [*model.parameters(), *model.buffers()]
        held = dict.fromkeys(devices, 0)
        for tensor in tensors:
            held[str(tensor.device)] += tensor.numel() * tensor.element_size()
        return list(held.values())

    return count


def visited(monkeypatch):
    """Devices to which anything was moved on the way."""
    found, moved = set(), spread._moved

    def note(values, device):
        found.add(device)
        return moved(values, device)

    monkeypatch.setattr(spread, "_moved", note)
    return found


@pytest.mark.parametrize("num_devices", [2, 3, 4])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_no_operation_of_a_network_meets_tensors_of_two_devices(
    fake_gpus, monkeypatch, name, num_devices
):
    made, inputs = network(name)
    devices, found = fake_gpus[:num_devices], visited(monkeypatch)
    made = place(made, devices[0], devices[1:])
    assert made(*(x.to(devices[0]) for x in inputs)).device == torch.device(devices[0])
    assert found == set(devices)
    assert_equal_shares(made, devices)


@pytest.mark.parametrize("num_devices", [2, 3])
@pytest.mark.parametrize("name", PIPELINES)
def test_no_operation_of_a_pipeline_meets_tensors_of_two_devices(
    copies, fake_gpus, monkeypatch, name, num_devices
):
    devices, found = fake_gpus[:num_devices], visited(monkeypatch)
    made = place(copies[name], devices[0], devices[1:])
    assert run_parts(made, name, devices[0]).device == torch.device(devices[0])
    assert found == set(devices)
    assert_equal_shares(made, devices)


def run_parts(pipeline: Pipeline, name: str, home: str) -> torch.Tensor:
    """Every part once: text encoder, network, decoder."""
    condition = None
    if name == "text":
        condition = pipeline.by_prompt(["a cat", "dog"], 4.0, "")
    if name == "class":
        condition = pipeline.by_class(torch.tensor([1, 2], device=home), 4.0)
    x = torch.zeros(2, *pipeline.noise_shape, device=home)
    assert pipeline.home == torch.device(home)
    return pipeline.decode(pipeline.predict(x, torch.tensor(3, device=home), condition))


def assert_equal_shares(model, devices):
    held = on(devices)(model)
    piece = max(num_bytes(m) for m in model.modules() if not any(True for _ in m.children()))
    share = sum(held) / len(devices)
    assert max(held) <= share + max(piece, share / spread.PIECES) + num_bytes(model) / 50


@given(
    st.lists(st.integers(0, 10**9), min_size=1, max_size=50),
    st.integers(1, 8),
)
def test_blocks_are_contiguous_and_hold_a_share_and_one_piece_more_at_most(sizes, num_devices):
    numbers = deal(sizes, num_devices)
    assert len(numbers) == len(sizes)
    assert numbers[0] == 0
    assert numbers == sorted(numbers)
    assert max(numbers) < num_devices
    for device in set(numbers):
        held = sum(s for s, number in zip(sizes, numbers, strict=True) if number == device)
        assert held <= sum(sizes) / num_devices + max(sizes)


def test_equal_pieces_are_dealt_equally():
    assert deal([5] * 6, 3) == [0, 0, 1, 1, 2, 2]


def test_a_model_of_too_few_modules_for_so_many_devices_is_refused():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    with pytest.raises(ConfigError, match=r"--gpus-per-replica 3: .* fill only 2; ask for fewer"):
        place(model, "cpu", ["cpu", "cpu"])


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", PIPELINES)
def test_two_gpus_make_the_images_of_one(pipelines, name):
    torch.cuda.reset_peak_memory_stats(1)
    one = prepare_pipeline(copy.deepcopy(pipelines[name]), Compute(), "cuda")
    two = prepare_pipeline(copy.deepcopy(pipelines[name]), Compute(), "cuda", ["cuda:1"])
    assert torch.equal(sampled(one, name), sampled(two, name))
    assert torch.cuda.max_memory_allocated(1) > 0
