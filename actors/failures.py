"""What failures on Ray mean: something to act on, something to try elsewhere, or a defect."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from regimes.errors import NotFiniteSamples, RegimesError, WorkFailed, find_cause

GIVE_UP = (
    "all {} replicas were given up, each after {} failures or {} lost nodes in a row without a finished "
    "unit; the last: {}"
)

_GUESSES = " Some common causes include"  # of the death of a worker, half a page of them
_NODE_HAS_DIED = "The actor died because its node has died"


def names_what_to_do(error: BaseException) -> bool:
    """Whether an error is one that no other replica would mend: a full disk, a wrong option.

    Samples that are not finite may come from a broken device: they are tried elsewhere.
    """
    cause = find_cause(error)
    return cause is not None and not isinstance(cause, NotFiniteSamples)


def is_lost_node(error: BaseException) -> bool:
    """Whether an actor went with its node, as far as Ray can say.

    A node that vanishes is silent at first, and only after some seconds known to be dead; Ray tells the
    two apart by class. Of a process that dies on a live node it knows at once.
    """
    from ray.exceptions import ActorDiedError, ActorUnavailableError, NodeDiedError

    if isinstance(error, ActorDiedError):  # why it died is said in words alone
        return error.preempted or _NODE_HAS_DIED in str(error)
    return isinstance(error, (ActorUnavailableError, NodeDiedError))


def describe(error: BaseException) -> str:
    """An error in one line; of a worker's traceback the last line says most."""
    cause = find_cause(error)
    if cause is not None:
        return str(cause)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].partition(_GUESSES)[0] if lines else type(error).__name__


def say(text: str) -> None:
    """A line for who watches the run, on standard error."""
    print(text, file=sys.stderr, flush=True)


def report(failed: Sequence[tuple[str, BaseException]]) -> RegimesError:
    """The error of a run that had to leave units out.

    Args:
        failed: (name of a unit, its last error), at least one.
    """
    cause = find_cause(failed[0][1])
    if cause is not None:
        return cause
    listed = "; ".join(f"{name}: {describe(error)}" for name, error in failed)
    error = WorkFailed(
        f"{len(failed)} of the work units failed on every replica that tried them ({listed}); what else was "
        "begun is kept, and the same command tries these again"
    )
    error.__cause__ = failed[0][1]
    return error
