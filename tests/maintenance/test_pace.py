"""How large the batches of a cleanup are, by a clock that the tests set."""

from __future__ import annotations

import gc

import pytest

from dramatiq_diag.maintenance.pace import Pace
from support.clocks import Clock


class PacedClock(Clock):
    """A clock that stands still but for what `pass_` and `sleep` add, in seconds."""

    def __init__(self) -> None:
        self.slept_s: list[float] = []

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds

    def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.pass_(seconds)


@pytest.fixture
def clock():
    return PacedClock()


def sizes(pace: Pace, clock: PacedClock, seconds_each: float, count: int) -> list[int]:
    """Returns: The sizes of batches whose transactions take so long for each item."""
    found = []
    for batch in pace.batched(range(10**9)):
        found.append(len(batch))
        if len(found) > count:
            return found
        with pace.timed():
            clock.pass_(len(batch) * seconds_each)
    raise AssertionError


def test_batches_grow_to_the_largest_size_while_transactions_are_quick(clock):
    found = sizes(Pace(500, clock=clock, sleep=clock.sleep), clock, 0.00001, 15)

    assert found[:4] == [125, 156, 195, 244]
    assert found[-1] == 500


def test_batches_settle_where_a_transaction_takes_30_ms(clock):
    assert sizes(Pace(500, clock=clock, sleep=clock.sleep), clock, 0.0002, 15)[-1] == 150


def test_a_slow_store_has_small_batches_and_one_slow_transaction_is_answered_at_once(clock):
    pace = Pace(500, clock=clock, sleep=clock.sleep)
    sizes(pace, clock, 0.00001, 15)

    assert sizes(pace, clock, 0.003, 2) == [500, 125, 125]


def test_a_size_below_the_least_is_kept(clock):
    assert sizes(Pace(3, clock=clock, sleep=clock.sleep), clock, 1.0, 3) == [3, 3, 3, 3]


@pytest.mark.parametrize(("since_s", "waits_s"), [(0.0, 0.03), (0.02, 0.01), (0.5, 0.0)])
def test_between_two_transactions_others_have_30_ms(clock, since_s, waits_s):
    pace = Pace(500, clock=clock, sleep=clock.sleep)
    with pace.timed():
        clock.pass_(0.1)
    clock.pass_(since_s)

    pace.let_others_write()

    assert clock.slept_s == [pytest.approx(waits_s)]


def test_no_garbage_is_collected_within_a_transaction(clock):
    pace = Pace(500, clock=clock, sleep=clock.sleep)

    with pace.timed():
        assert not gc.isenabled()

    assert gc.isenabled()


def test_a_transaction_that_fails_leaves_the_collector_running(clock):
    with pytest.raises(ValueError, match="failed"), Pace(500, clock=clock, sleep=clock.sleep).timed():
        raise ValueError("failed")

    assert gc.isenabled()


def test_the_last_batch_has_what_is_left(clock):
    assert list(Pace(2, clock=clock, sleep=clock.sleep).batched(range(3))) == [[0, 1], [2]]
