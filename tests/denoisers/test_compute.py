"""Compute options: what they change, by how much, and what they leave alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from regimes.checkpoints import load_edm
from regimes.denoisers.compute import Compute, prepare
from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.denoisers.unet import UNetDenoiser
from regimes.errors import ConfigError
from regimes.samplers.edm import SamplerConfig, sample_seeds

FILES = sorted((Path(__file__).parents[1] / "data" / "edm").glob("*.pkl"))
BF16, CHANNELS_LAST = Compute(precision="bf16"), Compute(channels_last=True)
SIGMAS = (0.02, 0.1, 0.5, 1.0, 5.0, 20.0, 40.0)


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def network(request):
    """One of the four reference networks."""
    return load_edm(request.param)


@pytest.fixture
def small():
    """A small network that is not a U-Net."""
    network = ResidualMLP((1, 4, 4), 16, blocks=1)
    network.init_member(0, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(network.output.weight, generator=torch.Generator().manual_seed(1))
    return Denoiser(network, EDM()).eval().requires_grad_(False)


def labels_of(denoiser, batch):
    label_dim = getattr(denoiser, "label_dim", 0)
    return torch.eye(label_dim)[torch.arange(batch) % label_dim] if label_dim else None


def denoised(denoiser, sigma, batch=4):
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *denoiser.image_shape)
    x = torch.rand(shape, generator=generator) * 2 - 1
    x = x + sigma * torch.randn(shape, generator=generator)
    return denoiser(x, torch.tensor(sigma), labels_of(denoiser, batch))


def relative(found, expected):
    """Worst image's norm of the difference over its norm."""
    found, expected = found.double().flatten(1), expected.double().flatten(1)
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1)).max())


def test_there_are_four_reference_networks():
    assert len(FILES) == 4


def test_defaults_are_the_denoiser_itself(network):
    assert prepare(network, Compute()) is network


def test_channels_last_changes_rounding_only(network):
    prepared = prepare(network, CHANNELS_LAST)
    for sigma in SIGMAS:
        # Sums in another order: 1.4e-6 was measured; float32 has 6e-8.
        assert relative(denoised(prepared, sigma), denoised(network, sigma)) <= 1e-5


def test_bf16_changes_what_the_docstring_says(network):
    prepared = prepare(network, BF16)
    # Twice the measured deviations; bfloat16 has 4e-3, c_out weighs it by sigma at low noise.
    bounds = {0.02: 8e-4, 0.1: 4e-3}
    for sigma in SIGMAS:
        found = relative(denoised(prepared, sigma), denoised(network, sigma))
        assert 1e-5 < found <= bounds.get(sigma, 4e-2), sigma


@pytest.mark.parametrize(
    ("compute", "bound"), [(BF16, 1.6e-2), (CHANNELS_LAST, 1e-5)], ids=["bf16", "channels-last"]
)
def test_sampled_images_change_by_as_much(network, compute, bound):
    def images(denoiser):
        return sample_seeds(
            denoiser,
            range(4),
            denoiser.image_shape,
            config=SamplerConfig(num_steps=18),
            num_classes=denoiser.label_dim,
        )

    assert 0 < relative(images(prepare(network, compute)), images(network)) <= bound


@pytest.mark.parametrize("compute", [BF16, CHANNELS_LAST], ids=["bf16", "channels-last"])
def test_output_is_float32_and_the_argument_stays_as_it_was(network, compute):
    before, strides = denoised(network, 1.0), [p.stride() for p in network.parameters()]
    prepared = prepare(network, compute)
    found = denoised(prepared, 1.0)
    assert found.dtype == torch.float32
    assert not torch.equal(found, before)
    assert torch.equal(denoised(network, 1.0), before)
    assert [p.stride() for p in network.parameters()] == strides
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("compute", [BF16, CHANNELS_LAST], ids=["bf16", "channels-last"])
def test_prepared_denoiser_has_the_class_the_range_and_the_state_of_its_origin(network, compute):
    prepared = prepare(network, compute)
    assert type(prepared) is UNetDenoiser
    assert (prepared.sigma_min, prepared.sigma_max) == (network.sigma_min, network.sigma_max)
    assert prepared.config == network.config
    state, expected = prepared.checkpoint_state(), network.checkpoint_state()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


