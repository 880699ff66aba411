"""What is counted for a run: it ends up in the columns of its row."""

from __future__ import annotations

import asyncio
import math
import mmap
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics
from dramatiq_diag.collectors.services import Services
from dramatiq_diag.runtime import counters
from dramatiq_diag.runtime.counters import CounterReader, Reading, ThreadCounters
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.run_measures import RunMeasures, queue_wait_ms
from support import PATIENCE_S
from support.clocks import burn, collect_here
from support.tasks import finish

PAGES = 2000
COUNTED = ("cpu_ms", "run_queue_ms", "gc_ms", "touched_bytes", "major_faults")


#: The clocks of the kernel tick, and each figure is rounded.
CLOCKS_MS = 1.0


def work() -> None:
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1
    kept = [[number] for number in range(100_000)]
    collect_here()
    del kept
    burn(0.05)


@pytest.mark.parametrize("names", [["memory"], ["pyinstrument"], ["logs"]])
def test_a_run_has_the_counters_of_its_thread(
    bench: Callable[..., Any], settings: Callable[..., Any], stored: Callable[..., Any], names: list[str]
) -> None:
    given = settings(task_diagnostics=names)
    with bench(given) as tasks:
        task_id = tasks.run(work)

    (run,) = stored(given).runs(task_id)
    assert run.cpu_ms >= 50
    assert 0 < run.gc_ms < run.cpu_ms
    assert run.run_queue_ms >= 0
    assert run.cpu_ms + run.run_queue_ms <= run.duration_ms + CLOCKS_MS
    assert PAGES * mmap.PAGESIZE <= run.touched_bytes < 100 * PAGES * mmap.PAGESIZE
    assert run.major_faults >= 0
    assert run.queue_wait_ms >= 0


def test_under_gevent_the_counters_of_the_thread_are_of_no_single_run(
    bench: Callable[..., Any], settings: Callable[..., Any], stored: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gevent.monkey", Mock())
    monkeypatch.setattr(counters, "is_gevent_active", lambda: True)
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(work)

    (run,) = stored(given).runs(task_id)
    assert {getattr(run, name) for name in COUNTED} == {None}
    assert run.queue_wait_ms >= 0


def test_a_run_that_fails_has_them_too(
    bench: Callable[..., Any], settings: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    def fail() -> None:
        burn(0.02)
        raise ValueError("wrong")

    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail)

    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.FAILED, "ValueError")
    assert run.cpu_ms >= 20


