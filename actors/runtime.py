"""Starting Ray for one run, or joining the cluster that the run was submitted to."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path

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

    def start(self) -> None:
        """Start or join, once."""
        if self._started:
            return
        address = os.environ.get("RAY_ADDRESS")
        if address:
            import ray

            ray.init(address=address, log_to_driver=False)
        else:
            self._start_local()
        self._started = True

    def _start_local(self) -> None:
        os.environ.update(_quiet_environment() | _loopback_environment())
        import ray

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
        self.start()
        import ray

        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        return float(resources.get(name, 0))

    def close(self) -> None:
        """Leave the cluster, or stop the local Ray and delete its files."""
        if not self._started:
            return
        import ray

        ray.shutdown()
        self._started = False
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _quiet_environment() -> dict[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
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
