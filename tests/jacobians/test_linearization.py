"""The Jacobian of a denoiser: both modes, any block, any batch, against the closed forms."""

from __future__ import annotations

import pytest
import torch

from regimes.denoisers.closed_form import EmpiricalDenoiser, WienerDenoiser
from regimes.denoisers.molrg import LowRankMixture, MoLRGDenoiser
from regimes.denoisers.pipelines import PipelineDenoiser
from regimes.denoisers.preconditioning import EDM, Denoiser
from regimes.denoisers.residual_mlp import ResidualMLP
from regimes.denoisers.unet.build import build_denoiser
from regimes.images.molrg import MoLRG
from regimes.jacobians import linearization
from regimes.jacobians.linearization import Dense, Linearization, full_jacobian


def unet(labels=0, **options):
    torch.manual_seed(0)
    config = {
        "preconditioning": "EDMPrecond",
        "model_type": "SongUNet",
        "img_resolution": 4,
        "img_channels": 3,
        "label_dim": labels,
        "model_channels": 8,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
        "dropout": 0.5,
    }
    denoiser = build_denoiser(config | options)
    for parameter in denoiser.parameters():  # some start at almost 0, which would hide errors
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
    return denoiser.eval().requires_grad_(False)


def mlp():
    network = ResidualMLP((3, 4, 4), 16, blocks=2)
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5, generator=generator)
    return Denoiser(network, EDM()).eval().requires_grad_(False)


def empirical():
    return EmpiricalDenoiser(torch.randn(9, 3, 4, 4, generator=torch.Generator().manual_seed(2)))


def molrg():
    config = MoLRG()
    return MoLRGDenoiser(config.bases(), config.image_shape)


def learned():
    return LowRankMixture((3, 4, 4), 2, 3, torch.Generator().manual_seed(3)).requires_grad_(False)


MODELS = {
    "unet": unet,
    "dhariwal": lambda: unet(model_type="DhariwalUNet"),
    "vp": lambda: unet(preconditioning="VPPrecond"),
    "mlp": mlp,
    "empirical": empirical,
    "molrg": molrg,
    "low-rank": learned,
}


def noisy(points=2):
    return torch.randn(points, 3, 4, 4, generator=torch.Generator().manual_seed(5))


def by_loop(denoiser, x, sigma, labels=None):
    """One gradient per output, for one point: the published way."""
    x = x[None].to(denoiser(x[None], torch.tensor(sigma), labels).dtype).requires_grad_()
    y = denoiser(x, torch.tensor(sigma, dtype=torch.float64), labels).flatten()
    rows = [torch.autograd.grad(v, x, retain_graph=True)[0].flatten() for v in y]
    return torch.stack(rows)


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_reverse_mode_agree_with_one_gradient_per_output(name):
    denoiser, x, sigma = MODELS[name](), noisy(), 0.7
    local = Linearization(denoiser, x, sigma)
    modes = [full_jacobian(local, local.value, mode=m) for m in ("forward", "reverse")]
    expected = torch.stack([by_loop(denoiser, point, sigma) for point in x])
    assert float(expected.abs().max()) > 1e-2
    for found in modes:
        assert found.dtype == expected.dtype
        # Float32 networks: sums of a thousand terms round by 1e-6.
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_blocks_and_batches_change_nothing_but_rounding():
    denoiser, x = unet(), noisy(3)
    whole = Linearization(denoiser, x, 0.7, block=48)
    expected = full_jacobian(whole, whole.value)
    blocked = Linearization(denoiser, x, 0.7, block=5)
    torch.testing.assert_close(full_jacobian(blocked, x), expected, rtol=1e-5, atol=1e-5)
    alone = Linearization(denoiser, x[1:2], 0.7)
    torch.testing.assert_close(full_jacobian(alone, x)[0], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("room", [1, 2**22, 2**40])
def test_the_kept_forward_pass_fits_its_room(monkeypatch, room):
    """Weights are held once and do not count: else this network would leave no room for a copy."""
    denoiser, x = unet(model_channels=64), noisy(2)
    expected = full_jacobian(Linearization(denoiser, x, 0.7), x)
    monkeypatch.setitem(linearization.KEPT_BYTES, "cpu", room)
    batches, kept = [], []

    def watched(x, sigma, labels=None):
        batches.append(len(x))
        return denoiser(x, sigma, labels)

    local = Linearization(watched, x, 0.7, block=16)
    found = full_jacobian(local, x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        denoiser(noisy(max(batches)).requires_grad_(), torch.tensor(0.7))
    weights = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in kept}
    assert sum(n for at, n in storages.items() if at in weights) > 2**20
    grown = sum(n for at, n in storages.items() if at not in weights)
    if room == 2**22:
        assert 4 < max(batches) < 32
        assert grown < 1.1 * room
    else:
        assert max(batches) == {1: 4, 2**40: 32}[room]  # two copies of two points to measure


def test_products_are_those_of_the_matrix():
    local = Linearization(unet(), noisy(), 0.7)
    held = Dense(full_jacobian(local, local.value))
    v = torch.randn(2, 7, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(local.push(v), held.push(v), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(local.pull(v), held.pull(v), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(
        held.push(v), held.pull(v), atol=1e-2
    )  # the network's is not symmetric


def test_the_class_reaches_the_derivative():
    denoiser, x = unet(labels=3), noisy(1)
    jacobians = []
    for k in (0, 2):
        labels = torch.eye(3)[[k]]
        local = Linearization(denoiser, x, 0.7, labels)
        found = full_jacobian(local, local.value)
        expected = by_loop(denoiser, x[0], 0.7, labels)
        torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-5)
        jacobians.append(found)
    assert float((jacobians[0] - jacobians[1]).abs().max()) > 1e-3


def test_the_jacobian_of_the_wiener_filter_is_its_matrix():
    images = torch.randn(30, 3, 4, 4, generator=torch.Generator().manual_seed(6))
    denoiser = WienerDenoiser(images)
    local = Linearization(denoiser, noisy(), 0.5)
    shrink = denoiser.variances / (denoiser.variances + 0.25)
    expected = denoiser.basis.T @ torch.diag(shrink) @ denoiser.basis
    for mode in ("forward", "reverse"):
        found = full_jacobian(local, local.value, mode=mode)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected.expand(2, -1, -1), rtol=0, atol=1e-12)


def test_the_jacobian_of_the_empirical_denoiser_is_the_posterior_covariance():
    denoiser, x, sigma = empirical(), noisy(1), 1.3
    local = Linearization(denoiser, x, sigma)
    y = denoiser.y
    weights = (-((x.flatten(1).double() - y) ** 2).sum(1) / (2 * sigma**2)).softmax(0)
    centred = y - weights @ y
    expected = (centred.T * weights) @ centred / sigma**2
    found = full_jacobian(local, local.value)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_both_modes_work_on_a_diffusers_model_with_attention():
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=4,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        layers_per_block=1,
        attention_head_dim=4,
    )
    abar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    denoiser = PipelineDenoiser(network, abar, "epsilon").eval().requires_grad_(False)
    x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    sigma = float(denoiser.round_sigma(torch.tensor(0.7, dtype=torch.float64)))
    local = Linearization(denoiser, x, sigma)
    expected = torch.stack([by_loop(denoiser, point, sigma) for point in x])
    for mode in ("forward", "reverse"):
        found = full_jacobian(local, local.value, mode=mode)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
