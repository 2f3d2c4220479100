"""A run of feature extraction on Ray, for tests."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import threading
import time
from unittest import mock

import deadly
import numpy as np
import psutil

from regimes.actors import extraction
from regimes.actors.extraction import extract
from regimes.actors.runtime import RayRuntime
from regimes.descriptors.options import DescriptorOptions, find_network
from regimes.errors import find_cause
from regimes.images.sources import open_source
from regimes.storage.artifacts import Store
from regimes.storage.features import (
    DescriptorRecipe,
    FeaturesRecipe,
    SourceRecipe,
    fit_descriptor,
    import_weights,
)
from regimes.storage.images import ImagesRecipe
from regimes.storage.tables import write_shard


def run_deadly(store, images, runtime):
    """What becomes of a unit under which workers die: the error, and the shards that there are."""
    options = DescriptorOptions(descriptor="python:deadly:describe")
    config, path = find_network(options)
    network = DescriptorRecipe(name=config.name, network=config)
    import_weights(store, network, path)
    fit_descriptor(store, network)
    wanted = FeaturesRecipe(images=images, descriptor=network)
    before, extraction.ATTEMPTS = extraction.ATTEMPTS, 1  # starting workers takes a while
    error, logged = None, io.StringIO()
    try:
        with logs_of_ray_data(logged):
            extract(runtime, store, [wanted], on_unit=lambda: None)
    except Exception as raised:
        error = f"{type(raised).__name__}: {raised}"
    finally:
        extraction.ATTEMPTS = before
    return error, sorted(store.artifact(wanted).present()), logged.getvalue()


@contextlib.contextmanager
def logs_of_ray_data(stream):
    """What its logger would write to the screen."""
    handler = logging.StreamHandler(stream)
    logging.getLogger("ray.data").addHandler(handler)
    yield
    logging.getLogger("ray.data").removeHandler(handler)


def gone(word, seconds=10):
    """Whether the processes with a word end soon."""
    end = time.monotonic() + seconds
    while processes(word) and time.monotonic() < end:
        time.sleep(0.05)
    return not processes(word)


def descriptors(store, script):
    """A network and pixels, both ready in the store."""
    config, path = find_network(
        DescriptorOptions(descriptor=f"torchscript:{script}", resize="skew-16")
    )
    network = DescriptorRecipe(name=config.name, network=config)
    for recipe in (network, DescriptorRecipe(name="pixels")):
        import_weights(store, recipe, path)
        fit_descriptor(store, recipe)
    return network, DescriptorRecipe(name="pixels")


def numbered_images(store):
    """An artifact whose ids are seeds."""
    recipe = ImagesRecipe(fingerprint="seeds", image_size=None, channels=None, skip_bad=False)
    images, artifact = deadly.pixels(), store.artifact(recipe)
    entries = [
        write_shard(
            artifact, unit, np.arange(40)[unit * 5 :][:5], {"image": images[unit * 5 :][:5]}
        )
        for unit in range(8)
    ]
    artifact.finish(entries)
    return recipe


def recipes(store, folder, script):
    """Images by the network and by pixels, and a source by the network; and what to open."""
    network, pixels = descriptors(store, script)
    images = numbered_images(store)
    source = SourceRecipe(
        fingerprint=open_source(folder).fingerprint, skip_bad=True, images_per_unit=4
    )
    wanted = [
        FeaturesRecipe(images=images, descriptor=network),
        FeaturesRecipe(images=images, descriptor=pixels),
        FeaturesRecipe(images=source, descriptor=network),
    ]
    return wanted, {source.address: folder}


def processes(word):
    """Processes below this one whose command line holds a word."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            found += [process] if word in " ".join(process.cmdline()) else []
        except psutil.Error:
            continue
    return found


@contextlib.contextmanager
def started_threads():
    """All threads that this process starts within."""
    threads, start = [], threading.Thread.start

    def noted(thread):
        threads.append(thread)
        start(thread)

    with mock.patch.object(threading.Thread, "start", noted):
        yield threads


def run_in_two_stages(store, wanted, sources, runtime):
    """As for GPUs, where reading has processes of its own: the files, and what processes there were."""
    fused, seen = extraction._Plan.of, {"describing": 0, "merged": 0}

    def staged(*args):
        return dataclasses.replace(fused(*args), readers=1, actor_cpus=0.5)

    def look():
        seen["describing"] += len(processes("MapBatches(DescribeUnits)"))
        seen["merged"] += len(processes("MapBatches(Reader)->MapBatches(DescribeUnits)"))

    for recipe in wanted:
        store.artifact(recipe).remove()
    with mock.patch.object(extraction._Plan, "of", staged):
        extract(runtime, store, wanted, on_unit=look, sources=sources)
    files = [dataclasses.asdict(entry) for entry in store.artifact(wanted[0]).files]
    return seen | {"files_in_stages": files}


def run(root, folder, script):
    """Everything once with an actor killed, again after a loss, and with a bad image: what happened."""
    store = Store(root)
    wanted, sources = recipes(store, folder, script)
    runtime, report = RayRuntime(2), {"killed": 0, "pids": []}

    def kill_once():
        if not report["killed"]:
            actors = processes("MapBatches(DescribeUnits)")
            report["actors"], report["killed"] = len(actors), 1
            actors[0].kill()

    try:
        extract(runtime, store, wanted, on_unit=kill_once, sources=sources)
        artifact = store.artifact(wanted[0])
        report["files"] = [dataclasses.asdict(entry) for entry in artifact.files]
        for name in ("manifest.json", "shard-000003.parquet"):
            artifact.location.filesystem.delete_file(f"{artifact.location.path}/{name}")
        again = []
        with started_threads() as threads:
            extract(runtime, store, wanted, on_unit=lambda: again.append(1), sources=sources)
        report["threads"] = [(t.name, t.is_alive()) for t in threads]
        report["again"] = len(again)
        report["files_again"] = [
            dataclasses.asdict(entry) for entry in store.artifact(wanted[0]).files
        ]
        strict = dataclasses.replace(wanted[2].images, skip_bad=False)
        bad = dataclasses.replace(wanted[2], images=strict)
        try:
            extract(runtime, store, [bad], on_unit=lambda: None, sources={strict.address: folder})
        except Exception as error:
            cause = find_cause(error)
            report["error"] = f"{type(cause).__name__}: {cause}"
            report["actors_gone"] = gone("MapBatches(DescribeUnits)")
        report |= run_in_two_stages(store, wanted, sources, runtime)
        report["deadly"] = run_deadly(store, wanted[0].images, runtime)
    finally:
        runtime.close()
    return report
