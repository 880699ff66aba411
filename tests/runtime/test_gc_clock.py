"""The CPU time of Python's garbage collector on each thread."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from dramatiq_diag.runtime.gc_clock import GcClock
from support import PATIENCE_S


@pytest.fixture
def clock() -> Iterator[GcClock]:
    made = GcClock()
    made.start()
    yield made
    made.stop()


def collect_much() -> None:
    """Collects once with many objects, which takes some milliseconds."""
    kept = [[number] for number in range(100_000)]
    gc.collect()
    del kept


def test_collections_are_charged_to_their_thread(clock: GcClock) -> None:
    own = threading.get_ident()
    before_s, started_s = clock.seconds(own), time.thread_time()
    collect_much()
    spent_s = clock.seconds(own) - before_s
    assert 0 < spent_s < time.thread_time() - started_s

    # When another thread collects
    other = threading.Thread(target=collect_much)
    other.start()
    other_id = other.ident or 0
    other.join(PATIENCE_S)
    assert clock.seconds(other_id) > 0


def test_tidying_changes_no_sum(clock: GcClock) -> None:
    gc.disable()
    try:
        for _ in range(3):
            collect_much()
        before_s = clock.seconds(threading.get_ident())
        clock.tidy()
        assert clock.seconds(threading.get_ident()) == pytest.approx(before_s)
        clock.tidy()
        assert clock.seconds(threading.get_ident()) == pytest.approx(before_s)
        collect_much()
        assert clock.seconds(threading.get_ident()) > before_s
    finally:
        gc.enable()


class Finalized:
    """An object in a cycle, whose finaliser does something within a collection."""

    def __init__(self, call: object) -> None:
        self.call, self.own = call, self

    def __del__(self) -> None:
        self.call()  # type: ignore[operator]


def test_a_collection_that_is_under_way_at_the_start_is_left_out() -> None:
    clock = GcClock()
    gc.disable()
    try:
        Finalized(clock.start)
        gc.collect()
        assert clock.seconds(threading.get_ident()) == 0.0
        collect_much()
        spent_s = clock.seconds(threading.get_ident())
        assert spent_s > 0
        clock.tidy()
        assert clock.seconds(threading.get_ident()) == pytest.approx(spent_s)
        collect_much()
        assert clock.seconds(threading.get_ident()) > spent_s
    finally:
        gc.enable()
        clock.stop()


def test_one_that_is_asked_for_in_a_collection_leaves_it_out(clock: GcClock) -> None:
    gc.disable()
    try:
        seen: list[float] = []
        Finalized(lambda: (clock.tidy(), seen.append(clock.seconds(threading.get_ident()))))
        before_s = clock.seconds(threading.get_ident())
        gc.collect()
        assert seen == [pytest.approx(before_s)]
        assert clock.seconds(threading.get_ident()) > before_s
    finally:
        gc.enable()


def test_callbacks_of_the_application_stay() -> None:
    def own(phase: str, info: object) -> None:
        """Does nothing."""

    clock = GcClock()
    gc.callbacks.append(own)
    before = list(gc.callbacks)
    try:
        clock.start()
        clock.start()
        assert len(gc.callbacks) == len(before) + 2
        clock.stop()
        clock.stop()
        assert gc.callbacks == before
    finally:
        gc.callbacks.remove(own)


class StruckError(BaseException):
    """An interrupt."""


def test_no_interrupt_is_lost_in_a_collection(clock: GcClock) -> None:
    """Another thread raises an exception in one that does nothing but collect: each arrives."""
    import ctypes

    arrived: list[int] = []
    ready, done = threading.Event(), threading.Event()

    def work() -> None:
        for number in range(300):
            try:
                ready.set()
                while True:
                    gc.collect(0)
            except StruckError:
                arrived.append(number)
        done.set()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    deadline = time.monotonic() + PATIENCE_S
    for number in range(300):
        assert ready.wait(PATIENCE_S)
        ready.clear()
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident or 0), ctypes.py_object(StruckError))
        while len(arrived) <= number and time.monotonic() < deadline:
            time.sleep(0)
        assert len(arrived) > number
    assert done.wait(PATIENCE_S)


def test_a_closed_clock_leaves_no_callback_and_takes_none_up_again() -> None:
    callbacks = list(gc.callbacks)
    clock = GcClock()
    clock.start()
    assert len(gc.callbacks) > len(callbacks)
    clock.close()
    clock.start()  # As a run does that begins while its process ends.
    collect_much()

    assert gc.callbacks == callbacks
    assert clock.seconds(threading.get_ident()) == 0.0
