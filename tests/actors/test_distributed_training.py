"""A training that several workers share may fail as often as it likes, as long as it gets further."""

from __future__ import annotations

import pytest
from shared_ray import joined

from regimes.actors.runtime import RayRuntime
from regimes.actors.training import Mailbox, fit_while_it_gets_further
from regimes.errors import RegimesError


@pytest.fixture
def mailbox():
    with joined():
        runtime = RayRuntime()
        ray = runtime.start()
        yield ray.remote(num_cpus=0)(Mailbox).remote()
        runtime.close()


class Fits:
    """Fits that each reach a step and fail, but for the last."""

    def __init__(self, mailbox, reached, *, ends=True):
        self.mailbox, self.reached, self.ends, self.calls = mailbox, reached, ends, []

    def __call__(self, attempt):
        import ray

        self.calls.append(attempt)
        ray.get(self.mailbox.report.remote(self.reached[attempt], 0.5))
        if not self.ends or attempt < len(self.reached) - 1:
            raise OSError(f"attempt {attempt}")


def test_fits_that_get_further_are_followed_by_another(mailbox):
    fits, points = Fits(mailbox, range(10, 90, 10)), []
    fit_while_it_gets_further(fits, mailbox, lambda step, loss: points.append((step, loss)))
    assert fits.calls == list(range(8))
    assert points == [(step, 0.5) for step in range(10, 90, 10)]


def test_a_fit_that_gets_no_further_than_one_before_is_the_last(mailbox):
    fits = Fits(mailbox, [10, 30, 20, 40], ends=False)
    with pytest.raises(RuntimeError, match="4 times without getting further") as raised:
        fit_while_it_gets_further(fits, mailbox, lambda step, loss: None)
    assert fits.calls == [0, 1, 2]
    assert str(raised.value.__cause__) == "attempt 2"


def test_what_trying_again_would_not_mend_is_not_tried_again(mailbox):
    def fit(attempt):
        import ray

        ray.get(mailbox.stop.remote("disk full"))
        raise OSError

    with pytest.raises(RegimesError, match="disk full"):
        fit_while_it_gets_further(fit, mailbox, lambda step, loss: None)
