"""Work handed to actors: bounded in flight, balanced at the end, and finished whatever dies on the way.

A **slot** is the place of one actor. When its actor dies or fails, the slot waits a little, longer
every time, and starts another; after a few failures in a row without a finished unit it is given up,
and with the last slot the run ends. A unit under which actors die is tried on other slots, then set
aside; the rest is completed before it is reported. An actor that goes with its node has not failed, and
nor has its unit: spot nodes come and go, so that many may be lost, though not for ever. Ray's own
restarts are not used: they are immediate, and retry a deadly unit where it just killed.
"""

from __future__ import annotations

import contextlib
import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from regimes.actors.failures import GIVE_UP, describe, is_lost_node, names_what_to_do, report, say
from regimes.errors import WorkFailed
from regimes.storage.artifacts import FileEntry

MIN_IN_FLIGHT, MAX_IN_FLIGHT = 2, 16  # units per actor: one running, others waiting for it
IN_FLIGHT_S = 0.5  # work that should wait at an actor, so that it does not idle between units
ATTEMPTS = 3  # of one unit
FAILURES = 3  # of a slot in a row, without a finished unit in between
LOSSES = 24  # the same of both, of nodes that were lost: no accident, even where nodes come and go
BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 30.0  # before a second actor in a slot; doubled every time
SLOW = 2.0  # times the median: from then on a running unit is given to an idle actor as well
POLL_S = 0.5
START_S = 60.0  # an actor that has not answered for so long may never: no room, or no node
LONGEST_WAIT_S = 6 * 3600.0  # without one actor that answers: nothing is coming
DRAIN_S = 2.0  # `ray job stop` kills after three seconds
LONGEST_DRAIN_S = 10.0  # where nobody has asked to stop
NO_ROOM = (
    "no node has room for a replica yet; if none comes, ask for less (--device, --gpus-per-replica), or see "
    "`ray status`"
)
NO_NODE = (
    "no node had room for a replica for {:g} hours; what was done is kept, and the same command goes on "
    "from here once `ray status` shows nodes again"
)

Ask = Callable[[Any, int, int], Any]
"""(actor, recipe, unit) -> a reference to the unit's entry"""


@dataclass(eq=False)
class _Unit:
    """A unit of work, and what has happened to it."""

    recipe: int
    unit: int
    attempts: int = 0
    losses: int = 0
    failed_in: set[int] = field(default_factory=set)
    asked: set[Any] = field(default_factory=set)
    done: bool = False


@dataclass(eq=False)
class _Slot:
    """The place of one actor."""

    number: int
    actor: Any = None
    waits: Any = None
    """Reference to the answer that the actor is ready."""
    running: dict[Any, _Unit] = field(default_factory=dict)
    """What was asked of it, oldest first: the first is being worked on."""
    since: float = 0.0
    """When it began with the first."""
    failures: int = 0
    losses: int = 0
    """Of nodes; both in a row, without a finished unit."""
    due: float = 0.0
    """When the next actor may start, or was started."""
    given_up: bool = False

    @property
    def ready(self) -> bool:
        """Whether its actor takes work."""
        return self.actor is not None and self.waits is None

    @property
    def is_doubtful(self) -> bool:
        """Whether it gets one unit at a time: answers get lost with the actor that dies after them.

        So who killed it is known only if nobody else was there.
        """
        return self.failures > 0 or any(unit.attempts for unit in self.running.values())

    def is_stuck(self, late: float) -> bool:
        """Whether since ``late`` it waits for its actor, or is at what another has done meanwhile."""
        if not self.ready:
            return self.due <= late
        return any(unit.done for unit in list(self.running.values())[:1]) and self.since <= late


