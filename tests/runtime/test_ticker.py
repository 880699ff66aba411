"""The thread that calls timers: when it calls them, and what it lets go of."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from functools import partial

import pytest

from dramatiq_diag.runtime.ticker import Ticker, Timer
from dramatiq_diag.worker.run import Run
from support import PATIENCE_S, eventually
from support.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    """A ticker with its thread."""
    ticker = Ticker()
    ticker.start()
    yield ticker
    ticker.stop()


def drive(ticker: Ticker, clock: Clock, *moments_s: float) -> None:
    """Sets the clock to each moment after its start, and calls the timers that are due."""
    began_s = clock.now_s
    for moment_s in moments_s:
        clock.now_s = began_s + moment_s
        while ticker.turn():
            pass


def test_timers_are_called_on_their_grid_and_in_their_order(clock):
    ticker = Ticker(clock)
    calls: list[tuple[str, float]] = []

    def note(name: str) -> None:
        calls.append((name, round(clock.now_s - 1000, 3)))

    ticker.add(Timer(2.0, partial(note, "slow")))
    ticker.add(Timer(0.5, partial(note, "fast")))
    # At 1.7 s two of the fast timer's calls are late; it is called once, and keeps to its grid.
    drive(ticker, clock, 0.4, 0.5, 1.7, 1.9, 2.0)

    assert calls == [("fast", 0.5), ("fast", 1.7), ("slow", 2.0), ("fast", 2.0)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_timer_that_fails_goes_on_as_the_others_do_and_says_so_once(clock, caplog, error):
    ticker = Ticker(clock)
    calls: list[str] = []

    def fail() -> None:
        calls.append("fail")
        raise error

    ticker.add(Timer(1.0, fail))
    ticker.add(Timer(1.0, partial(calls.append, "work")))
    drive(ticker, clock, 1.0, 2.0)

    assert sorted(calls) == ["fail", "fail", "work", "work"]
    assert [record.message for record in caplog.records] == ["A timer failed and goes on; it logs no further failure."]


@pytest.mark.parametrize("seen", [False, True])
def test_a_cancelled_timer_lets_go_of_what_it_would_call(clock, seen):
    ticker = Ticker(clock)

    class Held:
        def call(self) -> None: ...

    held = Held()
    there = weakref.ref(held)
    timer = Timer(600.0, held.call)
    ticker.add(timer)
    if seen:
        drive(ticker, clock, 1.0)
    del held
    assert there() is not None

    timer.cancel()

    assert there() is None  # By its reference count alone, long before it is due.


def test_cancelled_timers_do_not_pile_up(clock):
    ticker = Ticker(clock)
    calls: list[float] = []
    ticker.add(Timer(700.0, lambda: calls.append(clock.now_s)))
    largest = 0
    for _ in range(3000):
        timer = Timer(600.0, lambda: None)
        ticker.add(timer)
        timer.cancel()
        ticker.add(late := Timer(600.0, lambda: None))
        drive(ticker, clock, 0.001)
        late.cancel()
        largest = max(largest, len(ticker))

    assert largest < 600
    drive(ticker, clock, 700.0)
    assert calls == [clock.now_s]


def test_a_timer_that_is_due_before_the_others_is_not_late(ticker):
    called = threading.Event()
    ticker.add(Timer(3600.0, lambda: None))
    ticker.add(Timer(0.01, called.set))
    assert called.wait(PATIENCE_S)
    # And again, when the thread sleeps until the first is due
    called.clear()
    ticker.add(Timer(0.01, called.set))
    assert called.wait(PATIENCE_S)


def test_more_timers_than_a_few_are_looked_at_before_one_is_due(ticker):
    timers = [Timer(3600.0, lambda: None) for _ in range(5000)]
    for timer in timers:
        timer.cancel()
        ticker.add(timer)
    # They are taken out of the way, though none of them was ever due.
    reached = threading.Event()
    ticker.add(Timer(0.01, reached.set))
    assert reached.wait(PATIENCE_S)
    assert len(ticker) < 1100


def test_runs_that_ended_are_let_go_of_while_their_start_after_is_still_to_come(bench, settings):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_start_after=600.0)

    def runs_in_memory() -> int:
        gc.collect()
        return sum(type(thing) is Run for thing in gc.get_objects())

    before = runs_in_memory()
    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="short")
        for _ in range(100):
            actor.send()
        tasks.finish()
        # The saver's thread may be about to let go of its batch.
        eventually(lambda: runs_in_memory() - before < 5, "nothing has the runs any more")
