"""Windows of the live memory: what they count, what they keep, and how they get into the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from sqlalchemy import select

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors.services import Services
from dramatiq_diag.runtime.heap import Heap, HeapReader
from dramatiq_diag.runtime.ticker import Ticker
from dramatiq_diag.store.models import HeapWindow
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.heap_windows import HeapWindows
from dramatiq_diag.worker.tuning import Tuning
from support import eventually, missing
from support.clocks import Clock, burn

AT_ONCE = Tuning(heap_window_s=0.0, heap_look_s=0.0, heap_share=1.0, heap_window_runs=10)


class Memory:
    """A memory whose size a test sets."""

    def __init__(self) -> None:
        self.in_use_bytes = 1000
        self.is_known = True
        self.looks = 0

    def read(self) -> Heap | None:
        self.looks += 1
        return Heap(small_bytes=10, in_use_bytes=self.in_use_bytes, free_bytes=5) if self.is_known else None


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def services() -> Iterator[Services]:
    made = Services(warn_once=lambda *_: None, ticker=Ticker())
    yield made
    made.rss.close()


@pytest.fixture
def make(services: Services, clock: Clock, memory: Memory) -> Callable[..., HeapWindows]:
    def made(**values: Any) -> HeapWindows:
        tuning = Tuning(**{"heap_window_s": 30.0, "heap_window_runs": 4, "heap_look_s": 1.0} | values)
        return HeapWindows(services, read=memory.read, clock=clock, tuning=tuning)

    return made


def end(windows: HeapWindows, clock: Clock, *names: str, seconds: float = 10.0) -> None:
    """Ends a run of each actor, some time apart."""
    for name in names:
        clock.now_s += seconds
        windows.ended(name)
        windows.look()


def test_a_window_has_its_least_memory_and_the_runs_until_then(
    make: Callable[..., HeapWindows], clock: Clock, memory: Memory
) -> None:
    windows = make()
    end(windows, clock, "a", "b")
    memory.in_use_bytes = 700
    end(windows, clock, "a")
    memory.in_use_bytes = 900
    assert windows.waiting() == ()
    end(windows, clock, "c")
    (window,) = windows.waiting()
    assert (window.number, window.looks, window.runs) == (0, 4, {"a": 2, "b": 1})
    assert (window.in_use_bytes, window.small_bytes, window.free_bytes) == (700, 10, 5)

    # The run after the least look is one of the next window
    end(windows, clock, "d", "d", "d", "d")
    memory.in_use_bytes = 600
    _, second = windows.waiting()
    assert (second.number, second.runs) == (1, {"c": 1, "d": 1})
    assert second.started_at == window.ended_at


def test_a_window_needs_its_time_and_its_runs(make: Callable[..., HeapWindows], clock: Clock, memory: Memory) -> None:
    windows = make()
    end(windows, clock, *"aaaaaaaa", seconds=1.0)
    assert windows.waiting() == ()
    memory.in_use_bytes = 500
    end(windows, clock, "a", seconds=30.0)
    assert len(windows.waiting()) == 1
    end(windows, clock, "a", "a", "a", seconds=60.0)
    assert len(windows.waiting()) == 1
    end(windows, clock, "a")
    assert len(windows.waiting()) == 2


def test_windows_get_longer_as_the_process_gets_older(make: Callable[..., HeapWindows], clock: Clock) -> None:
    windows = make(heap_window_runs=1)
    for hours in (10, 240, 8760):  # More than a year in all, with fewer runs as time goes by.
        for _ in range(3000):
            end(windows, clock, "a", seconds=hours * 3600 / 3000)
            windows.stored(windows.waiting())
    clock.now_s += 10_000_000.0
    end(windows, clock, "a")
    assert 500 < windows.waiting()[-1].number < 2500


def test_the_memory_is_looked_at_no_more_often_than_allowed(
    make: Callable[..., HeapWindows], clock: Clock, memory: Memory
) -> None:
    windows = make()
    end(windows, clock, *("a" for _ in range(100)), seconds=0.05)
    assert 3 <= memory.looks <= 6


def test_looks_take_a_thousandth_of_the_time(services: Services, clock: Clock) -> None:
    looks = []

    def read() -> None:
        looks.append(clock.now_s)
        burn(0.002)

    windows = HeapWindows(services, read=read, clock=clock)
    end(windows, clock, *"aaaaaaaa", seconds=0.2)
    assert len(looks) == 1
    end(windows, clock, "a", seconds=50.0)
    assert len(looks) == 2


def test_runs_of_many_threads_are_all_counted(make: Callable[..., HeapWindows], clock: Clock, memory: Memory) -> None:
    windows = make()
    threads = [threading.Thread(target=lambda: [windows.ended("a") for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    memory.in_use_bytes = 1
    end(windows, clock, "a")
    (window,) = windows.waiting(is_last=True)
    assert window.runs == {"a": 20_001}


def test_where_the_memory_is_not_known_there_are_no_windows(
    make: Callable[..., HeapWindows], clock: Clock, memory: Memory
) -> None:
    memory.is_known = False
    windows = make()
    end(windows, clock, *"aaaaaaaaaa")
    assert windows.waiting(is_last=True) == ()


def test_a_reader_that_fails_is_asked_once(services: Services, clock: Clock) -> None:
    calls = []

    def fail() -> Heap:
        calls.append(1)
        raise OSError

    windows = HeapWindows(services, read=fail, clock=clock, tuning=AT_ONCE)
    end(windows, clock, "a", "a", "a")
    assert len(calls) == 1


def test_a_forked_process_does_not_look(make: Callable[..., HeapWindows], clock: Clock, memory: Memory) -> None:
    windows = make()
    windows.end_in_child()
    end(windows, clock, "a", "a")
    assert memory.looks == 0


# In a worker.


@pytest.fixture(autouse=True)
def known() -> None:
    if HeapReader().read() is None:
        missing("The live memory is not known here", "glibc 2.33 and CPython's own allocator")


def stored_windows(store: Store) -> list[HeapWindow]:
    with store.session() as session:
        return list(session.execute(select(HeapWindow).order_by(HeapWindow.number)).scalars())


@pytest.mark.parametrize("choice", ["task_diagnostics", "task_diagnostics_on_request"])
def test_a_worker_stores_its_windows_whether_its_tasks_are_diagnosed_or_not(
    bench: Any, settings: Callable[..., Settings], database_url: str | None, store_of: Any, choice: str
) -> None:
    given = settings(database_url=database_url, **{choice: ["memory"]})
    store = store_of(given)
    with bench(given, tuning=AT_ONCE) as tasks:
        quick, slow = tasks.actor(_nothing, actor_name="quick"), tasks.actor(_pause, actor_name="slow")
        count = 0

        def both_are_counted() -> bool:
            nonlocal count
            for actor in (quick, slow):
                actor.send()
                count += 1
            tasks.finish()
            return {name for window in stored_windows(store) for name in window.runs} == {"quick", "slow"}

        eventually(both_are_counted, "windows with the runs of both are stored while the worker runs")
    windows = stored_windows(store)
    assert [window.number for window in windows] == list(range(len(windows)))
    assert len({window.worker_id for window in windows}) == 1
    assert 0 < sum(sum(window.runs.values()) for window in windows) <= count
    assert all(window.in_use_bytes > 0 and window.small_bytes > 0 and window.rss_bytes for window in windows)


def test_the_last_window_is_stored_when_the_worker_stops(
    bench: Any, settings: Callable[..., Settings], store_of: Any
) -> None:
    given = settings(task_diagnostics_on_request=["memory"])
    with bench(given) as tasks:
        tasks.run(_nothing, actor_name="quick")
    (window,) = stored_windows(store_of(given))
    assert window.runs == {"quick": 1}


def test_no_message_waits_for_a_look(
    bench: Any, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []

    class Order(dramatiq.Middleware):
        def after_process_message(self, *_: Any, **__: Any) -> None:
            happened.append("processed")

        def before_ack(self, *_: Any) -> None:
            happened.append("acknowledged")

        before_nack = before_ack

    with bench(settings(task_diagnostics=["memory"]), tuning=AT_ONCE) as tasks:
        tasks.broker.add_middleware(Order(), before=Diagnostics)
        monkeypatch.setattr(tasks.diagnostics.process.heap_windows, "look", lambda: happened.append("looked"))
        for task in (_nothing, _fail):
            tasks.run(task, actor_name=task.__name__, throws=ValueError)
            eventually(lambda: happened[-1:] == ["looked"], "the memory is looked at")
    assert happened == ["processed", "acknowledged", "looked"] * 2


def test_a_worker_without_tasks_stores_nothing(bench: Any, settings: Callable[..., Settings], store_of: Any) -> None:
    given = settings(task_diagnostics_on_request=["memory"])
    with bench(given, tuning=AT_ONCE):
        pass
    assert stored_windows(store_of(given)) == []


def _nothing() -> None:
    pass


def _fail() -> None:
    raise ValueError("wrong")


def _pause() -> None:
    time.sleep(0.005)
