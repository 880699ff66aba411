"""The CPU time of a coroutine's own steps, and that the coroutine does not notice."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest
from dramatiq.asyncio import EventLoopThread

from dramatiq_diag.runtime.coroutine_steps import CoroutineSteps, MeasuredCoroutine
from dramatiq_diag.runtime.coroutines import CoroutineTracker
from support import PATIENCE_S, eventually
from support.clocks import burn
from support.reports import Reports, functions

STATE: contextvars.ContextVar[str] = contextvars.ContextVar("STATE", default="none")


def test_results_and_exceptions_pass_through() -> None:
    async def work(*, fails: bool) -> str:
        await asyncio.sleep(0)
        if fails:
            raise ValueError("wrong")
        return "result"

    async def main() -> None:
        assert await MeasuredCoroutine(work(fails=False)) == "result"
        assert await asyncio.create_task(MeasuredCoroutine(work(fails=False))) == "result"
        assert await asyncio.wait_for(MeasuredCoroutine(work(fails=False)), PATIENCE_S) == "result"
        with pytest.raises(ValueError, match="wrong"):
            await MeasuredCoroutine(work(fails=True))

    asyncio.run(main())


def test_it_is_a_coroutine_for_asyncio_and_has_its_names() -> None:
    async def work() -> None:
        """Does nothing."""

    coroutine = work()
    measured = MeasuredCoroutine(coroutine)
    assert asyncio.iscoroutine(measured)
    assert inspect.isawaitable(measured)
    assert (measured.__name__, measured.cr_frame) == ("work", coroutine.cr_frame)
    with pytest.raises(AttributeError):
        measured.missing  # noqa: B018
    measured.close()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


@pytest.mark.parametrize("how", ["returns", "fails", "is cancelled"])
def test_its_first_step_and_its_end_are_noted(how: str) -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        if how == "is cancelled":
            await asyncio.sleep(PATIENCE_S)
        if how == "fails":
            raise ValueError

    async def main() -> None:
        measured = MeasuredCoroutine(work())
        task = asyncio.create_task(measured)
        assert measured.steps == (0.0, 0.0, None, None)
        await asyncio.sleep(0)
        began_s = measured.steps.began_s
        assert began_s == measured.began_s is not None
        await asyncio.sleep(0)
        if how == "is cancelled":
            assert measured.steps.ended_s is None
            task.cancel()
        await asyncio.wait([task])
        assert measured.steps.began_s == began_s
        assert measured.steps.ended_s == measured.waits_since_s >= began_s

    asyncio.run(main())


def test_the_step_that_is_under_way_counts_up_to_now() -> None:
    seen: list[CoroutineSteps] = []

    async def work() -> None:
        await asyncio.sleep(0)
        burn(0.05)
        now_s, cpu_s = time.perf_counter(), time.thread_time()
        seen.append(measured.steps_until(now_s, lambda: cpu_s))
        seen.append(measured.steps_until(now_s, lambda: None))

    async def main() -> None:
        await measured

    measured = MeasuredCoroutine(work())
    asyncio.run(main())
    under_way, without_clock = seen
    assert 0.05 <= under_way.cpu_s <= measured.cpu_s
    assert under_way.cpu_s <= under_way.steps_s + 0.001
    assert (under_way.began_s, under_way.ended_s) == (measured.began_s, None)
    assert without_clock.cpu_s < 0.05
    assert without_clock.steps_s == under_way.steps_s
    assert measured.steps_until(time.perf_counter(), time.thread_time) == measured.steps


@pytest.mark.parametrize(
    ("began_s", "ended_s", "expected_s"),
    [
        (None, None, 10.0),
        (12.0, None, 2.0),
        (12.0, 17.0, 5.0),
        (5.0, 17.0, 3.0),
        (5.0, 6.0, 10.0),
        (5.0, 25.0, 0.0),
        (25.0, 26.0, 10.0),
    ],
)
def test_the_time_outside_of_all_steps(began_s: float | None, ended_s: float | None, expected_s: float) -> None:
    assert CoroutineSteps(0.0, 0.0, began_s, ended_s).outside_s(10.0, 20.0) == expected_s


def test_cancellation_reaches_it_and_may_be_refused() -> None:
    seen: list[str] = []

    async def work() -> str:
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            seen.append("cancelled")
        await asyncio.sleep(0)
        return "went on"

    async def main() -> None:
        task = asyncio.create_task(MeasuredCoroutine(work()))
        await asyncio.sleep(0)
        task.cancel()
        assert await task == "went on"

    asyncio.run(main())
    assert seen == ["cancelled"]


def test_the_current_task_and_context_are_those_of_the_task() -> None:
    async def work() -> tuple[Any, str]:
        found = STATE.get()
        STATE.set("inside")
        await asyncio.sleep(0)
        assert STATE.get() == "inside"
        return asyncio.current_task(), found

    async def main() -> None:
        STATE.set("outside")
        task = asyncio.create_task(MeasuredCoroutine(work()))
        assert await task == (task, "outside")
        assert STATE.get() == "outside"
        # Awaited in the same task, it shares its context
        assert await MeasuredCoroutine(work()) == (asyncio.current_task(), "outside")
        assert STATE.get() == "inside"

    asyncio.run(main())


def test_steps_of_others_are_not_counted() -> None:
    async def work(cpu_s: float) -> None:
        for _ in range(5):
            burn(cpu_s / 5)
            await asyncio.sleep(0)

    async def main() -> tuple[float, float]:
        little, much = MeasuredCoroutine(work(0.01)), MeasuredCoroutine(work(0.2))
        await asyncio.gather(little, much, work(0.2))
        return little.cpu_s, much.cpu_s

    before_s = time.thread_time()
    little_s, much_s = asyncio.run(main())
    spent_s = time.thread_time() - before_s

    assert 0.01 <= little_s < 0.1
    assert much_s >= 0.2
    # A third that burned as much is in none of them
    assert little_s + much_s <= spent_s - 0.2


def test_a_task_that_it_creates_is_not_counted_and_what_it_awaits_is() -> None:
    async def inner() -> None:
        burn(0.05)

    async def work() -> None:
        await inner()
        await asyncio.create_task(other())

    async def other() -> None:
        burn(0.2)

    measured = MeasuredCoroutine(work())

    async def main() -> None:
        await measured

    asyncio.run(main())
    assert 0.05 <= measured.cpu_s < 0.2


@pytest.fixture
def loop_thread() -> Iterator[EventLoopThread]:
    thread = EventLoopThread(logging.getLogger("loop"))
    thread.start(timeout=PATIENCE_S)
    yield thread
    thread.stop()
    thread.join()


@pytest.mark.parametrize("first_closed", [0, 1])
def test_two_trackers_both_see_the_coroutines_and_leave_the_loop_as_it_was(
    loop_thread: EventLoopThread, first_closed: int
) -> None:
    async def work() -> int:
        return 7

    trackers = [CoroutineTracker(), CoroutineTracker()]
    seen: list[list[Any]] = [[], []]

    def run() -> None:
        for tracker, found in zip(trackers, seen, strict=True):
            if tracker.thread_id is not None:
                tracker.on_next(loop_thread, found.append)
        assert loop_thread.run_coroutine(work()) == 7

    for tracker in trackers:
        tracker.watch(loop_thread)
    run()
    assert [len(found) for found in seen] == [1, 1]
    trackers[first_closed].close()
    run()
    assert [len(found) for found in seen] == ([1, 2] if first_closed == 0 else [2, 1])
    trackers[1 - first_closed].close()
    run()
    assert sum(len(found) for found in seen) == 3
    assert all(not tracker.running for tracker in trackers)


@pytest.mark.parametrize("is_measured", [True, False])
def test_the_stack_is_that_of_the_coroutine(loop_thread: EventLoopThread, is_measured: bool) -> None:
    tasks: list[Any] = []

    async def outermost() -> None:
        tasks.append(asyncio.current_task())
        await middle()

    async def middle() -> None:
        await asyncio.sleep(PATIENCE_S)

    own = outermost()
    given: Any = MeasuredCoroutine(own) if is_measured else own

    def work() -> None:
        with suppress(CancelledError):
            loop_thread.run_coroutine(given)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    eventually(lambda: tasks, "the coroutine runs")
    report, *_ = Reports(worker.ident or 0, own, loop_thread).until(lambda report: report.state == "awaiting")
    loop_thread.loop.call_soon_threadsafe(tasks[0].cancel)
    worker.join()

    assert functions(report) == ["sleep", "middle", "outermost"]
