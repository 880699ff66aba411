"""The middleware: what a task leaves, and that it does not notice."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import Retry
from dramatiq.middleware import (
    CurrentMessage,
    Interrupt,
    Middleware,
    Shutdown,
    SkipMessage,
    TimeLimitExceeded,
    raise_thread_exception,
)
from dramatiq.results import Results
from dramatiq.results.backends import StubBackend
from support import PATIENCE_S, eventually, finish, middleware_under_test

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors import Recording
from dramatiq_diag.collectors.memory import MemoryCollector, _MemoryRecording
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.process import WorkerProcess
from dramatiq_diag.worker.saver import RunSaver

#: Before Dramatiq 2.2 its queue has no order among the messages of one priority.
IS_IN_ORDER = hasattr(dramatiq.worker, "_WorkQueueItem")

ALL_THREE = ["memory", "pyinstrument", "memray"]
ARTIFACT_NAMES = {"memory_profile", "pyinstrument_profile", "memray_profile"}
#: What a run has in which an interrupt was raised; on CPython 3.11 memray ends before that.
INTERRUPTED = dict.fromkeys(ARTIFACT_NAMES, ArtifactStatus.STORED) | (
    {"memray_profile": ArtifactStatus.PARTIAL} if sys.version_info < (3, 12) else {}
)


def short_task() -> None:
    return None


# What a run leaves.


def test_each_task_leaves_three_artifacts(bench, settings, stored):
    given = settings(task_diagnostics=ALL_THREE)

    def build(length: int) -> None:
        assert len([str(number) for number in range(length)]) == length

    # When a task is executed
    with bench(given) as tasks:
        task_id = tasks.run(build, 50_000)

    # Then its run and its three artifacts are stored, whole
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SUCCEEDED
    assert run.actor_name == "build"
    assert run.queue_name == "tasks"
    assert run.exception_type is None
    assert run.duration_ms > 0
    assert run.finished_at >= run.started_at
    assert run.peak_rss_bytes > 1024 * 1024
    artifacts = stored(given).artifacts(task_id)
    assert {name: artifact.status for name, artifact in artifacts.items()} == dict.fromkeys(
        ARTIFACT_NAMES, ArtifactStatus.STORED
    )
    assert all(artifact.expires_at is not None and artifact.reason is None for artifact in artifacts.values())
    assert not stored(given).check()


def test_a_failing_task_leaves_its_artifacts_and_its_exception(bench, settings, stored):
    given = settings(task_diagnostics=ALL_THREE)

    def fail() -> None:
        raise ValueError("no such page: \0 \ud800")

    with bench(given) as tasks:
        task_id = tasks.run(fail)

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.FAILED
    assert run.exception_type == "ValueError"
    assert run.exception_message == "no such page: \ufffd ?"
    assert {artifact.status for artifact in stored(given).artifacts(task_id).values()} == {ArtifactStatus.STORED}


def test_an_exception_without_a_text_is_no_obstacle(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    def fail() -> None:
        raise MuteError

    with bench(given) as tasks:
        task_id = tasks.run(fail)

    (run,) = stored(given).runs(task_id)
    assert run.exception_type.endswith("MuteError")
    assert "could not be made" in run.exception_message


def test_every_retry_is_a_new_attempt(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    calls: list[int] = []

    def third_time_lucky() -> None:
        calls.append(1)
        if len(calls) < 3:
            raise OSError(f"call {len(calls)}")

    # When a task fails twice and then succeeds
    with bench(given) as tasks:
        task_id = tasks.run(third_time_lucky, max_retries=5)

    # Then there are three attempts, each with its own artifact
    runs = stored(given).runs(task_id)
    assert [run.attempt for run in runs] == [1, 2, 3]
    assert [run.status for run in runs] == [RunStatus.FAILED, RunStatus.FAILED, RunStatus.SUCCEEDED]
    assert [run.exception_message for run in runs] == ["call 1", "call 2", None]
    ids = {stored(given).artifacts(task_id, attempt)["memory_profile"].artifact_id for attempt in (1, 2, 3)}
    assert len(ids) == 3


def test_a_message_that_a_later_middleware_skips_is_a_skipped_run(bench, settings, stored):
    given = settings(task_diagnostics=ALL_THREE)

    class SkipAll(Middleware):
        def before_process_message(self, broker, message):
            raise SkipMessage("not today")

    with bench(given) as tasks:
        tasks.broker.add_middleware(SkipAll())
        task_id = tasks.run(short_task)

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SKIPPED
    assert set(stored(given).artifacts(task_id)) == ARTIFACT_NAMES


def test_an_async_actor_leaves_three_artifacts(bench, settings, stored):
    given = settings(task_diagnostics=ALL_THREE)

    async def wait_a_little() -> None:
        await asyncio.sleep(0.02)

    with bench(given) as tasks:
        task_id = tasks.run(wait_a_little)

    artifacts = stored(given).artifacts(task_id)
    assert {name: artifact.status for name, artifact in artifacts.items()} == dict.fromkeys(
        ARTIFACT_NAMES, ArtifactStatus.STORED
    )


def test_tasks_that_overlap_know_of_each_other(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    together = threading.Barrier(3)

    def meet() -> None:
        together.wait(PATIENCE_S)
        together.wait(PATIENCE_S)

    # When three tasks run at once, and a fourth after them
    with bench(given, threads=3) as tasks:
        actor = tasks.actor(meet)
        ids = {actor.send().message_id for _ in range(3)}
        tasks.finish()
        alone = tasks.run(short_task)

    # Then each of the three names the other two, and the fourth nobody
    for task_id in ids:
        assert set(stored(given).runs(task_id)[0].overlapped_task_ids) == ids - {task_id}
    assert stored(given).runs(alone)[0].overlapped_task_ids == []


def test_eight_threads_leave_everything_and_log_no_error(bench, settings, stored, caplog):
    given = settings(task_diagnostics=ALL_THREE, memory_interval=0.01, pyinstrument_interval=0.001)

    def count(limit: int) -> None:
        assert sum(len(str(number)) for number in range(limit)) > 0

    async def rest() -> None:
        await asyncio.sleep(0.005)

    # When 80 tasks go through 8 threads
    with bench(given, threads=8) as tasks, caplog.at_level(logging.WARNING):
        actors = [tasks.actor(count), tasks.actor(rest)]
        ids = [actors[0].send(20_000).message_id for _ in range(40)] + [actors[1].send().message_id for _ in range(40)]
        tasks.finish()

    # Then every artifact has a status, and whatever there is none of says why
    found = Counter()
    for task_id in ids:
        artifacts = stored(given).artifacts(task_id)
        assert set(artifacts) == ARTIFACT_NAMES
        for name, artifact in artifacts.items():
            found[name, artifact.status] += 1
            assert (artifact.reason is None) == (artifact.status == ArtifactStatus.STORED)
    assert found["memory_profile", ArtifactStatus.STORED] == 80
    assert found["pyinstrument_profile", ArtifactStatus.STORED] == 80
    assert found["memray_profile", ArtifactStatus.STORED] > 0
    assert found["memray_profile", ArtifactStatus.STORED] + found["memray_profile", ArtifactStatus.SKIPPED] == 80
    assert caplog.records == []
    assert not stored(given).check()


# That a task does not notice.


class Ledger(logging.Handler):
    """What can be told from outside about a workload: records, results, exceptions, retries, order."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: Counter[tuple[str, str, str]] = Counter()
        self.lines: list[Any] = []
        self.retries: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("dramatiq_diag", "alembic")):
            self.records[record.name, record.levelname, str(record.msg)] += 1