class Pool:
    """Actors of one kind, and the units that they do.

    Args:
        ray: the module, as ``RayRuntime.start`` gives it.
        start: makes an actor; it has a method ``ready``.
        size: actors at most.
        name: (recipe, unit) -> what a unit is called in an error.

    Only actors that have answered get work: one for which there is no room stays pending (which is
    what an autoscaling cluster grows by) and must not hold units meanwhile.
    """

    def __init__(
        self,
        ray: ModuleType,
        start: Callable[[], Any],
        size: int,
        name: Callable[[int, int], str] = lambda recipe, unit: f"unit {unit} of recipe {recipe}",
    ) -> None:
        self._ray, self._start, self._name = ray, start, name
        self._slots = [_Slot(number) for number in range(size)]
        self._owner: dict[Any, tuple[_Slot, _Unit | None]] = {}
        self._fresh: deque[_Unit] = deque()
        self._again: deque[_Unit] = deque()
        self._seconds: deque[float] = deque(maxlen=200)  # that units took
        self._poisoned: list[tuple[str, BaseException]] = []
        self._answered, self._said = math.inf, False  # when an actor last did; that none does

    def run(
        self, ask: Ask, work: Sequence[tuple[int, int]]
    ) -> Generator[tuple[int, FileEntry], None, None]:
        """Do all units; yields (recipe, entry) as they are done, each once.

        Args:
            ask: (actor, recipe, unit) -> a reference to the unit's entry.
            work: (recipe, unit) of every unit.

        Raises:
            RegimesError: if a unit met something that trying again would not mend; after all
                others are done, if units failed on every actor that tried them; or if no node had
                room for an actor for ``LONGEST_WAIT_S``.
            RuntimeError: if all slots were given up, or nothing has ever worked; the cause is the
                last actor's error.
        """
        self._ask, self._answered = ask, time.monotonic()
        self._fresh.extend(_Unit(recipe, unit) for recipe, unit in work)
        left = len(work)
        try:
            while left:
                for unit, entry in self._events():
                    left -= 1
                    if entry is not None:
                        yield unit.recipe, entry
            # Of second copies, lest they leave half a file: those of short units, that soon write.
            self._drain(max(DRAIN_S, min(self._late(), LONGEST_DRAIN_S)))
            if self._poisoned:
                raise report(self._poisoned)
        except Exception:
            raise
        except BaseException:  # interrupted, or nobody wants more: what runs may end
            self._drain()
            raise
        finally:
            self._close()

    def _events(self) -> Iterator[tuple[_Unit, FileEntry | None]]:
        """Wait for what happens next; yields units that are finished, without an entry if set aside."""
        self._fill()
        self._check_that_some_answer()
        if not self._owner:
            time.sleep(max(0.0, min(s.due for s in self._alive()) - time.monotonic()))
            return
        done, _ = self._ray.wait(list(self._owner), num_returns=1, timeout=self._patience())
        for reference in done:
            if reference in self._owner:  # not forgotten with another of its slot
                yield from self._settle(reference)

    def _alive(self) -> list[_Slot]:
        return [slot for slot in self._slots if not slot.given_up]

    def _patience(self) -> float | None:
        """Seconds until something is to be done even if nothing is heard."""
        waiting = any(slot.actor is None for slot in self._alive())
        idle = any(slot.ready and not slot.running for slot in self._slots)
        return POLL_S if waiting or idle or not self._some_answer() else None

    def _some_answer(self) -> bool:
        return any(slot.ready for slot in self._slots)

    def _check_that_some_answer(self) -> None:
        """Say so if no actor does for long: nothing else tells waiting from hanging. Not for ever."""
        now = time.monotonic()
        if self._some_answer():
            self._answered, self._said = now, False
        elif now - self._answered > LONGEST_WAIT_S:
            raise WorkFailed(NO_NODE.format(LONGEST_WAIT_S / 3600))
        elif now - self._answered > START_S and not self._said:
            self._said = True
            say(NO_ROOM)

    def _fill(self) -> None:
        """Start actors that are due, and give every ready one enough to do."""
        for slot in self._alive():
            if slot.actor is None and time.monotonic() >= slot.due:
                slot.actor, slot.due = self._start(), time.monotonic()
                slot.waits = slot.actor.ready.remote()
                self._owner[slot.waits] = slot, None
        depth = self._depth()
        for _ in range(depth):  # one for each in turn: no actor waits while another has several
            for slot in self._slots:
                if slot.ready and len(slot.running) < (1 if slot.is_doubtful else depth):
                    self._submit(slot, self._next(slot))

    def _depth(self) -> int:
        """Units that an actor is given at once: several, if they are short."""
        if not self._seconds:
            return MIN_IN_FLIGHT
        enough = 1 + math.ceil(IN_FLIGHT_S / max(statistics.median(self._seconds), 1e-3))
        return min(max(enough, MIN_IN_FLIGHT), MAX_IN_FLIGHT)

    def _next(self, slot: _Slot) -> _Unit | None:
        """What a slot should do: a unit that failed elsewhere, a fresh one, or a straggler's."""
        again = () if slot.running else tuple(self._again)  # alone, see is_doubtful
        for unit in again:
            if slot.number not in unit.failed_in:
                self._again.remove(unit)
                return unit
        if self._fresh:
            return self._fresh.popleft()
        for unit in again:  # it failed here too, but nobody else will take it
            if unit.failed_in >= self._able():
                self._again.remove(unit)
                return unit
        return None if slot.running else self._straggling(slot)

    def _able(self) -> set[int]:
        """Slots that take units, or soon may: not those whose actors find no room, or hang."""
        late = time.monotonic() - START_S
        return {slot.number for slot in self._alive() if not slot.is_stuck(late)}

    def _straggling(self, idle: _Slot) -> _Unit | None:
        """A unit that waits behind another, or takes much longer than others; asked once more."""
        others = [slot for slot in self._slots if slot is not idle and slot.running]
        queues = [[u for u in list(s.running.values())[1:] if _once(u)] for s in others]
        longest = max(queues, key=len, default=[])
        if longest:
            return longest[-1]
        late = max(POLL_S, self._late())
        running = [(s.since, next(iter(s.running.values()))) for s in others]
        slow = [pair for pair in running if time.monotonic() - pair[0] > late and _once(pair[1])]
        return min(slow, key=lambda pair: pair[0])[1] if slow else None

    def _late(self) -> float:
        """Seconds after which a unit takes much longer than others."""
        return SLOW * statistics.median(self._seconds or [math.inf])

    def _submit(self, slot: _Slot, unit: _Unit | None) -> None:
        if unit is None:
            return
        reference = self._ask(slot.actor, unit.recipe, unit.unit)
        if not slot.running:
            slot.since = time.monotonic()
        slot.running[reference] = unit
        unit.asked.add(reference)
        self._owner[reference] = slot, unit

    def _settle(self, reference: Any) -> Iterator[tuple[_Unit, FileEntry | None]]:
        """Take one answer: an actor is ready, a unit is done, or something failed."""
        slot, unit = self._owner[reference]
        if slot.ready:  # until now, however long its unit took
            self._answered, self._said = time.monotonic(), False
        try:
            entry = self._ray.get(reference)
        except self._ray.exceptions.TaskCancelledError:
            self._forget(reference)
            return
        except self._ray.exceptions.RayError as error:
            if names_what_to_do(error):
                raise
            yield from self._failed(slot, error)
            return
        if unit is None:
            del self._owner[reference]
            slot.waits = None
            return
        self._seconds.append(time.monotonic() - slot.since)
        slot.failures = slot.losses = 0
        self._forget(reference)
        if not unit.done:
            unit.done = True
            self._cancel(unit)
            yield unit, entry

    def _forget(self, reference: Any) -> None:
        """A question is answered: the slot goes on with the next."""
        slot, unit = self._owner.pop(reference)
        if slot.running and reference == next(iter(slot.running)):
            slot.since = time.monotonic()
        slot.running.pop(reference, None)
        if unit is not None:
            unit.asked.discard(reference)

    def _cancel(self, unit: _Unit) -> None:
        """Others that were asked for a unit need not begin with it."""
        for reference in unit.asked:
            self._ray.cancel(reference)

    def _failed(
        self, slot: _Slot, error: BaseException
    ) -> Iterator[tuple[_Unit, FileEntry | None]]:
        """Replace a slot's actor; the unit it was at counts an attempt, those behind it do not."""
        units = list(slot.running.values())
        self._empty(slot)
        lost = is_lost_node(error)
        self._count(slot, lost)
        why = "was lost with its node" if lost else f"failed ({describe(error)})"
        say(f"a replica {why}; what it was at goes to others")
        for position, unit in reversed(list(enumerate(units))):  # the first in line stays first
            if position == 0 and not unit.done:
                self._blame(unit, slot, lost)
            if unit.done or unit.asked:
                continue
            if unit.attempts < ATTEMPTS and unit.losses < LOSSES:
                (self._again if unit.failed_in else self._fresh).appendleft(unit)
                continue
            unit.done, slot.failures, slot.losses = True, 0, 0  # the unit is to blame, not the slot
            self._set_aside(unit, error)
            yield unit, None
        slot.given_up = slot.failures >= FAILURES or slot.losses >= LOSSES
        if not self._alive():
            raise RuntimeError(
                GIVE_UP.format(len(self._slots), FAILURES, LOSSES, describe(error))
            ) from error

    def _count(self, slot: _Slot, lost: bool) -> None:
        slot.failures += not lost
        slot.losses += lost
        pause = BACKOFF_S * 2.0 ** (slot.failures + slot.losses - 1)
        slot.due = time.monotonic() + min(pause, LONGEST_BACKOFF_S)

    def _blame(self, unit: _Unit, slot: _Slot, lost: bool) -> None:
        """The unit that was worked on may have killed the actor, and even the node."""
        if lost:
            unit.losses += 1
            return
        unit.attempts += 1
        unit.failed_in.add(slot.number)

    def _set_aside(self, unit: _Unit, error: BaseException) -> None:
        self._poisoned.append((self._name(unit.recipe, unit.unit), error))
        if not self._seconds:  # nothing has ever worked: it is not the unit
            times = unit.attempts + unit.losses
            raise RuntimeError(f"{self._poisoned[0][0]}: failed {times} times") from error
        if len(self._poisoned) >= FAILURES:
            raise report(self._poisoned)

    def _empty(self, slot: _Slot) -> None:
        """Let go of a slot's actor and of what was asked of it."""
        for reference, unit in slot.running.items():
            unit.asked.discard(reference)
            self._owner.pop(reference, None)
        self._owner.pop(slot.waits, None)
        slot.running, slot.waits = {}, None
        if slot.actor is not None:
            with contextlib.suppress(Exception):  # it may be gone with its node
                self._ray.kill(slot.actor)
        slot.actor = None

    def _drain(self, patience_s: float = DRAIN_S) -> None:
        """Let what runs end, if it does so quickly: its file is then kept for the next run."""
        at_work = [next(iter(s.running)) for s in self._slots if s.running]
        if at_work:
            with contextlib.suppress(Exception):
                self._ray.wait(at_work, num_returns=len(at_work), timeout=patience_s)

    def _close(self) -> None:
        """Let go of all actors: what they hold would keep others waiting."""
        with contextlib.suppress(Exception):
            for slot in self._slots:
                self._empty(slot)


def _once(unit: _Unit) -> bool:
    """Whether a unit is left to do and only one actor was asked for it."""
    return not unit.done and len(unit.asked) == 1
