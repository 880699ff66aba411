"""Dramatiq's interrupts (they derive from BaseException) that strike while our own code runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from dramatiq.middleware import (
    Interrupt,
    Shutdown,
    TimeLimit,
    TimeLimitExceeded,
    raise_thread_exception,
)

from dramatiq_diag import Diagnostics
from dramatiq_diag.collectors.memory import _MemoryRecording
from dramatiq_diag.policy.propagation import SendingTask, set_sending_task
from dramatiq_diag.runtime.ticker import Ticker, Timer
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.saver import RunSaver
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually

ALL_THREE = ["memory", "pyinstrument", "memray"]
ARTIFACT_NAMES = {"memory_profile", "pyinstrument_profile", "memray_profile"}
#: What a run has in which an interrupt was raised; on CPython 3.11 memray ends before that.
INTERRUPTED = dict.fromkeys(ARTIFACT_NAMES, ArtifactStatus.STORED) | (
    {"memray_profile": ArtifactStatus.PARTIAL} if sys.version_info < (3, 12) else {}
)


def short_task() -> None:
    return None


def statuses(artifacts: dict[str, Any]) -> dict[str, str]:
    return {name: artifact.status for name, artifact in artifacts.items()}


def strike(interrupt: type[Interrupt]) -> None:
    """Raises an interrupt on this thread the way TimeLimit and Shutdown do it."""
    raise_thread_exception(threading.get_ident(), interrupt)
    for _ in range(1000):
        time.sleep(0)


@pytest.mark.parametrize("interrupt", [TimeLimitExceeded, Shutdown])
def test_an_interrupt_while_a_run_is_ended_does_not_fail_the_task(bench, settings, stored, monkeypatch, interrupt):
    given = settings(task_diagnostics=ALL_THREE)
    calls: list[int] = []
    struck: list[int] = []
    original = _MemoryRecording.stop

    def slow_stop(recording: _MemoryRecording) -> None:
        if not struck:
            struck.append(1)
            strike(interrupt)
        original(recording)

    monkeypatch.setattr(_MemoryRecording, "stop", slow_stop)

    # When the time limit strikes while the collectors are being stopped
    with bench(given) as tasks:
        task_id = tasks.run(lambda: calls.append(1), actor_name="once", max_retries=3)

    # Then the body ran once, the run succeeded, and nothing is missing
    assert (calls, struck) == ([1], [1])
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SUCCEEDED
    assert statuses(stored(given).artifacts(task_id)) == INTERRUPTED


@pytest.mark.parametrize("when", ["before", "after", "before and after"])
def test_an_interrupt_while_a_run_is_handed_over_neither_loses_nor_doubles_it(
    bench, settings, stored, monkeypatch, when
):
    given = settings(task_diagnostics=["memory"])
    left = {"before": when.startswith("before"), "after": when.endswith("after")}
    original = RunSaver.submit

    def strike_once(moment: str) -> None:
        if left[moment]:
            left[moment] = False
            strike(Shutdown)

    def struck(sealer: RunSaver, run: Any) -> None:
        strike_once("before")
        original(sealer, run)
        strike_once("after")

    monkeypatch.setattr(RunSaver, "submit", struck)

    # When interrupts strike where a run that has ended goes to the sealer; `finish` waits until it is published
    with bench(given) as tasks:
        ids = [tasks.run(short_task, actor_name=name) for name in ("first", "second")]
        process = tasks.diagnostics.process
        assert (process.runs, process.unsaved) == ({}, set())
        assert process.saver.submitted == 2

    assert not any(left.values())
    for task_id in ids:
        (run,) = stored(given).runs(task_id)
        assert run.status == RunStatus.SUCCEEDED
        assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED


def test_an_interrupt_before_a_run_has_started_leaves_a_run_that_says_so(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    struck: list[int] = []

    # It strikes right after the run was registered
    def strike_once(task: SendingTask | None) -> None:
        if not struck:
            struck.append(1)
            strike(TimeLimitExceeded)
        set_sending_task(task)

    monkeypatch.setattr("dramatiq_diag.worker.process.set_sending_task", strike_once)

    with bench(given) as tasks:
        task_id = tasks.run(short_task)

    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.FAILED, "TimeLimitExceeded")
    artifact = stored(given).artifacts(task_id)["memory_profile"]
    assert artifact.status == ArtifactStatus.SKIPPED
    assert artifact.reason == "The run was interrupted before this was started."


@pytest.mark.parametrize("quick", [True, False])
def test_a_hook_that_outlasts_the_time_limit_does_not_fail_the_task(bench, settings, stored, monkeypatch, quick):
    given = settings(task_diagnostics=ALL_THREE)
    calls: list[int] = []
    hooks: list[BaseException | None] = []
    threads: list[int] = []
    stops: list[int] = []
    struck: list[int] = []
    original_hook, original_stop = Diagnostics.after_process_message, _MemoryRecording.stop

    # Given a collector that takes longer to stop than the task may last
    def after(middleware: Diagnostics, *args: Any, exception: BaseException | None = None, **kwargs: Any) -> None:
        hooks.append(exception)
        threads.append(threading.get_ident())
        original_hook(middleware, *args, exception=exception, **kwargs)

    def slow_stop(recording: _MemoryRecording) -> None:
        stops.append(1)
        if len(stops) == 1:
            exceed_limit(threads[0])
        original_stop(recording)

    def exceed_limit(thread_id: int) -> None:
        # Not by a short limit of the task: on a busy machine that may strike before the function is called.
        manager = next(each for each in tasks.broker.middleware if isinstance(each, TimeLimit)).manager
        manager.add_timeout(thread_id, 0)
        eventually(lambda: struck, "the limit strikes")

    def raise_and_note(thread_id: int, interrupt: type[Interrupt]) -> None:
        # The manager forgets the deadline some time before it raises the interrupt.
        raise_thread_exception(thread_id, interrupt)
        struck.append(thread_id)

    monkeypatch.setattr("dramatiq.middleware.time_limit.raise_thread_exception", raise_and_note)
    monkeypatch.setattr(Diagnostics, "after_process_message", after)
    monkeypatch.setattr(_MemoryRecording, "stop", slow_stop)
    monkeypatch.setattr(_MemoryRecording, "runs_inline", quick)
    monkeypatch.setattr(_MemoryRecording, "step_timeout_s", PATIENCE_S)  # The limit may come late.

    # When a task runs under a time limit, which the command line would have armed
    with bench(given) as tasks:
        tasks.broker.emit_after("process_boot")
        task_id = tasks.run(lambda: calls.append(1), actor_name="once", max_retries=3)

    # Then body and hook ran once, and the task succeeded
    assert (calls, hooks) == ([1], [None])
    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.SUCCEEDED, None)
    assert struck == threads
    assert len(stops) == 2  # The limit struck in the hook, which then went on where it was.
    assert statuses(stored(given).artifacts(task_id)) == INTERRUPTED
    eventually(lambda: "dramatiq_diag.bounded" not in {thread.name for thread in threading.enumerate()}, "its end")


@pytest.mark.parametrize(
    ("collector", "target", "options"),
    [
        ("memory", "dramatiq_diag.runtime.ticker.Ticker.add", {}),
        ("memory", "dramatiq_diag.spool.entry.Entry.flush", {}),
        ("memray", "memray.Tracker.__enter__", {}),
        ("memray", "dramatiq_diag.runtime.profile_hook.ProfileHook.acquire_exclusive", {}),
        ("pyinstrument", "dramatiq_diag.collectors.time_profile.sampler.Sampler.add", {}),
        ("pyinstrument", "pyinstrument.Profiler.start", {"pyinstrument_engine": "profiler"}),
        (
            "pyinstrument",
            "dramatiq_diag.runtime.profile_hook.ProfileHook.acquire_shared",
            {"pyinstrument_engine": "profiler"},
        ),
    ],
)
def test_an_interrupt_while_a_run_is_begun_leaves_the_next_one_whole(
    bench, settings, stored, monkeypatch, collector, target, options
):
    given = settings(task_diagnostics=[collector], **options)
    struck: list[int] = []

    # Given a time limit that strikes right after a collector began to measure
    def struck_after(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            if not struck and threading.current_thread() is not threading.main_thread():
                struck.append(1)
                strike(TimeLimitExceeded)
            return result

        return call

    timers: list[Timer] = []
    add = Ticker.add
    monkeypatch.setattr(Ticker, "add", lambda ticker, timer: (timers.append(timer), add(ticker, timer)))
    owner, _, name = target.rpartition(".")
    if target.startswith("memray."):
        import memray

        monkeypatch.setattr(memray, "Tracker", _tracker_struck(memray.Tracker, struck))
    else:
        module, _, class_name = owner.rpartition(".")
        cls = getattr(__import__(module, fromlist=[class_name]), class_name)
        monkeypatch.setattr(cls, name, struck_after(getattr(cls, name)))

    # When two tasks run
    with bench(given, tuning=Tuning(rss_s=0.005)) as tasks:
        first = tasks.run(short_task)
        second = tasks.run(short_task, actor_name="second")
        # Then nothing goes on measuring
        eventually(lambda: all(timer.cancelled for timer in timers), "all timers have ended")
        if collector == "pyinstrument":
            assert not tasks.diagnostics.process.collectors[collector].sampler.profiles

    # And the first failed of its time limit, as it would have without the middleware, and the second is whole
    assert struck == [1]
    (run,) = stored(given).runs(first)
    assert (run.status, run.exception_type) == (RunStatus.FAILED, "TimeLimitExceeded")
    assert {artifact.status for artifact in stored(given).artifacts(second).values()} == {ArtifactStatus.STORED}


def _tracker_struck(tracker: type, struck: list[int]) -> type:
    class Struck(tracker):  # type: ignore[misc]
        def __enter__(self) -> Any:
            entered = super().__enter__()
            if not struck and threading.current_thread() is not threading.main_thread():
                struck.append(1)
                strike(TimeLimitExceeded)
            return entered

    return Struck


def test_a_task_over_its_time_limit_fails_as_it_would_without(bench, settings, stored):
    given = settings(task_diagnostics=ALL_THREE)

    def overlong() -> None:
        strike(TimeLimitExceeded)

    with bench(given) as tasks:
        task_id = tasks.run(overlong)

    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.FAILED, "TimeLimitExceeded")
    assert statuses(stored(given).artifacts(task_id)) == INTERRUPTED