def workload(ledger: Ledger, broker: StubBroker, threads: int) -> dict[str, Any]:
    """Runs a mix of actors. Returns: What a user of Dramatiq can see of it."""
    lines = ledger.lines
    attempts: Counter[str] = Counter()

    def actor(fn: Callable[..., Any], **options: Any) -> Any:
        return dramatiq.actor(fn, broker=broker, queue_name="tasks", store_results=True, **{"max_retries": 0} | options)

    def add(left: int, right: int) -> int:
        name = re.sub(r"\d+", "N", threading.current_thread().name)
        lines.append(("add", left, name, logging.getLogger("dramatiq").getEffectiveLevel(), logging.root.level))
        return left + right

    async def add_slowly(left: int, right: int) -> int:
        await asyncio.sleep(0.001)
        lines.append(("add_slowly", left, re.sub(r"\d+", "N", threading.current_thread().name)))
        return left + right

    def fail(number: int) -> None:
        lines.append(("fail", number))
        raise KeyError(number)

    def expected(number: int) -> None:
        raise ZeroDivisionError(number)

    def retried(number: int) -> int:
        message_id = CurrentMessage.get_current_message().message_id
        attempts[message_id] += 1
        # The delay of a retry is random, so the order of later attempts among messages is as well.
        (lines if attempts[message_id] == 1 else ledger.retries).append(("retried", number, attempts[message_id]))
        if attempts[message_id] == 1:
            raise Retry("once more", delay=1)
        if attempts[message_id] == 2:
            raise ValueError(number)
        return number

    def skipped(number: int) -> None:
        raise SkipMessage(f"{number}")

    calls = [
        actor(add),
        actor(add_slowly),
        actor(expected, throws=ZeroDivisionError),
        actor(fail),
        actor(retried, max_retries=4),
        actor(skipped),
    ]
    messages = [
        called.send(number, 1) if called.fn.__name__.startswith("add") else called.send(number)
        for number in range(8)
        for called in calls
    ]
    with _worker(broker, threads) as worker:
        finish(broker, worker, "tasks")
    outcomes = []
    for message in messages:
        try:
            outcome: Any = message.get_result(backend=StubBackendOf.get(broker))
        except dramatiq.errors.DramatiqError as error:
            outcome = repr(error)
        outcomes.append((message.actor_name, message.args, outcome))
    return {
        "outcomes": outcomes,
        "dead": Counter((message.actor_name, message.options.get("retries")) for message in broker.dead_letters),
        "records": ledger.records,
        "lines": lines if threads == 1 and IS_IN_ORDER else Counter(lines),
        "retries": Counter(ledger.retries),
        "thread names": {re.sub(r"\d+", "N", thread.name) for thread in threading.enumerate()},
    }