def test_an_async_run_has_the_cpu_time_of_its_own_steps(
    bench: Callable[..., Any], settings: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    given = settings(task_diagnostics=["memory"])
    with bench(given, threads=2) as tasks:
        both = asyncio.Barrier(2)

        async def steps(cpu_s: float) -> None:
            await both.wait()
            for _ in range(5):
                burn(cpu_s / 5)
                await asyncio.sleep(0)

        actor = tasks.actor(steps)
        little, much = actor.send(0.01), actor.send(0.3)
        tasks.finish()

    (little_run,), (much_run,) = (stored(given).runs(message.message_id) for message in (little, much))
    assert 10 <= little_run.cpu_ms < 150
    assert much_run.cpu_ms >= 300
    for run in (little_run, much_run):
        assert [getattr(run, name) for name in COUNTED[1:]] == [None] * 4


def test_who_asks_for_it_is_told_of_the_end_of_an_async_run(
    bench: Callable[..., Any], settings: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    async def work() -> None:
        burn(0.02)

    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        tasks.diagnostics.process.services.coroutines.on_end.append(lambda *told: seen.append(told))
        task_id = tasks.run(work)

    ((_, (message, _), measured),) = seen
    assert message.message_id == task_id
    assert round(measured.cpu_s * 1000, 3) == stored(given).runs(task_id)[0].cpu_ms >= 20


def test_the_result_of_an_async_actor_is_the_same(
    bench: Callable[..., Any], settings: Callable[..., Any], stored: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    async def fail() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        raise ValueError("wrong")

    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(fail)
        assert not tasks.diagnostics.process.services.coroutines.measured

    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_message) == (RunStatus.FAILED, "wrong")
    assert isinstance(seen[0], asyncio.Task)


def test_a_run_that_is_made_in_the_middle_has_none() -> None:
    measures = RunMeasures(services_with(CounterReader()))
    measures.is_executing = True
    measures.note_return()

    end = measures.end(RunStatus.SUCCEEDED, None)
    assert not set(end) & {*COUNTED, "schedstat", "cpu_stat"}


def test_a_follower_of_the_rss_that_fails_costs_only_itself() -> None:
    services = services_with(CounterReader())
    measures, seen = RunMeasures(services), list[int]()
    measures.is_executing = True
    measures.follow_rss(lambda _: [].pop())
    measures.follow_rss(seen.append)
    for rss_bytes in (5, 9):
        measures.look(rss_bytes)

    assert seen == [5, 9]
    assert measures.peak_rss_bytes == 9
    assert services.warn_once.call_count == 1  # type: ignore[attr-defined]


def services_with(counters: CounterReader) -> Services:
    return Services(warn_once=Mock(), ticker=Mock(), counters=counters)


class BrokenCounters(ThreadCounters):
    """Counters that cannot be read."""

    def read(self) -> Any:
        raise OSError("no counters")


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_of_the_counters_costs_the_counters_alone(
    bench: Callable[..., Any],
    settings: Callable[..., Any],
    stored: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
) -> None:
    done: list[str] = []

    async def run_async() -> None:
        await asyncio.sleep(0)
        done.append("async")

    def run() -> None:
        done.append("sync")

    monkeypatch.setattr(ThreadCounters, "read", BrokenCounters.read)
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(run_async if is_async else run)

    (found,) = stored(given).runs(task_id)
    assert done == ["async" if is_async else "sync"]
    assert found.status == RunStatus.SUCCEEDED
    assert [getattr(found, name) for name in (*COUNTED, "throttled_ms")] == [None] * 6
    assert {artifact.status for artifact in stored(given).artifacts(task_id).values()} == {ArtifactStatus.STORED}


class SlowCounters(ThreadCounters):
    """Counters that take long after they were read first, as where the thread has to wait for a processor."""

    reads = 0

    def read(self) -> Reading:
        reading = super().read()
        self.reads += 1
        if self.reads == 1:
            burn(0.05)
        return reading


class OwnCounters(CounterReader):
    """A reader with one object for the counters of a thread, which its test has made."""

    def __init__(self, counters: type[ThreadCounters]) -> None:
        super().__init__()
        self.counters = counters(self.gc_clock, None, None)

    def own(self) -> ThreadCounters:
        return self.counters


def test_what_is_counted_is_within_the_duration() -> None:
    measures = RunMeasures(services_with(OwnCounters(SlowCounters)))
    measures.note_call()
    measures.note_return()

    end = measures.end(RunStatus.SUCCEEDED, None)
    assert end["cpu_ms"] >= 50
    assert end["cpu_ms"] <= end["duration_ms"] + CLOCKS_MS


class ForeignCounters(ThreadCounters):
    """Counters whose descriptors lead to files of the application, as it has closed all that it did not know."""

    def read(self) -> Reading:
        cpu_s, gc_s, _, _, usage = super().read()
        return cpu_s, gc_s, b"password = secret 1 2", b"password = secret", usage


def test_no_text_of_another_file_gets_into_the_spool() -> None:
    measures = RunMeasures(services_with(OwnCounters(ForeignCounters)))
    measures.note_call()
    measures.note_return()

    end = measures.end(RunStatus.SUCCEEDED, None)
    assert end["cpu_ms"] >= 0
    assert "secret" not in str(end)


def test_the_wait_in_the_queue_begins_when_a_delayed_message_is_due(
    stub_broker: StubBroker, settings: Callable[..., Any], stored: Callable[..., Any], run_worker: Callable[..., Any]
) -> None:
    diagnostics = Diagnostics(given := settings(task_diagnostics=["memory"]))
    stub_broker.add_middleware(diagnostics)

    @dramatiq.actor(broker=stub_broker, queue_name="tasks", max_retries=1, min_backoff=1, max_backoff=1)
    def fail() -> None:
        raise ValueError("wrong")

    # Given two messages that were sent an hour ago, one of them with a delay until now
    hour_ms = 3600 * 1000
    now_ms = int(time.time() * 1000)
    early = fail.message().copy(message_timestamp=now_ms - hour_ms)
    delayed = fail.message().copy(message_timestamp=now_ms - hour_ms)

    # When a worker executes both and retries them
    with run_worker(stub_broker) as worker:
        stub_broker.enqueue(early)
        stub_broker.enqueue(delayed, delay=1)
        finish(stub_broker, worker, "tasks")
        assert diagnostics.flush(PATIENCE_S)

    # Then what was delayed, as a retry is, has waited since it was due
    waits_ms = [run.queue_wait_ms for message in (early, delayed) for run in stored(given).runs(message.message_id)]
    assert [wait_ms >= hour_ms for wait_ms in waits_ms] == [True, False, False, False]


@pytest.mark.parametrize("due", ["soon", [], 10**99, -(10**400), math.nan, math.inf], ids=lambda due: str(due)[:5])
def test_a_message_without_a_usable_time_has_no_wait_in_the_queue(due: Any) -> None:
    message = Mock(options={}, message_timestamp=due)
    assert queue_wait_ms(message, time.time()) is None
