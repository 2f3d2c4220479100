"""Networks that continue clips: frames beside the noisy image, in network, training and sampling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from small_networks import CONFIG, NETWORK, make, some_images

from regimes.denoisers.preconditioning import ContinuedFrames
from regimes.denoisers.unet.build import build_denoiser, restore_denoiser
from regimes.errors import ConfigError
from regimes.samplers.edm import SamplerConfig, sample
from regimes.training.architectures import NetworkConfig
from regimes.training.batches import BatchStream
from regimes.training.loss import EDMLoss

WINDOWS = some_images(channels=3)
PLAIN = dataclasses.replace(CONFIG, augment=0.0)


def test_a_batch_holds_the_frames_before_without_noise_and_the_one_to_learn():
    stream = BatchStream(WINDOWS, batch_size=6, loss=EDMLoss(), seed=3, condition_channels=2)
    batch, index = stream.batch(4), stream.order(24, 30)
    levels = torch.from_numpy(WINDOWS[index]).permute(0, 3, 1, 2) / 127.5 - 1
    torch.testing.assert_close(batch.frames, levels[:, :2])
    torch.testing.assert_close(batch.y, levels[:, 2:])
    assert batch.noise.shape == batch.y.shape == (6, 1, 8, 8)
    torch.testing.assert_close(batch.slice(2, 4).frames, batch.frames[2:4])
    assert BatchStream(WINDOWS, batch_size=6, loss=EDMLoss(), seed=3).batch(0).frames is None


def test_augmentation_moves_all_frames_of_a_window_alike():
    same = np.repeat(some_images(), 3, axis=3)
    stream = BatchStream(
        same, batch_size=16, loss=EDMLoss(), seed=0, augment=1.0, condition_channels=2
    )
    batch = stream.batch(0)
    torch.testing.assert_close(batch.frames[:, :1], batch.y)


def test_the_loss_is_that_of_the_formula_given_the_frames():
    """By hand, from table 1 of Karras et al. 2022, with the frames behind c_in x."""
    still = dataclasses.replace(NETWORK, dropout=0.0)
    trainer = make(images=WINDOWS, condition_channels=2, config=PLAIN, network=still)
    trainer.step()  # the output of a new network is nearly 0
    batch = trainer.batches.batch(0)
    network, s = trainer.denoiser.network, batch.sigma[:, None, None, None]
    x = batch.y + s * batch.noise
    total = s**2 + 0.25
    raw = network(torch.cat([x / total.sqrt(), batch.frames], 1), batch.sigma.log() / 4, None)
    D = 0.25 / total * x + s * 0.5 / total.sqrt() * raw
    expected = (total / (s * 0.5) ** 2 * (D - batch.y) ** 2).sum((1, 2, 3))
    torch.testing.assert_close(trainer._error(batch), expected, rtol=1e-4, atol=1e-5)


def test_frames_change_the_estimate_once_something_was_learned_and_microbatches_do_not():
    whole, cut = (
        make(images=WINDOWS, condition_channels=2, config=PLAIN, microbatch=m) for m in (None, 5)
    )
    for _ in range(4):
        whole.step()
        cut.step()
    a, b = whole.averaged_state(), cut.averaged_state()
    assert all(torch.allclose(a[n], b[n], atol=1e-4) for n in a)
    net = restore_denoiser(whole.denoiser.config, a)
    x, frames = torch.randn(2, 1, 8, 8), torch.rand(2, 2, 8, 8) * 2 - 1
    one, two = net(x, 1.0, condition=frames), net(x, 1.0, condition=-frames)
    assert one.shape == (2, 1, 8, 8)
    assert float((one - two).detach().abs().max()) > 0
    given = ContinuedFrames(net, frames)
    torch.testing.assert_close(given(x, 1.0), one)
    done = sample(given, torch.randn(2, 1, 8, 8), config=SamplerConfig(num_steps=3))
    assert done.shape == (2, 1, 8, 8)


def test_a_wrong_number_of_frames_is_refused():
    net = make(images=WINDOWS, condition_channels=2, config=PLAIN).denoiser
    x = torch.zeros(1, 1, 8, 8)
    for condition in (None, torch.zeros(1, 1, 8, 8)):
        with pytest.raises(ValueError, match="condition: expected 2 channels of frames, got"):
            net(x, 1.0, condition=condition)
    with pytest.raises(ValueError, match="expected 0 channels of frames, got 1"):
        make().denoiser(x, 1.0, condition=torch.zeros(1, 1, 8, 8))
    with pytest.raises(ConfigError, match="condition_channels: expected fewer than the 3"):
        make(images=WINDOWS, condition_channels=3)
    config = NETWORK.build_config(img_resolution=8, img_channels=1)
    with pytest.raises(ConfigError, match="condition_channels: expected 0 or more"):
        build_denoiser(config | {"condition_channels": -1})
    assert "condition_channels" not in config  # configurations of other networks stay as they are


def test_the_law_of_noise_levels_in_training_can_be_moved():
    high = make(config=dataclasses.replace(PLAIN, p_mean=1.0, p_std=0.5))
    sigma = torch.cat([high.batches.batch(i).sigma for i in range(100)]).log()
    assert float(sigma.mean()) == pytest.approx(1.0, abs=0.1)
    assert float(sigma.std()) == pytest.approx(0.5, abs=0.06)
    with pytest.raises(ConfigError, match="p_mean, p_std: are of precond edm; vp has its own"):
        make(config=dataclasses.replace(PLAIN, p_mean=0.0), network=NetworkConfig(precond="vp"))
    with pytest.raises(ConfigError, match="p_mean, p_std: expected numbers"):
        dataclasses.replace(PLAIN, p_std=0.0)
