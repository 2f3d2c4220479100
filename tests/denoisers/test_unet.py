"""The U-Nets of EDM: layers against plain formulas in float64, and laws of the whole networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from regimes.denoisers.preconditioning import EDM, VP
from regimes.denoisers.unet import UNetDenoiser, build_denoiser
from regimes.denoisers.unet.block import BlockConfig, UNetBlock
from regimes.denoisers.unet.layers import (
    Conv2d,
    FourierEmbedding,
    GroupNorm,
    Init,
    Linear,
    PositionalEmbedding,
)
from regimes.errors import ConfigError

DDPMPP = {
    "preconditioning": "EDMPrecond",
    "img_resolution": 32,
    "img_channels": 3,
    "model_type": "SongUNet",
    "augment_dim": 9,
    "model_channels": 128,
    "channel_mult": [2, 2, 2],
}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "channel_mult_noise": 2,
    "resample_filter": [1, 3, 3, 1],
}
TINY = {"img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1}
NETWORKS = {
    "ddpmpp": {},
    "ncsnpp": NCSNPP,
    "skip-skip": {**NCSNPP, "encoder_type": "skip", "decoder_type": "skip"},
    "standard-skip": {"decoder_type": "skip", "num_blocks": 2, "channel_mult": [1, 2, 3]},
    "adm": {"model_type": "DhariwalUNet", "model_channels": 32, "attn_resolutions": [4]},
}


def tiny(name="ddpmpp", *, random=True, **changes):
    torch.manual_seed(11)
    denoiser = build_denoiser({**DDPMPP, **TINY, "label_dim": 3, **NETWORKS[name], **changes})
    for parameter in denoiser.parameters() if random else ():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


def arguments(denoiser, batch=2):
    generator = torch.Generator().manual_seed(5)
    x = torch.randn((batch, *denoiser.image_shape), generator=generator)
    return x, torch.linspace(0.3, 5, batch), torch.eye(max(denoiser.label_dim, batch))[:batch, :3]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model_channels": 64}, 13_956_931),
        ({}, 55_733_891),
        ({"model_channels": 256}, 222_747_907),
        (NCSNPP, 56_397_827),
        ({"img_resolution": 64, "channel_mult": [1, 2, 2, 2]}, 61_805_571),
    ],
)
def test_published_networks_have_the_published_number_of_parameters(changes, expected):
    with torch.device("meta"):
        denoiser = build_denoiser({**DDPMPP, **changes})
    assert sum(p.numel() for p in denoiser.parameters()) == expected


def test_ddpmpp_has_the_published_modules():
    with torch.device("meta"):
        network = build_denoiser(DDPMPP).network
    assert (len(network.enc), len(network.dec)) == (15, 21)
    last = [network.dec[f"32x32_block{i}"] for i in range(5)]
    assert [b.in_channels for b in last] == [512, 512, 512, 512, 384]
    assert {b.out_channels for b in last} == {256}
    attending = [k for part in (network.enc, network.dec) for k, b in part.items()
                 if getattr(b, "num_heads", 0)]  # fmt: skip
    encoder = [f"16x16_block{i}" for i in range(4)]
    assert attending == [*encoder, "8x8_in0", "16x16_block4"]


def random_image(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def naive_conv(x, weight, padding):
    """Cross-correlation by its definition; x (B, C, H, W), weight (O, C, k, k)."""
    x = np.pad(x.numpy(), [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    k = weight.shape[-1]
    height, width = x.shape[2] - k + 1, x.shape[3] - k + 1
    out = np.zeros((len(x), len(weight), height, width))
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + height, j : j + width]
            out += np.einsum("bchw,oc->bohw", patch, weight[:, :, i, j].detach().numpy())
    return torch.from_numpy(out)


def naive_down(x, taps, padding):
    """Filter every channel, keep every second pixel."""
    taps = np.asarray(taps, np.float64) / np.sum(taps)
    weight = torch.from_numpy(np.outer(taps, taps)[None, None])
    rows = [naive_conv(x[:, c : c + 1], weight, padding) for c in range(x.shape[1])]
    return torch.cat(rows, 1)[:, :, ::2, ::2]


def naive_up(x, taps):
    """Put zeros between the pixels, filter with gain 4, crop to twice the size."""
    taps = np.asarray(taps, np.float64) / np.sum(taps)
    size = len(taps)
    spread = torch.zeros((*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]), dtype=x.dtype)
    spread[:, :, ::2, ::2] = x
    weight = torch.from_numpy(4 * np.outer(taps, taps)[None, None])
    rows = [naive_conv(spread[:, c : c + 1], weight, size - 1) for c in range(x.shape[1])]
    start = (size - 1) // 2
    return torch.cat(rows, 1)[:, :, start : start + 2 * x.shape[2], start : start + 2 * x.shape[3]]


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
def test_resampling_is_filtering_with_the_taps(taps):
    x, padding = random_image((2, 3, 6, 8)), (len(taps) - 1) // 2
    down = Conv2d(3, 3, 0, down=True, resample_filter=taps).double()
    up = Conv2d(3, 3, 0, up=True, resample_filter=taps).double()
    torch.testing.assert_close(down(x), naive_down(x, taps, padding))
    torch.testing.assert_close(up(x), naive_up(x, taps))


def test_two_equal_taps_repeat_pixels_and_average_them():
    x = random_image((1, 2, 4, 4))
    up, down = Conv2d(2, 2, 0, up=True).double(), Conv2d(2, 2, 0, down=True).double()
    torch.testing.assert_close(up(x), x.repeat_interleave(2, 2).repeat_interleave(2, 3))
    torch.testing.assert_close(down(x), functional.avg_pool2d(x, 2))


@pytest.mark.parametrize("taps", [[1, 1], [1, 3, 3, 1]])
@pytest.mark.parametrize("fused", [False, True])
def test_resampling_convolutions_filter_before_or_after(taps, fused):
    x, f_pad = random_image((2, 3, 6, 6)), (len(taps) - 1) // 2
    options = {"resample_filter": taps, "fused_resample": fused}
    down = Conv2d(3, 4, 3, down=True, **options).double()
    up = Conv2d(3, 4, 3, up=True, **options).double()
    torch.nn.init.normal_(down.bias)
    bias = down.bias[:, None, None].detach()
    # Going down, fusion filters the wider output of the convolution; going up it changes nothing.
    expected = (
        naive_down(naive_conv(x, down.weight, 1 + f_pad), taps, 0)
        if fused
        else naive_conv(naive_down(x, taps, f_pad), down.weight, 1)
    )
    torch.testing.assert_close(down(x).detach(), expected + bias)
    found = up(x).detach()
    assert found.shape == (2, 4, 12, 12)
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(found[inside], naive_conv(naive_up(x, taps), up.weight, 1)[inside])


def test_convolution_cannot_go_both_ways():
    with pytest.raises(ValueError, match="up, down"):
        Conv2d(3, 3, 3, up=True, down=True)


@pytest.mark.parametrize(("channels", "groups"), [(8, 2), (64, 16), (128, 32), (512, 32)])
def test_group_norm_normalizes_groups_of_at_least_4_channels(channels, groups):
    x = random_image((2, channels, 3, 3))
    norm = GroupNorm(channels, eps=1e-6).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    grouped = x.reshape(2, groups, -1)
    mean, var = grouped.mean(-1, keepdim=True), grouped.var(-1, keepdim=True, correction=0)
    expected = ((grouped - mean) / (var + 1e-6).sqrt()).reshape(x.shape)
    expected = expected * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize("endpoint", [False, True])
def test_positional_embedding_has_the_frequencies_of_the_formula(endpoint):
    c_noise = torch.tensor([-0.5, 0.0, 3.0])
    frequencies = 10000.0 ** (-np.arange(8) / (8 - endpoint))
    angles = c_noise.numpy()[:, None] * frequencies
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    found = PositionalEmbedding(16, endpoint=endpoint)(c_noise)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_fourier_embedding_has_the_stored_frequencies():
    embedding = FourierEmbedding(16)
    c_noise = torch.tensor([-0.5, 0.0, 1.0])
    angles = 2 * np.pi * c_noise.numpy()[:, None] * embedding.freqs.double().numpy()
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(embedding(c_noise), expected, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_softmax_of_scaled_products_in_the_published_channel_order(heads):
    torch.manual_seed(0)
    config = BlockConfig(emb_channels=4, num_heads=heads, init=Init(), init_zero=Init())
    block = UNetBlock(16, 16, config, attention=True).double()
    y = random_image((2, 16, 3, 5))
    qkv = block.qkv(block.norm2(y)).detach().numpy().reshape(2, 48, 15)
    expected = np.zeros((2, 16, 15))
    width = 16 // heads
    for head in range(heads):
        start = head * width * 3
        q, k, v = (qkv[:, start + i : start + 3 * width : 3] for i in range(3))
        scores = np.einsum("bcq,bck->bqk", q, k) / math.sqrt(width)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = np.einsum("bqk,bck->bcq", weights, v)
        expected[:, head * width : (head + 1) * width] = attended
    attended = torch.from_numpy(expected.reshape(2, 16, 3, 5))
    torch.testing.assert_close(block._attend(y), block.proj(attended))


@pytest.mark.parametrize("adaptive", [False, True])
def test_block_is_the_formula_of_its_module(adaptive):
    torch.manual_seed(0)
    config = BlockConfig(
        emb_channels=6, skip_scale=0.7, adaptive_scale=adaptive, init=Init(), init_zero=Init()
    )
    block = UNetBlock(8, 12, config).double()
    x, emb, silu = random_image((2, 8, 4, 4)), random_image((2, 6), 1), functional.silu
    h = block.conv0(silu(block.norm0(x)))
    e = block.affine(emb)[:, :, None, None]
    modulated = block.norm1(h) * (1 + e[:, :12]) + e[:, 12:] if adaptive else block.norm1(h + e)
    expected = 0.7 * (block.conv1(silu(modulated)) + block.skip(x))
    torch.testing.assert_close(block(x, emb), expected)


@pytest.mark.parametrize(
    ("init", "shape", "std"),
    [
        (Init(mode="xavier_uniform"), (100, 300), math.sqrt(2 / 400)),
        (Init(mode="kaiming_uniform", weight=0.5), (100, 300), 0.5 / math.sqrt(300)),
        (Init(mode="kaiming_normal", weight=2.0), (100, 300), 2 / math.sqrt(300)),
    ],
)
def test_initial_weights_have_the_published_spread(init, shape, std):
    torch.manual_seed(0)
    layer = Linear(shape[1], shape[0], init=init)
    # 30,000 draws: the standard error of the spread is below 0.5%.
    assert float(layer.weight.detach().std()) == pytest.approx(std, rel=0.02)
    assert not layer.bias.any()
    if init.mode != "kaiming_normal":
        assert float(layer.weight.detach().abs().max()) <= std * math.sqrt(3)


def test_convolution_fans_count_the_kernel():
    torch.manual_seed(0)
    layer = Conv2d(20, 30, 3, init=Init(mode="xavier_uniform"))
    assert float(layer.weight.detach().std()) == pytest.approx(math.sqrt(2 / 450), rel=0.05)


def test_initial_adm_predicts_nothing_and_initial_ddpmpp_almost_nothing():
    for name, bound in (("adm", 0.0), ("ddpmpp", 1e-3)):
        denoiser = tiny(name, random=False).eval()
        x, sigma, labels = arguments(denoiser)
        raw = denoiser.network(x, sigma, labels)
        assert float(raw.detach().abs().max()) <= bound


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_takes_part_in_the_output(name):
    denoiser = tiny(name)
    x, sigma, labels = arguments(denoiser)
    out = denoiser(x, sigma, labels, torch.ones(2, 9))
    assert out.shape == x.shape
    (out**2).sum().backward()
    idle = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", NETWORKS)
def test_each_sample_is_denoised_on_its_own(name):
    denoiser = tiny(name).eval()
    x, sigma, labels = arguments(denoiser, batch=3)
    together = denoiser(x, sigma, labels)
    for i in range(3):
        alone = denoiser(x[i : i + 1], sigma[i], labels[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["ddpmpp", "adm"])
def test_missing_labels_and_augmentation_are_zeros(name):
    denoiser = tiny(name).eval()
    x, sigma, labels = arguments(denoiser)
    bare = denoiser(x, sigma)
    assert torch.equal(bare, denoiser(x, sigma, torch.zeros(2, 3)))
    assert torch.equal(bare, denoiser(x, sigma, None, torch.zeros(2, 9)))
    assert not torch.allclose(bare, denoiser(x, sigma, labels))
    assert not torch.allclose(bare, denoiser(x, sigma, None, torch.ones(2, 9)))


@pytest.mark.parametrize("name", ["ddpmpp", "adm"])
def test_dropout_and_label_dropout_act_in_training_only(name):
    denoiser = tiny(name, dropout=0.5, label_dropout=1.0)
    x, sigma, labels = arguments(denoiser)
    assert not torch.equal(denoiser(x, sigma, labels), denoiser(x, sigma, labels))
    denoiser.eval()
    assert torch.equal(denoiser(x, sigma, labels), denoiser(x, sigma, labels))
    certain = tiny(name, dropout=0.0, label_dropout=1.0)
    assert torch.equal(certain(x, sigma, labels), certain(x, sigma))
    assert not torch.equal(certain.eval()(x, sigma, labels), certain(x, sigma))


def test_unconditional_network_ignores_labels_as_edm_does():
    denoiser = tiny(label_dim=0, augment_dim=0).eval()
    x, sigma, labels = arguments(denoiser)
    assert torch.equal(denoiser(x, sigma, labels), denoiser(x, sigma))


def test_noise_levels_may_come_with_the_axes_of_images():
    denoiser = tiny().eval()
    x, sigma, labels = arguments(denoiser)
    assert torch.equal(denoiser(x, sigma.reshape(-1, 1, 1, 1), labels), denoiser(x, sigma, labels))


def test_labels_that_the_network_does_not_know_are_refused():
    denoiser = tiny(label_dim=0, augment_dim=0)
    x, sigma, _ = arguments(denoiser)
    with pytest.raises(ValueError, match="augment_labels"):
        denoiser(x, sigma, None, torch.zeros(2, 9))
    with pytest.raises(ValueError, match=r"expected \(2, 3\), got \(2, 4\)"):
        tiny()(x, sigma, torch.eye(4)[:2])


def test_iddpm_keeps_the_first_half_of_the_output_channels():
    denoiser = tiny("adm", preconditioning="iDDPMPrecond", M=50).eval()
    x, _, labels = arguments(denoiser)
    sigma = denoiser.preconditioning.u[30].expand(2)
    c_in = 1 / (sigma**2 + 1).sqrt()
    raw = denoiser.network(c_in[:, None, None, None] * x, torch.full((2,), 19.0), labels)
    assert raw.shape == (2, 6, 8, 8)
    expected = x - sigma[:, None, None, None] * raw[:, :3]
    torch.testing.assert_close(denoiser(x, sigma, labels), expected, rtol=1e-4, atol=1e-5)


def test_defaults_are_those_of_the_published_constructors():
    base = {"img_resolution": 32, "img_channels": 3}
    with torch.device("meta"):
        edm = build_denoiser({"preconditioning": "EDMPrecond", **base})
        vp = build_denoiser({"preconditioning": "VPPrecond", "beta_d": 10, **base})
    assert isinstance(edm, UNetDenoiser)
    assert (edm.preconditioning, vp.preconditioning) == (EDM(), VP(beta_d=10.0))
    assert (edm.config["model_type"], vp.config["model_type"]) == ("DhariwalUNet", "SongUNet")
    assert edm.network.config.attn_resolutions == (32, 16, 8)
    assert vp.network.config.channel_mult == (1, 2, 2, 2)
    assert edm.label_dim == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"preconditioning": "Evil"}, "preconditioning: expected one of"),
        ({"preconditioning": None}, "preconditioning"),
        ({"img_resolution": 12, "channel_mult": [1, 1, 1, 1]}, "multiple of 8"),
        ({"label_dim": True}, "label_dim"),
        ({"dropout": 1.5}, "dropout"),
        ({"channel_mult": "12"}, "channel_mult"),
        ({"channel_mult": []}, "channel_mult"),
        ({"resample_filter": [0, 1]}, "resample_filter"),
        ({"wings": 2}, "wings"),
        ({"preconditioning": "iDDPMPrecond", "M": 10**6}, "M: expected"),
        ({"model_channels": 6}, "18 channels cannot be normalized in 4 groups"),
        ({"model_channels": 5}, "expected an even width of the noise embedding, got 5"),
        ({"resample_filter": [1, 2, 1]}, "resample_filter: expected an even number of taps, got 3"),
        (
            {"model_type": "DhariwalUNet", "model_channels": 224, "attn_resolutions": [8]},
            "224 channels cannot attend with 3 heads",
        ),
    ],
)
def test_configurations_that_cannot_be_built_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        build_denoiser({**DDPMPP, **TINY, **changes})