class Recorder(torch.nn.Module):
    """A network that records what it is given."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, c_noise, class_labels):
        self.x, self.c_noise, self.out = x, c_noise, self.conv(x)
        self.autocast = torch.is_autocast_enabled("cpu")
        return self.out


def test_only_the_network_runs_in_the_options(torch_rng):
    denoiser = Denoiser(Recorder(), EDM()).eval().requires_grad_(False)
    prepared = prepare(denoiser, Compute(precision="bf16", channels_last=True))
    x = torch.randn((2, 3, 4, 4), generator=torch_rng, dtype=torch.float64)
    found = prepared(x, 0.5)
    seen = prepared.network.forward.network
    assert seen.autocast
    assert (seen.x.dtype, seen.c_noise.dtype) == (torch.float32, torch.float32)
    assert seen.x.is_contiguous(memory_format=torch.channels_last)
    assert not seen.x.is_contiguous()
    assert seen.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert seen.out.dtype == torch.bfloat16
    c = EDM().coefficients(torch.tensor(0.5))
    expected = c.c_skip * x.float() + c.c_out * seen.out.float()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_options_combine(network):
    both = prepare(network, Compute(precision="bf16", channels_last=True))
    assert relative(denoised(both, 1.0), denoised(network, 1.0)) <= 4e-2


def test_other_networks_can_be_prepared_too(small, torch_rng):
    x = torch.randn((3, 1, 4, 4), generator=torch_rng)
    expected = small(x, 1.0)
    assert 1e-5 < relative(prepare(small, BF16)(x, 1.0), expected) <= 4e-2
    assert relative(prepare(small, CHANNELS_LAST)(x, 1.0), expected) <= 1e-5


def test_channels_last_refuses_an_ensemble(small, torch_rng):
    x = torch.randn((1, 3, 1, 4, 4), generator=torch_rng)
    with pytest.raises(ConfigError, match=r"channels_last: expected images \(B, C, H, W\), got 5"):
        prepare(small, CHANNELS_LAST)(x, 1.0)


def test_tf32_without_cuda_is_refused(small):
    with pytest.raises(ConfigError, match=r"tf32 exists on CUDA devices only .* is on cpu"):
        prepare(small, Compute(precision="tf32"))


def test_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="expected one of float32, tf32, bf16, got 'fp16'"):
        Compute(precision="fp16")


@pytest.mark.slow
def test_compiled_network_changes_rounding_only(small, torch_rng):
    compiled = prepare(small, Compute(compile=True))
    for batch in (4, 3):
        x = torch.randn((batch, 1, 4, 4), generator=torch_rng)
        assert relative(compiled(x, 1.0), small(x, 1.0)) <= 1e-5
    assert list(compiled.state_dict()) == list(small.state_dict())
    mixed = prepare(small, Compute(compile=True, precision="bf16"))
    assert 1e-5 < relative(mixed(x, 1.0), small(x, 1.0)) <= 4e-2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_flags_of_tf32_are_set_around_the_call_only(network):
    def flags():
        return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32

    network.cuda()
    x = torch.randn((4, *network.image_shape), device="cuda")
    labels = labels_of(network, 4)
    labels = None if labels is None else labels.cuda()
    before, exact = flags(), prepare(network, Compute())(x, 1.0, labels)
    rounded = prepare(network, Compute(precision="tf32"))(x, 1.0, labels)
    assert flags() == before
    # TF32 has 10 bits of mantissa, 5e-4; a float32 network differs from itself by nothing.
    assert 1e-6 < relative(rounded.cpu(), exact.cpu()) <= 1e-2
    on_cpu = network.cpu()(x.cpu(), 1.0, None if labels is None else labels.cpu())
    assert relative(exact.cpu(), on_cpu) <= 1e-5
