"""What a pool of replicas asks Ray for: shares of GPUs, or several for one model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from regimes.actors import jacobian
from regimes.actors.extraction import Hardware
from regimes.actors.replicas import Replica, ReplicaOptions, start_pool
from regimes.actors.runtime import RayRuntime
from regimes.errors import ConfigError


class Asked:
    """A Ray with GPUs that notes what is asked of it; nothing starts."""

    def __init__(self, gpus: float) -> None:
        self.cpus, self.gpus, self.options, self.arguments = 3, gpus, {}, ()

    def start(self) -> Asked:
        return self

    def require_gpus(self, share: float) -> None:
        RayRuntime.require_gpus(self, share)

    def remote(self, kind: type) -> SimpleNamespace:
        def options(**found):
            self.options = found
            return SimpleNamespace(remote=self.make)

        return SimpleNamespace(options=options)

    def make(self, *arguments):
        self.arguments = arguments
        return SimpleNamespace(ready=SimpleNamespace(remote=object))


def asked(gpus: float, **options):
    """What is asked for by a pool of ten units: (options of the actor, its arguments, actors)."""
    ray = Asked(gpus)
    pool = start_pool(ray, Replica, "out", 10, ReplicaOptions(**options), str)
    pool._fill()
    return ray.options, ray.arguments, len(pool._slots)


@pytest.mark.parametrize(
    ("gpus", "options", "num_gpus", "device", "others", "size"),
    [
        (4, {"gpus_each": 2.0}, 2.0, "cuda", ("cuda:1",), 2),
        (8, {"gpus_each": 4, "device": "gpu"}, 4, "cuda", ("cuda:1", "cuda:2", "cuda:3"), 2),
        (2, {"gpus_each": 0.5}, 0.5, "cuda", (), 4),
        (2, {}, 1.0, "cuda", (), 2),
        (0, {}, 0, "cpu", (), 3),
    ],
)
def test_replicas_get_the_devices_that_they_ask_for(gpus, options, num_gpus, device, others, size):
    found, arguments, actors = asked(gpus, **options)
    assert found["num_gpus"] == num_gpus
    assert arguments == ("out", device, others)
    assert actors == size


def test_more_gpus_than_the_machine_has_are_refused():
    with pytest.raises(ConfigError, match="expected a machine with 2 GPUs, found 1"):
        asked(1, gpus_each=2)
    with pytest.raises(ConfigError, match="expected a machine with a GPU, found 0"):
        asked(0, device="gpu")


@pytest.mark.parametrize(
    "options", [{"gpus_each": 1.5}, {"gpus_each": 0}, {"gpus_each": 2, "device": "cpu"}]
)
def test_shares_that_no_replica_could_use_are_refused(options):
    with pytest.raises(ConfigError, match=r"a share in .0, 1., or a whole number of GPUs, got"):
        ReplicaOptions(**options)


def test_work_that_cannot_be_spread_is_refused_before_anything_starts():
    several = ReplicaOptions(gpus_each=2)
    with pytest.raises(ConfigError, match="expected 1 at most, got 2"):
        jacobian.linearise(None, None, [], None, options=several, on_unit=lambda: None)
    with pytest.raises(ConfigError, match=r"a share in \(0, 1\], got 1 and 2"):
        Hardware(gpus_each=2)
