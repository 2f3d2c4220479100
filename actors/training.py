"""One network trained by several workers, one per GPU, as a Ray Train run.

Each worker takes its share of every batch; gradients are added up (NCCL on GPUs, gloo on CPUs), so
that the network is the one a single process would train, up to rounding. Worker 0 writes checkpoints
and the artifact.
"""

from __future__ import annotations

import concurrent.futures
import functools
import os
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError, RegimesError
from regimes.storage.artifacts import Store
from regimes.storage.networks import Execution, NetworkRecipe, StoppedElsewhere, train_network
from regimes.training.workers import Alone, ProcessGroup

MAX_FAILURES = 3
POLL_S = 0.3


class Mailbox:
    """What workers have to say to the driver; a plain class, made remote by ``train_distributed``.

    Ray Train delivers reports to its own controller, which is another process than the driver.
    """

    def __init__(self) -> None:
        self._points: list[tuple[int, float]] = []
        self._reason: str | None = None

    def report(self, step: int, loss: float) -> None:
        """A point of the curve."""
        self._points.append((step, loss))

    def stop(self, reason: str) -> None:
        """Something that trying again would not mend; the first reason stays."""
        self._reason = self._reason or reason

    def take(self) -> tuple[list[tuple[int, float]], str | None]:
        """The points since the last call, and why training stopped, if it did."""
        points, self._points = self._points, []
        return points, self._reason


def train_distributed(
    runtime: RayRuntime,
    store: Store,
    recipe: NetworkRecipe,
    *,
    workers: int,
    execution: Execution | None = None,
    on_report: Callable[[int, float], None],
) -> None:
    """Train a network with several workers and write its artifact.

    A worker that dies takes the others with it; Ray Train starts all of them again, and they continue
    from the last checkpoint. So does the next run after a kill. Ray Train counts failures of all its
    time, and on nodes that come and go a long training has many: what got further since may fail as
    often again. Its own (pickled) state goes to a temporary folder.

    Args:
        runtime: where to run.
        store: where training images are, and where the network goes.
        recipe: what to train.
        workers: how many.
        execution: how; with device "cuda" each worker takes a GPU, else a CPU.
        on_report: called with (step, loss) at every point of the curve; after a worker's death steps
            come again from the last checkpoint on.

    Raises:
        ConfigError: if a local Ray has too few CPUs or GPUs.
        RegimesError: if training met something that trying again would not mend (a full disk, say).
        RuntimeError: if workers died four times without getting further in between.
    """
    execution = execution or Execution()
    use_gpu = execution.device == "cuda"
    ray = runtime.start()
    _require(runtime, workers, use_gpu)
    from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    mailbox = _beside_the_driver(ray).remote()
    config = {"root": store.root.uri, "recipe": recipe, "execution": execution, "mailbox": mailbox}
    with runtime.scratch() as folder:

        def fit(attempt: int) -> object:
            trainer = TorchTrainer(
                train_worker,
                train_loop_config=config,
                scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
                run_config=RunConfig(
                    name=f"attempt-{attempt}",  # a known name is taken up, failures included
                    storage_path=folder,
                    failure_config=FailureConfig(max_failures=MAX_FAILURES),
                    logging_config=LoggingConfig(log_level="CRITICAL"),  # type: ignore[call-arg]
                ),
            )
            return trainer.fit()

        fit_while_it_gets_further(fit, mailbox, on_report)


def fit_while_it_gets_further(
    fit: Callable[[int], object], mailbox: Any, on_report: Callable[[int, float], None]
) -> None:
    """Call ``fit`` with 0, 1, 2 ... until it returns, for as long as each fails later than those before.

    Raises:
        RegimesError: if workers stopped for what trying again would not mend.
        RuntimeError: if ``fit`` failed without getting further.
    """
    reached, attempt = -1, 0

    def report(step: int, loss: float) -> None:
        nonlocal reached
        reached = max(step, reached)
        on_report(step, loss)

    while True:
        before = reached
        error = _watch(functools.partial(fit, attempt), mailbox, report)
        if error is None:
            return
        if reached <= before:
            raise RuntimeError(
                f"training failed {MAX_FAILURES + 1} times without getting further"
            ) from error
        attempt += 1


def _beside_the_driver(ray: ModuleType) -> Any:
    """The class of mailboxes on the driver's node: on another it could vanish with a spot node."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox)


def _require(runtime: RayRuntime, workers: int, use_gpu: bool) -> None:
    """On one machine, what is not there will not come; a cluster may start more nodes."""
    if os.environ.get("RAY_ADDRESS", "local") != "local":
        return
    there = int(runtime.gpus) if use_gpu else runtime.cpus
    if workers > there:
        raise ConfigError(
            f"workers: expected at most {there}, the {'GPUs' if use_gpu else 'CPUs'} of this "
            f"machine, got {workers}"
        )


def _watch(
    fit: Callable[[], object], mailbox: Any, on_report: Callable[[int, float], None]
) -> BaseException | None:
    """Run ``fit`` and deliver what arrives in the mailbox meanwhile; returns what it failed of.

    In a thread of its own: in the main thread Ray Train would take over SIGINT, and the job's own
    handler is what says how to go on.
    """
    import ray

    outcome: concurrent.futures.Future[object] = concurrent.futures.Future()

    def body() -> None:
        try:
            outcome.set_result(fit())
        except BaseException as error:  # whatever it is, the main thread shall have it
            outcome.set_exception(error)

    threading.Thread(target=body, daemon=True).start()
    finished, reason = False, None
    while not finished:
        finished = bool(concurrent.futures.wait([outcome], timeout=POLL_S).done)
        points, reason = ray.get(mailbox.take.remote())
        for step, loss in points:
            on_report(step, loss)
    if reason is not None:
        raise RegimesError(reason)
    return outcome.exception()


def train_worker(config: dict[str, Any]) -> None:
    """The body of a worker."""
    import ray
    import torch

    execution: Execution = config["execution"]
    mailbox = config["mailbox"]
    workers = ProcessGroup(execution.device) if torch.distributed.is_initialized() else Alone()
    try:
        train_network(
            Store(config["root"]),
            config["recipe"],
            execution=execution,
            workers=workers,
            progress=lambda step, loss: mailbox.report.remote(step, loss),
        )
    except StoppedElsewhere:
        return
    except RegimesError as error:  # as a message: an error would be tried again
        ray.get(mailbox.stop.remote(str(error)))
