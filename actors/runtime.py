"""Starting Ray for one run, or joining the cluster that the run was submitted to."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from regimes.errors import ConfigError, RegimesError

OBJECT_STORE_BYTES = 500_000_000
_PREFIX = "regimes-"
_LONGEST_FOLDER = 16
_KNOCK_S = 10.0
_LAST_WORDS_S = 2.0
_ALARMING = "has constructor arguments in the object store and max_restarts > 0"
_ALL_LINES_BUT = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # it ends with who writes
words = sys.argv[1].encode()
for line in sys.stdin.buffer:
    try:
        words in line or os.write(1, line)
    except OSError:
        pass  # a full disk: who writes goes on
"""
_LATE = ("timed out during startup", "Timed out waiting for file")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TOP_PAD_": str(2**26),
    "MALLOC_ARENA_MAX": "1",  # those of other threads cannot hold large blocks
}
"""For workers: glibc gives large blocks back at once and asks for them again with the next layer, so that on
a CPU half of the time of a network on large images went into clearing pages. A worker stays as large as its
largest batch. Clusters have it from runtime_env.yaml and deploy/."""


class RayRuntime:
    """A Ray that is started when first needed, and stopped by ``close``.

    With ``RAY_ADDRESS`` set in the environment (as ``ray job submit`` does), the run joins
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
            ConfigError: if RAY_ADDRESS leads nowhere.
            RegimesError: if Ray's processes take longer to start than Ray waits for.
            RuntimeError: if ray was imported before a local Ray could be made private.
        """
        if not self._started:
            address = os.environ.get("RAY_ADDRESS", "local")
            with _signals_given_back():
                if address == "local":
                    self._start_local()
                else:
                    _join(address)
            self._started = True
        return sys.modules["ray"]

    def _start_local(self) -> None:
        private = _loopback_environment()
        if "ray" in sys.modules:  # its settings were read already: were they these?
            mode = {name: os.environ.get(name) for name in private}
            if not mode.pop("RAY_AUTH_TOKEN") or any(mode[n] != private[n] for n in mode):
                raise RuntimeError(
                    "ray was imported before this run could restrict it to loopback: "
                    "run the job in a process of its own"
                )
        else:
            os.environ.update(private)
        os.environ.update(_quiet_environment())
        for name, value in KEEP_FREED_MEMORY.items():
            os.environ.setdefault(name, value)
        import ray

        remove_stale_folders()
        self._folder = Path(
            tempfile.mkdtemp(prefix=f"{_prefix()}{os.getpid()}-", dir=_short_folder())
        )
        with _naming_late_starts(self._folder):
            ray.init(
                address="local",
                num_cpus=self.num_cpus,
                include_dashboard=False,
                logging_level=logging.ERROR,
                log_to_driver=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=str(self._folder),
            )

    @contextlib.contextmanager
    def scratch(self) -> Iterator[str]:
        """A temporary folder of this run, which goes with it even if it is killed."""
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=self._folder) as folder:
            yield folder

    @property
    def cpus(self) -> int:
        """CPUs that work can be spread over."""
        return max(1, int(self._resource("CPU")))

    @property
    def gpus(self) -> float:
        """GPUs of the machine or cluster."""
        return self._resource("GPU")

    def require_gpus(self, share: float) -> None:
        """Refuse to wait for what will not come; a cluster may start nodes that have GPUs.

        Args:
            share: GPUs that one worker asks for.

        Raises:
            ConfigError: if this is one machine, and it has fewer.
        """
        if os.environ.get("RAY_ADDRESS", "local") == "local" and self.gpus < share:
            asked, instead = "--device gpu", "pass --device cpu"
            if share > 1:
                asked, instead = f"--gpus-per-replica {share:g}", "ask for fewer"
            raise ConfigError(
                f"{asked}: expected a machine with {_count(share)}, found {self.gpus:g}; {instead}, or "
                "submit the job to a cluster (README, On a cluster)"
            )

    def _resource(self, name: str) -> float:
        resources: dict[str, float] = self.start().cluster_resources()
        return float(resources.get(name, 0))

    def close(self) -> None:
        """Leave the cluster, or stop the local Ray and delete its files."""
        if not self._started:
            return
        ray = sys.modules["ray"]
        try:
            with _signals_given_back() as give_back:
                _before_processes_end(ray, give_back)
                ray.shutdown()
        finally:
            self._started = False
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)


