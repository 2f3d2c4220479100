"""The training job as a user runs it: one network, on one or several workers."""

from __future__ import annotations

import functools
import json
import re
import signal
import time

import job_runs
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from regimes.checkpoints import load_safetensors
from regimes.images.pixels import to_uint8
from regimes.jobs import train
from regimes.jobs.support.train.experiment import TrainExperiment, make_plan
from regimes.samplers.edm import SamplerConfig, sample_seeds
from regimes.storage.artifacts import Store
from regimes.storage.networks import network_checkpoint
from regimes.training.architectures import NetworkConfig
from regimes.training.network import EDMTrainingConfig

SMALL = (
    *("--source", "digits", "--max-images", "32", "--width", "8", "--channel-mult", "1"),
    *("--num-blocks", "1", "--attn-resolutions", "8", "--batch-size", "16"),
    *("--lr-rampup-kimg", "0.2", "--ema-halflife-kimg", "0.1", "--name", "small"),
)
STEPS = 40
NETWORK = NetworkConfig(width=8, channel_mult=(1,), num_blocks=1, attn_resolutions=(8,))
TRAINING = EDMTrainingConfig(
    batch_size=16, duration_kimg=0.64, lr_rampup_kimg=0.2, ema_halflife_kimg=0.1
)
SHORT = (*SMALL, "--duration-kimg", "0.64")


