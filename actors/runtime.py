"""Starting Ray for one run, or joining the cluster that the run was submitted to."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil

OBJECT_STORE_BYTES = 500_000_000
_PREFIX = "regimes-ray-"


class RayRuntime:
    """A Ray that is started when first needed, and stopped by ``close``.

    With the environment variable ``RAY_ADDRESS`` set (as ``ray job submit`` does), the run joins
    that cluster. Otherwise it starts a local Ray that listens on loopback addresses only, and only
    for processes that hold a token made for this run: Ray's own default listens on every network
    interface, and whoever reaches its ports can run code.

    Args:
        num_cpus: CPUs of a local Ray; None takes all.
    """

    def __init__(self, num_cpus: int | None = None) -> None:
        self.num_cpus = num_cpus
        self._folder: Path | None = None
        self._started = False

    def start(self) -> ModuleType:
        """Start or join, once; returns the module ``ray``, which nothing may import before.

        Raises:
            RuntimeError: if something did, so that a local Ray would not be private.
        """
        if not self._started:
            address = os.environ.get("RAY_ADDRESS")
            if address is None:
                self._prepare_local()
            import ray

            if address is None:
                self._init_local(ray)
            else:
                ray.init(address=address, log_to_driver=False)
            self._started = True
        return sys.modules["ray"]

    def _prepare_local(self) -> None:
        if "ray" in sys.modules and not _loopback_environment().keys() <= os.environ.keys():
            raise RuntimeError(
                "ray was imported before this run could restrict it to loopback: "
                "run the job in a process of its own"
            )
        for name, value in (_quiet_environment() | _loopback_environment()).items():
            os.environ.setdefault(name, value)

    def _init_local(self, ray: ModuleType) -> None:
        remove_stale_folders()
        self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        ray.init(
            address="local",
            num_cpus=self.num_cpus,
            include_dashboard=False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _temp_dir=str(self._folder),
        )

    @property
    def cpus(self) -> int:
        """CPUs that work can be spread over."""
        return max(1, int(self._resource("CPU")))

    @property
    def gpus(self) -> float:
        """GPUs of the machine or cluster."""
        return self._resource("GPU")

    def _resource(self, name: str) -> float:
        resources: dict[str, float] = self.start().cluster_resources()
        return float(resources.get(name, 0))

    def close(self) -> None:
        """Leave the cluster, or stop the local Ray and delete its files."""
        if not self._started:
            return
        sys.modules["ray"].shutdown()
        self._started = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Send what C++ code writes to standard error to nowhere.

    Ray Data's actors make Ray's core print an alarming line about restarts that concerns only jobs
    whose driver has gone. No setting silences it alone.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _quiet_environment() -> dict[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
    }


def _loopback_environment() -> dict[str, str]:
    """Ray picks a reachable address even when told 127.0.0.1; this setting keeps it on loopback."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def remove_stale_folders() -> None:
    """Delete the temporary folders of runs that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