def _count(share: float) -> str:
    return "a GPU" if share <= 1 else f"{share:g} GPUs"


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep one line of Ray's core off standard error; all else passes.

    Ray Data's actors make it print an alarming line about restarts that concerns only jobs whose driver has
    gone, and no setting silences it alone. A process of its own reads what this one writes, line by line, so
    that last words pass, too (not those of process 1 of a container, with which all others end).
    """
    sys.stderr.flush()
    saved = os.dup(2)
    reader = None
    try:
        reader = _read_by_another(saved)
        yield
    finally:
        with contextlib.suppress(OSError):  # if nobody reads any more, it is written below
            sys.stderr.flush()
        os.dup2(saved, 2)
        os.close(saved)
        if reader is not None:
            # Who was started meanwhile may hold the other end.
            with contextlib.suppress(subprocess.TimeoutExpired):
                reader.wait(_LAST_WORDS_S)


def _read_by_another(error: int) -> subprocess.Popen[bytes]:
    """Let a process read what is written to standard error, and write it to a descriptor."""
    reader = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _ALL_LINES_BUT, _ALARMING],
        stdin=subprocess.PIPE,
        stdout=error,
        start_new_session=True,  # Ctrl-C is for this process
    )
    assert reader.stdin is not None
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    return reader


def _quiet_environment() -> dict[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # of units that are tried again elsewhere
        # A paragraph for every death; who replaces a worker says so in a line (failures.say).
        "RAY_DEDUP_LOGS_SKIP_REGEX": "A worker died or was killed while executing a task",
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


def _join(address: str) -> None:
    """Join the cluster that RAY_ADDRESS names."""
    os.environ.update(_quiet_environment())
    import ray

    try:
        _knock(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"RAY_ADDRESS={address}: no Ray cluster can be joined there "
            f"({str(error).splitlines()[0]}); correct it, or unset it to run on this machine"
        ) from error


@contextlib.contextmanager
def _naming_late_starts(folder: Path) -> Iterator[None]:
    """Ray gives each of its own processes half a minute, and says in a traceback that it took longer."""
    try:
        yield
    except Exception as error:
        if not any(words in str(error) for words in _LATE):
            raise
        raise RegimesError(
            "Ray: expected its processes to start within half a minute each, but they did not; run the same "
            "command again when the machine is less busy. What they said, until then: "
            f"{folder}/session_latest/logs"
        ) from error


def _knock(address: str) -> None:
    """Meet whoever listens at HOST:PORT; Ray waits there for minutes, though nobody does."""
    host, _, port = address.rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


@contextlib.contextmanager
def _signals_given_back() -> Iterator[Callable[[], None]]:
    """Give SIGTERM and SIGINT back: Ray takes them when it starts and ends, in Python and in its core.

    Yields what gives them back at once.

    A signal that arrives meanwhile ends up in Ray's own handler, which exits with its number: it is sent
    again, to the handler of before.
    """
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield partial(_restore_signals, handlers)
    except BaseException as stop:
        signal.alarm(0)  # Ray's core, where it sees SIGTERM, sets one that aborts after 3 seconds
        _restore_signals(handlers)
        if isinstance(stop, SystemExit) and stop.code in _SIGNALS:
            signal.raise_signal(stop.code)
        raise
    finally:
        _restore_signals(handlers)


def _before_processes_end(ray: Any, do: Callable[[], None]) -> None:
    """Do something in the middle of ``ray.shutdown``.

    Ray's core goes first and leaves both signals to the system, which would end this process without a
    word; ending Ray's processes then takes more than a second.
    """
    node = ray._private.worker._global_node
    if node is None:
        return

    def end(**options: Any) -> None:
        del node.kill_all_processes
        do()
        node.kill_all_processes(**options)

    node.kill_all_processes = end


def _restore_signals(handlers: dict[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)


def _prefix() -> str:
    """Of folder names: of this host, since process numbers mean nothing elsewhere."""
    return f"{_PREFIX}{hashlib.sha256(platform.node().encode()).hexdigest()[:4]}-"


def _short_folder() -> str:
    """Where temporary folders go: Ray puts sockets there, whose paths may have 100 characters."""
    folder = tempfile.gettempdir()
    return folder if len(folder) <= _LONGEST_FOLDER or not os.path.isdir("/tmp") else "/tmp"


def remove_stale_folders() -> None:
    """Delete the temporary folders of this host's runs that were killed."""
    for folder in Path(_short_folder()).glob(f"{_prefix()}*-*"):
        pid = folder.name.removeprefix(_prefix()).split("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