class StubBackendOf:
    """The result backend of a broker."""

    @staticmethod
    def get(broker: StubBroker) -> StubBackend:
        return next(m.backend for m in broker.middleware if isinstance(m, Results))


@contextmanager
def _worker(broker: StubBroker, threads: int) -> Iterator[Worker]:
    worker = Worker(broker, worker_timeout=50, worker_threads=threads)
    worker.start()
    yield worker
    worker.stop()


@pytest.mark.parametrize("threads", [1, 8])
def test_a_workload_looks_the_same_with_and_without_the_middleware(settings, threads, caplog):
    seen: list[dict[str, Any]] = []
    for diagnostics in (None, Diagnostics(settings(task_diagnostics=ALL_THREE, pyinstrument_interval=0.001))):
        # Given a broker without, then with all three diagnostics
        more = [CurrentMessage(), Results(backend=StubBackend())]
        broker = StubBroker(
            middleware=middleware_under_test(*more, *([] if diagnostics is None else [diagnostics])),
            fail_fast_default=False,
        )
        ledger = Ledger()
        logging.root.addHandler(ledger)
        try:
            # When the same workload runs
            with caplog.at_level(logging.INFO):
                seen.append(workload(ledger, broker, threads))
        finally:
            logging.root.removeHandler(ledger)
            broker.close()

    # Then results, exceptions, retries, order, log records, log levels and thread names are the same
    without, with_diagnostics = seen
    assert len(without["lines"]) > 20
    assert with_diagnostics["records"] - without["records"] == Counter()
    assert without == with_diagnostics
    assert [r for r in caplog.records if r.name.startswith("dramatiq_diag") and r.levelno >= logging.WARNING] == []


# Off.


def test_off_makes_no_thread_file_connection_or_message(bench, settings, tmp_path):
    given = settings(cleanup_interval=3600)
    before = set(threading.enumerate())

    with bench(given) as tasks:
        task_id = tasks.run(short_task)
        ours = {thread.name for thread in set(threading.enumerate()) - before}
        assert set(tasks.broker.queues) == {"tasks", "tasks.DQ"}
        assert set(tasks.broker.actors) == {"short_task"}
        assert tasks.diagnostics.flush(0)

    assert task_id
    assert not [name for name in ours if "diag" in name]
    assert list(tmp_path.iterdir()) == []