def run(output, *options, expect=0):
    return job_runs.run_job("train", *SHORT, "--output", str(output), *options, expect=expect)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Output folder and text of a run in one process."""
    output = tmp_path_factory.mktemp("train")
    return output, run(output)


def weights(output):
    return load_safetensors(output / "train/small/model.safetensors").state_dict()


def test_job_says_what_it_did(finished):
    _, text = finished
    lines = text.splitlines()
    assert lines[0].startswith("images    1797 read; 32 to train on")
    assert lines[1].startswith(f"train     w8-n32-A trained: {STEPS} steps, loss ")
    assert lines[2].startswith("sample    64 images of seeds 0-63")
    assert len(lines) == 4


def test_result_folder_holds_model_curve_samples_and_configuration(finished):
    folder = finished[0] / "train/small"
    curve = pq.read_table(folder / "training.parquet").to_pydict()
    assert curve["step"] == list(range(1, STEPS + 1))
    assert curve["kimg"][-1] == pytest.approx(0.64)
    events = EventAccumulator(str(folder / "tensorboard/w8-n32-A"))
    events.Reload()
    scalars = [(e.step, e.value) for e in events.Scalars("train/loss")]
    assert scalars == list(zip(curve["step"], curve["loss"]))
    assert [e.step for e in events.Images("samples")] == [0]
    recipe = json.loads((folder / "config.json").read_text())["recipe"]["network"]
    assert recipe["network"]["width"] == 8
    assert recipe["training"]["batch_size"] == 16


def test_sheet_shows_the_averaged_network_s_samples(finished):
    folder = finished[0] / "train/small"
    net = load_safetensors(folder / "model.safetensors")
    # The same batches as the job's: a batch changes samples by rounding.
    samples = sample_seeds(net, range(64), net.image_shape, config=SamplerConfig(), batch_size=16)
    sheet = np.asarray(Image.open(folder / "samples.png"))
    zoomed = sheet.reshape(8, 9 * 4, 8, 9 * 4)[:, :32:4, :, :32:4].transpose(0, 2, 1, 3)
    expected = to_uint8(samples)[..., 0].reshape(8, 8, 8, 8)
    # One thread or two: rounding may move a value across a level.
    assert np.abs(zoomed.astype(int) - expected).max() <= 1
    assert expected.std() > 10


def test_second_run_computes_nothing(finished):
    output, _ = finished
    before = job_runs.artifact_bytes(output)
    text = run(output)
    assert text.startswith("complete: nothing to compute")
    assert job_runs.artifact_bytes(output) == before


def test_another_network_under_the_same_name_is_refused(finished):
    text = run(finished[0], "--seed", "1", expect=1)
    assert "holds another network; choose another --name, or pass --no-resume" in text
    assert len(text.splitlines()) == 1


def test_interrupted_run_goes_on_and_ends_with_the_same_bytes(finished, tmp_path):
    long = (
        *SMALL,
        "--duration-kimg",
        "2.4",
        "--checkpoint-kimg",
        "0.16",
        "--output",
        str(tmp_path),
    )
    process = job_runs.start_job("train", *long)
    job_runs.wait_for(lambda: list((tmp_path / "checkpoints").rglob("state.safetensors")), process)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "terminated; the same command goes on from here" in text
    assert not list(tmp_path.rglob("weights.safetensors"))
    (curve,) = tmp_path.glob("train/small/tensorboard/*/events*")
    job_runs.run_job("train", *long)
    assert not list((tmp_path / "checkpoints").rglob("state.safetensors"))
    whole = tmp_path / "whole"
    job_runs.run_job("train", *long[:-1], str(whole))
    interrupted = (tmp_path / "train/small/model.safetensors").read_bytes()
    assert interrupted == (whole / "train/small/model.safetensors").read_bytes()
    assert curve.read_bytes() == (whole / curve.relative_to(tmp_path)).read_bytes()


def test_two_workers_train_the_network_that_one_process_trains(finished, tmp_path):
    text = run(tmp_path, "--workers", "2", "--device", "cpu")
    assert f"trained: {STEPS} steps" in text
    assert "Traceback" not in text
    one, two = weights(finished[0]), weights(tmp_path)
    assert one.keys() == two.keys()
    difference = sum(float((one[n] - two[n]).square().sum()) for n in one) ** 0.5
    size = sum(float(one[n].square().sum()) for n in one) ** 0.5
    # Adam turns the rounding of a vanishing gradient into steps of up to the rate.
    assert difference < 0.01 * size
    losses = [
        pq.read_table(folder / "train/small/training.parquet")["loss"].to_numpy()
        for folder in (finished[0], tmp_path)
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


def test_killed_worker_is_replaced_and_training_goes_on(tmp_path):
    options = (*SMALL, "--duration-kimg", "4.8", "--checkpoint-kimg", "0.16")
    options = (*options, "--output", str(tmp_path), "--workers", "2", "--device", "cpu")
    process = job_runs.start_job("train", *options)
    job_runs.wait_for(lambda: list((tmp_path / "checkpoints").rglob("state.safetensors")), process)
    victims = job_runs.wait_for(lambda: job_runs.workers(process, "RayTrainWorker"), process)
    victims[-1].kill()
    text = job_runs.finish(process, 0)
    assert "trained: 300 steps" in text
    assert "Traceback" not in text
    curve = pq.read_table(tmp_path / "train/small/training.parquet").to_pydict()
    assert curve["step"] == list(range(1, 301))


@pytest.mark.slow
def test_workers_may_be_killed_more_than_three_times_as_training_gets_further(tmp_path):
    options = (*SMALL, "--duration-kimg", "64", "--checkpoint-kimg", "1.6")
    options = (*options, "--output", str(tmp_path), "--workers", "2", "--device", "cpu")
    process = job_runs.start_job("train", *options)

    def checkpoint_after(time_ns):
        states = (tmp_path / "checkpoints").rglob("state.safetensors")
        return [path for path in states if path.stat().st_mtime_ns > time_ns]

    for _ in range(6):
        now = time.time_ns()
        job_runs.wait_for(functools.partial(checkpoint_after, now), process)
        job_runs.workers(process, "RayTrainWorker")[-1].kill()
    text = job_runs.finish(process, 0)
    assert "trained: 4,000 steps" in text
    assert "Traceback" not in text


def test_what_stops_the_workers_is_said_in_one_line(tmp_path):
    experiment = TrainExperiment(source="digits", max_images=32, network=NETWORK, training=TRAINING)
    recipe = make_plan(experiment).recipe.network
    network_checkpoint(Store(str(tmp_path)), recipe).write("state.safetensors", b"cut short")
    text = run(tmp_path, "--workers", "2", "--device", "cpu", expect=1)
    lines = [line for line in text.splitlines() if not line.startswith("images")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {tmp_path}/checkpoints/{recipe.address}/state.safetensors")
    assert "delete it and run the same command again" in lines[0]


def test_more_workers_than_cpus_are_refused(tmp_path):
    options = (*SHORT, "--output", str(tmp_path), "--workers", "4000", "--device", "cpu")
    # In a process and a Ray of its own: a cluster may start more nodes.
    text = job_runs.finish(job_runs.start_job("train", *options), expect=1)
    assert re.search(r"^error: workers: expected at most \d+, the CPUs of this machine", text, re.M)
    assert "Traceback" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "--source: expected images"),
        (("--source", "digits", "--max-images", "1798"), "--max-images: expected at most 1797"),
        (("--source", "digits", "--max-images", "0"), "--max-images: expected at least 1, got 0"),
        (("--source", "digits", "--workers", "0"), "--workers: expected at least 1, got 0"),
        (("--source", "digits", "--microbatch", "0"), "--microbatch: expected at least 1, got 0"),
        (("--source", "digits", "--checkpoint-kimg", "0"), "--checkpoint-kimg: expected a number"),
        (("--source", "digits", "--name", "a/b"), "--name a/b: expected letters"),
        (
            ("--source", "digits", "--channel-mult", "1", "1", "1", "1", "1"),
            "img_resolution: expected a multiple of 16 for 5 levels, got 8",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(options, message, capsys, tmp_path):
    status = train.main([*options, "--output", str(tmp_path), "--dry-run"])
    printed = capsys.readouterr()
    assert status == 1
    assert printed.err.startswith(f"error: {message}")
    assert len(printed.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_images_that_are_not_square_are_refused_with_the_remedy(capsys, tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((4, 8, 12, 1), np.uint8))
    assert train.main(["--source", str(tmp_path / "wide.npy"), "--output", str(tmp_path)]) == 1
    assert "found 12x8; pass --image-size to crop" in capsys.readouterr().err


def test_source_without_classes_cannot_be_conditional(capsys, tmp_path):
    np.save(tmp_path / "some.npy", np.zeros((4, 8, 8, 1), np.uint8))
    options = ["--source", str(tmp_path / "some.npy"), "--output", str(tmp_path), "--conditional"]
    assert train.main(options) == 1
    assert "--conditional: the source does not say the class" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_writes_nothing(capsys, tmp_path):
    assert train.main([*SHORT, "--output", str(tmp_path), "--dry-run", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "images",
        "network",
        "train",
        "time",
        "storage",
        "results",
    ]
    assert f"{STEPS} steps of 16 images, 20 passes over the images" in lines[2]
    assert "not counted" in lines[3]
    assert not list(tmp_path.iterdir())


def test_classes_of_the_digits_are_learned_as_such(capsys, tmp_path):
    short = ("--duration-kimg", "0.032", "--conditional")
    assert train.main([*SMALL, *short, "--output", str(tmp_path), "--device", "cpu"]) == 0
    net = load_safetensors(tmp_path / "train/small/model.safetensors")
    assert net.label_dim == 10
    x = torch.zeros((1, 1, 8, 8))
    assert not torch.equal(net(x, 1.0, torch.eye(10)[:1]), net(x, 1.0, torch.eye(10)[1:2]))


def test_defaults_are_the_published_ones():
    experiment = TrainExperiment()
    assert (experiment.training.batch_size, experiment.training.duration_kimg) == (512, 200_000)
    assert (experiment.network.arch, experiment.network.dropout) == ("ddpmpp", 0.13)
