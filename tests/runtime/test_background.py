"""The loop of a daemon thread: it is woken, takes steps, pauses after a fault and ends when asked."""

from __future__ import annotations

import queue
import threading
import time
from itertools import pairwise

import pytest

from dramatiq_diag.runtime.background import BackgroundThread
from support import PATIENCE_S, eventually


@pytest.fixture
def run():
    """Runs threads, and stops them after the test."""
    threads: list[BackgroundThread] = []

    def start(step, finish=lambda _: None, **options) -> BackgroundThread:
        threads.append(BackgroundThread("test", step, finish, **options))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        assert thread.stop(PATIENCE_S)


def test_it_takes_a_step_at_once_and_then_when_it_is_woken(run):
    steps: queue.Queue[float] = queue.Queue()

    def step() -> float:
        steps.put(time.monotonic())
        return PATIENCE_S

    thread = run(step)
    steps.get(timeout=PATIENCE_S)
    for _ in range(3):
        thread.wake()
        steps.get(timeout=PATIENCE_S)
    time.sleep(0.05)
    assert steps.empty()


def test_what_comes_during_a_step_leads_to_another_one(run):
    inside, may_go_on, steps = threading.Event(), threading.Event(), []

    def step() -> float:
        steps.append(1)
        inside.set()
        may_go_on.wait(PATIENCE_S)
        return PATIENCE_S

    thread = run(step)
    inside.wait(PATIENCE_S)
    for _ in range(5):
        thread.wake()
    may_go_on.set()
    eventually(lambda: len(steps) == 2, "one step more")
    time.sleep(0.05)
    assert len(steps) == 2


def test_it_takes_the_next_step_by_itself_after_what_the_last_one_said(run):
    moments: list[float] = []

    def step() -> float:
        moments.append(time.monotonic())
        return 0.1

    run(step)
    eventually(lambda: len(moments) == 3, "three steps")
    assert moments[2] - moments[0] >= 0.2


def test_after_a_fault_it_pauses_longer_and_longer_until_it_has_recovered(run):
    moments: list[float] = []

    def step() -> float:
        moments.append(time.monotonic())
        thread.wake()  # Which does not shorten the pause.
        if len(moments) < 4:
            thread.back_off()
        return PATIENCE_S

    thread = BackgroundThread("test", step, lambda _: None, backoff_s=(0.1, 0.2))
    thread.start()
    eventually(lambda: len(moments) >= 4, "four steps")
    first, second, third = (after - before for before, after in pairwise(moments[:4]))
    assert first >= 0.1
    assert second >= 0.2
    assert third >= 0.2
    assert thread.stop(PATIENCE_S)


def test_after_it_has_recovered_the_pauses_begin_anew():
    thread = BackgroundThread("test", lambda: PATIENCE_S, lambda _: None, backoff_s=(600.0, 6000.0))
    thread.back_off()
    thread.back_off()
    assert thread.pause_left_s > 600
    thread.recovered()
    thread.back_off()
    assert 0 < thread.pause_left_s <= 600


def test_a_pause_can_be_asked_for_and_ended(run):
    steps: list[int] = []

    def step() -> float:
        steps.append(1)
        if len(steps) == 3:
            thread.hold(PATIENCE_S)
        return 0.01

    thread = BackgroundThread("test", step, lambda _: None)
    thread.start()
    eventually(lambda: len(steps) == 3, "it pauses")
    time.sleep(0.05)
    assert len(steps) == 3
    thread.hold(0.0)
    eventually(lambda: len(steps) > 3, "it goes on")
    assert thread.stop(PATIENCE_S)


class Panic(BaseException):
    """As a library in Rust raises it."""


@pytest.mark.parametrize("error", [ZeroDivisionError, Panic, SystemExit])
def test_an_unexpected_error_is_logged_and_it_goes_on(run, caplog, error):
    steps: list[int] = []

    def step() -> float:
        steps.append(1)
        if len(steps) == 1:
            raise error
        return PATIENCE_S

    run(step, backoff_s=(0.01, 0.01))
    eventually(lambda: len(steps) == 2, "the step after the error")
    assert "dramatiq_diag.test met an unexpected error and goes on" in caplog.text
    assert error.__name__ in caplog.text


def test_it_finishes_on_its_thread_also_in_a_pause_and_knows_until_when(run):
    finished: list[tuple[str, float]] = []

    def finish(stop_at: float) -> None:
        finished.append((threading.current_thread().name, stop_at))

    thread = BackgroundThread("test", lambda: PATIENCE_S, finish)
    thread.start()
    thread.hold(PATIENCE_S)
    assert not thread.is_stopping
    before = time.monotonic()
    assert thread.stop(PATIENCE_S / 2)
    assert time.monotonic() - before < PATIENCE_S / 4
    assert thread.is_stopping
    ((name, stop_at),) = finished
    assert name == "dramatiq_diag.test"
    assert before + PATIENCE_S / 2 <= stop_at <= time.monotonic() + PATIENCE_S / 2


def test_one_that_hangs_is_not_waited_for(run):
    may_go_on = threading.Event()

    def step() -> float:
        may_go_on.wait(PATIENCE_S)
        return PATIENCE_S

    thread = run(step)
    assert not thread.stop(0.01, grace_s=0.01)
    may_go_on.set()


@pytest.mark.parametrize("error", [ZeroDivisionError, Panic])
def test_an_error_at_its_end_is_logged(run, caplog, error):
    def finish(_stop_at: float) -> None:
        raise error

    thread = BackgroundThread("test", lambda: PATIENCE_S, finish)
    thread.start()
    assert thread.stop(PATIENCE_S)
    assert "dramatiq_diag.test met an unexpected error at its end" in caplog.text