def test_what_may_be_asked_for_and_is_not_leaves_nothing_of_the_task(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory"])

    with bench(given) as tasks:
        task_id = tasks.run(short_task)

    assert stored(given).runs(task_id) == []


def test_a_process_that_only_sends_touches_nothing(settings, stub_broker, tmp_path):
    before = set(threading.enumerate())

    stub_broker.add_middleware(Diagnostics(settings(task_diagnostics=ALL_THREE)))
    stub_broker.emit_after("process_boot")
    dramatiq.actor(short_task, broker=stub_broker).send()

    assert not [thread.name for thread in set(threading.enumerate()) - before if "diag" in thread.name]
    assert list(tmp_path.iterdir()) == []
    assert set(stub_broker.actors) == {"short_task"}


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TASK_DIAGNOSTICS", "memory")
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path))

    assert Diagnostics().settings == Settings(task_diagnostics=["memory"], data_dir=tmp_path)


# Publishing.


def test_flush_says_whether_everything_is_published(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    let_go = threading.Event()
    original = Recording.save
    monkeypatch.setattr(
        "dramatiq_diag.collectors.memory._MemoryRecording.save",
        lambda recording: (let_go.wait(PATIENCE_S), original(recording)),
        raising=False,
    )

    with bench(given) as tasks:
        # Given a sealed run that the publisher cannot get done with
        message = tasks.actor(short_task).send()
        finish(tasks.broker, tasks.worker, "tasks")
        # Then flush gives up
        assert not tasks.diagnostics.flush(0.01)
        # When it can
        let_go.set()
        # Then flush says so, and the run is there
        assert tasks.diagnostics.flush(PATIENCE_S)
        assert stored(given).runs(message.message_id)


def test_a_stopping_worker_publishes_what_it_has(settings, stub_broker, run_worker, stored):
    given = settings(task_diagnostics=["memory"])
    stub_broker.add_middleware(Diagnostics(given))
    actor = dramatiq.actor(short_task, broker=stub_broker)

    with run_worker(stub_broker) as worker:
        ids = [actor.send().message_id for _ in range(250)]
        finish(stub_broker, worker, "default")

    assert {run.task_id for run in stored(given).all_runs()} == set(ids)
    assert list(given.spool.iterdir()) == []


def test_a_worker_can_be_started_again_with_the_same_middleware(settings, stub_broker, run_worker, stored):
    given = settings(task_diagnostics=ALL_THREE)
    stub_broker.add_middleware(Diagnostics(given))
    actor = dramatiq.actor(short_task, broker=stub_broker)

    ids = []
    for _ in range(2):
        with run_worker(stub_broker) as worker:
            ids.append(actor.send().message_id)
            finish(stub_broker, worker, "default")

    assert {artifact.status for task_id in ids for artifact in stored(given).artifacts(task_id).values()} == {"stored"}


def test_a_run_is_visible_as_running_after_a_second(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])
    let_go = threading.Event()

    def wait() -> None:
        let_go.wait(PATIENCE_S)

    with bench(given) as tasks:
        # When a task has run for a second
        message = tasks.actor(wait).send()
        reader = stored(given)
        (run,) = eventually(lambda: reader.runs(message.message_id), "the running run is stored")
        # Then it is visible, without an artifact
        assert run.status == RunStatus.RUNNING
        assert run.finished_at is None
        assert reader.artifacts(message.message_id) == {}
        # When it ends
        let_go.set()
        tasks.finish()

    # Then the same row says how
    (ended,) = stored(given).runs(message.message_id)
    assert ended.run_id == run.run_id
    assert ended.status == RunStatus.SUCCEEDED


# Dramatiq's interrupts (they derive from BaseException) that strike while our own code runs.


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
    original, struck = WorkerProcess._sender, []

    def strike_once(*args: Any) -> Any:
        if not struck:
            struck.append(1)
            strike(TimeLimitExceeded)
        return original(*args)

    monkeypatch.setattr(WorkerProcess, "_sender", strike_once)

    with bench(given) as tasks:
        task_id = tasks.run(short_task)

    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.FAILED, "TimeLimitExceeded")
    assert stored(given).artifacts(task_id)["memory_profile"].reason == "The collector left no file."


