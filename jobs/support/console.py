"""The console side of a job: options, one line per stage, and errors in one line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar

import tyro
from tqdm import tqdm

from regimes.errors import BadImage, ConfigError, find_cause

LOG_EVERY_S = 60.0
OUTPUT = "REGIMES_OUTPUT"  # set for the whole of a cluster by cluster.yaml
C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """How a job runs; nothing here changes its results."""

    resume: bool = True
    """Keep what is complete; --no-resume deletes this run's artifacts first."""
    dry_run: bool = False
    """Print what would be done and what it would cost, and stop."""
    cpus: int | None = None
    """CPUs of the local Ray; all by default. Ignored on a cluster."""
    replicas: int | None = None
    """Generator and descriptor actors, and trials at once; one per CPU by default, or as many as the GPUs
    hold. On a cluster, it bounds the nodes that are asked for."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where samples are made: auto takes the GPUs that are there, gpu makes a cluster start some."""
    gpus_per_replica: float = 1.0
    """Share of a GPU per generator or descriptor actor, 1 at most; generate takes whole numbers beyond."""

    spreads: ClassVar[bool] = False
    """Whether the job spreads a model over several GPUs."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for field in ("cpus", "replicas"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"--{field}: expected at least 1, got {value}")
        self._check_gpus()

    def _check_gpus(self) -> None:
        share = float(self.gpus_per_replica)
        several = self.spreads and share.is_integer() and self.device != "cpu"
        if 0 < share <= 1 or (share > 1 and several):
            return
        whole = "; only generate spreads a model over several GPUs"
        if self.spreads:
            whole = ", or a whole number of GPUs"
        raise ConfigError(
            f"--gpus-per-replica: expected a share in (0, 1]{whole}; got {share:g} with --device "
            f"{self.device}"
        )


def check_name(name: str | None) -> None:
    """Refuse a name that cannot be that of a folder everywhere.

    Raises:
        ConfigError: if it cannot.
    """
    if name is not None and not re.fullmatch(r"(?!\.+$)[\w.-]+", name):
        raise ConfigError(f"--name {name}: expected letters, digits, '.', '_' and '-' alone")


def default_output() -> str:
    """Where results go unless told otherwise: $REGIMES_OUTPUT if it is set, or results."""
    return os.environ.get(OUTPUT) or "results"


def check_output(uri: str) -> None:
    """Refuse a place that workers do not share.

    Raises:
        ConfigError: if it is in memory.
    """
    if "memory://" in uri:
        raise ConfigError(
            f"{uri}: expected a place that outlives this process, found its memory; pass a folder "
            "or a URI such as s3://bucket/folder"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(Execution):
    """Where a job puts its results, and how it runs."""

    output: str = dataclasses.field(default_factory=default_output)
    """Folder or URI (s3://..., gs://...) for artifacts and results; $REGIMES_OUTPUT if it is set."""
    name: str | None = None
    """Name of the result folder; made from preset, seed and configuration if not given."""

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        Execution.__post_init__(self)  # super() does not work in a class with slots
        check_name(self.name)
        check_output(self.output)


def parse(
    argv: Sequence[str] | None,
    *,
    presets: Mapping[str, C],
    default_preset: str,
    job: str,
    about: str,
    others: Sequence[Any] = (RunOptions(),),
) -> tuple[Any, ...]:
    """Read a command line: a preset, any of its fields, and other options.

    Args:
        argv: arguments, or None for those of the process.
        presets: experiments (frozen dataclasses of one type) by name.
        default_preset: the one to take without ``--preset``.
        job: name of the job.
        about: one sentence for ``--help``.
        others: defaults of the other options, see ``read_options``.

    Returns:
        Name of the preset, the experiment, and one instance for each of the others.

    Raises:
        ConfigError: if the preset is unknown or a value cannot be used.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=default_preset)
    chosen, rest = first.parse_known_args(argv)
    if chosen.preset not in presets:
        raise ConfigError(
            f"--preset {chosen.preset}: no such preset; choose one of {', '.join(presets)}"
        )
    found = read_options(
        rest,
        [presets[chosen.preset], *others],
        job=job,
        about=f"{about}\n\n--preset NAME: {', '.join(presets)} (default {default_preset})",
    )
    return (chosen.preset, *found)


def read_options(
    argv: Sequence[str] | None, defaults: Sequence[Any], *, job: str, about: str
) -> tuple[Any, ...]:
    """Read a command line into dataclasses whose fields are all options.

    Args:
        argv: arguments, or None for those of the process.
        defaults: instances of the dataclasses; no two have a field of the same name.
        job: name of the job.
        about: what ``--help`` says first.

    Returns:
        One instance for each of ``defaults``.
    """
    flat = tyro.conf.arg(name="")
    fields = [(f"part{i}", Annotated[type(d), flat]) for i, d in enumerate(defaults)]
    command = dataclasses.make_dataclass("command", fields)
    arguments = sys.argv[1:] if argv is None else list(argv)
    if {"-h", "--help"} & set(arguments):
        print(about.strip(), end="\n\n")  # tyro would wrap the examples into one paragraph
    parsed = tyro.cli(
        command,
        default=command(*defaults),
        args=arguments,
        prog=f"regimes {job}",
        description="Every option, with its default:",
    )
    return tuple(getattr(parsed, name) for name, _ in fields)


class Stage:
    """One stage of a job: a bar on a terminal while it runs, and one line when it is done.

    Where there is no terminal, it says once a minute how far it is, however long its units take.

    Args:
        name: a word.
        total: units of work to do now.
        unit: what they are called.
    """

    def __init__(self, name: str, total: int, unit: str) -> None:
        self.name = name
        self._started = time.monotonic()
        self._done, self._total = 0, total
        # A descriptor of its own: while a stage is hushed, standard error is a pipe and no terminal.
        self._screen = os.fdopen(os.dup(2), "w")
        self._bar = tqdm(
            total=total,
            desc=f"{name:<9}",
            unit=unit,
            disable=None if total else True,
            leave=False,
            file=self._screen,
            bar_format="{desc} {percentage:3.0f}% |{bar:30}| {elapsed} gone, {remaining} left",
        )
        self._over = threading.Event()
        self._pulse = threading.Thread(target=self._go_on, daemon=True)
        self._pulse.start()

    def advance(self, units: int = 1) -> None:
        """Count work as done."""
        self._bar.update(units)
        self._done += units

    def _go_on(self) -> None:
        """Move the clock of the bar, also within a long unit; without a terminal a line a minute."""
        on_terminal = self._screen.isatty()
        while not self._over.wait(1.0 if on_terminal else LOG_EVERY_S):
            if on_terminal:
                self._bar.refresh()
                continue
            far = f"{self._done / self._total:.0%}" if self._total else "goes on"
            gone = duration(time.monotonic() - self._started)
            with contextlib.suppress(BrokenPipeError):  # the job meets it at its next line
                print(f"{self.name:<9} {far} ({gone})", flush=True)

    def _stop(self) -> None:
        """No line from here on."""
        self._over.set()
        self._pulse.join()

    def done(self, message: str) -> None:
        """Print the stage's line."""
        self._stop()
        self._bar.close()
        print(
            f"{self.name:<9} {message} ({duration(time.monotonic() - self._started)})", flush=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the bar off the screen."""
        self._stop()
        self._bar.close()
        self._screen.close()


def duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, or 3 h 07 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def run_job(body: Callable[[], int], *, skips_bad_images: bool = False) -> int:
    """Run a job's body; returns the exit status.

    Args:
        body: the job.
        skips_bad_images: whether the job has ``--skip-bad-images``, the remedy for images that cannot be
            decoded.

    A ``RegimesError`` becomes one line on standard error and status 1; Ctrl-C and SIGTERM say how
    to go on, with status 130 and 143. Anything else is a defect and keeps its traceback.
    """
    with _stoppable() as received:
        try:
            return body()
        except BaseException as error:
            if received:  # whatever Ray's core made of the interruption on its way here
                word = "interrupted" if received[0] == signal.SIGINT else "terminated"
                print(f"\n{word}; the same command goes on from here", file=sys.stderr)
                return 128 + received[0]
            if isinstance(error, BrokenPipeError):
                # The reader of our output has gone (| head); keep Python from saying so at exit.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 0
            original = find_cause(error) if isinstance(error, Exception) else None
            if original is None:
                raise
            skips = skips_bad_images and isinstance(original, BadImage)
            remedy = ", or leave such images out with --skip-bad-images" if skips else ""
            print(f"error: {original}{remedy}", file=sys.stderr)
            return 1


def leave(status: int) -> NoReturn:
    """End the process with the status of a job.

    After an interruption at once: threads of Ray's and torch's libraries that were cut short crashed the end
    of Python (SIGSEGV, in 2 of 8 tries while training started), after all was said and done.
    """
    if status > 128:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


class _Stopped(BaseException):
    """SIGINT or SIGTERM arrived."""


@contextlib.contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Turn SIGINT and SIGTERM into exceptions, so that ``finally`` blocks run; lists what arrived."""
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        raise _Stopped

    if threading.current_thread() is not threading.main_thread():
        yield received  # only the main thread may set handlers
        return
    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