@pytest.mark.parametrize("quick", [True, False])
def test_a_hook_that_outlasts_the_time_limit_does_not_fail_the_task(bench, settings, stored, monkeypatch, quick):
    given = settings(task_diagnostics=ALL_THREE)
    calls: list[int] = []
    hooks: list[BaseException | None] = []
    stops: list[int] = []
    original_hook, original_stop = Diagnostics.after_process_message, _MemoryRecording.stop

    # Given a collector that takes longer to stop than the task may last
    def after(middleware: Diagnostics, *args: Any, exception: BaseException | None = None, **kwargs: Any) -> None:
        hooks.append(exception)
        original_hook(middleware, *args, exception=exception, **kwargs)

    def slow_stop(recording: _MemoryRecording) -> None:
        stops.append(1)
        if len(stops) == 1:
            time.sleep(2.5)
        original_stop(recording)

    monkeypatch.setattr(Diagnostics, "after_process_message", after)
    monkeypatch.setattr(_MemoryRecording, "stop", slow_stop)
    monkeypatch.setattr(_MemoryRecording, "quick", quick)

    # When a task runs under that time limit, which the command line would have armed
    with bench(given) as tasks:
        tasks.broker.emit_after("process_boot")
        task_id = tasks.run(lambda: calls.append(1), actor_name="once", max_retries=3, time_limit=1000)

    # Then body and hook ran once, and the task succeeded
    assert (calls, hooks) == ([1], [None])
    (run,) = stored(given).runs(task_id)
    assert (run.status, run.exception_type) == (RunStatus.SUCCEEDED, None)
    assert len(stops) == 2  # The limit struck in the hook, which then went on where it was.
    assert statuses(stored(given).artifacts(task_id)) == INTERRUPTED
    eventually(lambda: "dramatiq_diag.bounded" not in {thread.name for thread in threading.enumerate()}, "its end")


@pytest.mark.parametrize(
    ("collector", "target", "options"),
    [
        ("memory", "dramatiq_diag.runtime.ticker.Ticker.add", {}),
        ("memory", "dramatiq_diag.spool.entry.Entry._put", {}),
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

    owner, _, name = target.rpartition(".")
    if target.startswith("memray."):
        import memray

        monkeypatch.setattr(memray, "Tracker", _tracker_struck(memray.Tracker, struck))
    else:
        module, _, class_name = owner.rpartition(".")
        cls = getattr(__import__(module, fromlist=[class_name]), class_name)
        monkeypatch.setattr(cls, name, struck_after(getattr(cls, name)))

    # When two tasks run
    with bench(given) as tasks:
        first = tasks.run(short_task)
        second = tasks.run(short_task, actor_name="second")
        # Then nothing goes on measuring
        process = tasks.diagnostics.process
        timers = (*process.services.ticker._timers, *process.services.ticker._added)
        assert [timer for timer in timers if not timer.cancelled] in ([], [process._rss_watch._timer])
        if collector == "pyinstrument":
            assert not process.collectors[collector].sampler._profiles

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


def test_a_hook_that_fails_costs_the_run_and_not_the_task(bench, settings, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"])
    calls: list[int] = []

    def broken(self: Any, run: Any) -> Recording:
        raise SystemExit(3)

    monkeypatch.setattr(MemoryCollector, "record", broken)

    with bench(given) as tasks, caplog.at_level(logging.ERROR):
        for _ in range(2):
            tasks.run(lambda: calls.append(1), actor_name=f"actor{len(calls)}")

    assert calls == [1, 1]
    assert caplog.records == []


def test_the_middleware_works_in_a_shell_command(tmp_path: Path):
    """A module that adds the middleware is imported by the command line without a side effect."""
    done = subprocess.run(
        [sys.executable, "-c", "import dramatiq_diag; print(dramatiq_diag.Diagnostics().settings.off)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )

    assert done.stdout == "True\n"
    assert list(tmp_path.iterdir()) == []
