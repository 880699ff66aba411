"""The middleware: what a task leaves, and what there is while it is off."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import dramatiq
import pytest
from dramatiq.broker import MessageProxy
from dramatiq.middleware import (
    Middleware,
    SkipMessage,
)

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors import Recording
from dramatiq_diag.collectors.memory import MemoryCollector
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.process import WorkerProcess
from dramatiq_diag.worker.run import Run
from support import PATIENCE_S, eventually
from support.tasks import finish

ALL_THREE = ["memory", "pyinstrument", "memray"]
ARTIFACT_NAMES = {"memory_profile", "pyinstrument_profile", "memray_profile"}


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


@pytest.mark.parametrize("is_first", [True, False])
def test_a_message_that_another_middleware_fails_is_no_success(bench, settings, stored, is_first):
    given = settings(task_diagnostics=["memory"])
    calls: list[int] = []

    class FailAll(Middleware):
        def before_process_message(self, broker, message):
            message.fail()

    with bench(given) as tasks:
        order = {"before": Diagnostics} if is_first else {"after": Diagnostics}
        tasks.broker.add_middleware(FailAll(), **order)
        task_id = tasks.run(lambda: calls.append(1))

    assert calls == []  # Dramatiq did not execute it.
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.FAILED


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


@pytest.mark.parametrize("place", ["begin", "end"])
def test_an_error_of_our_own_that_is_no_exception_is_logged_and_changes_no_task(
    bench, settings, monkeypatch, caplog, place
):
    class Panic(BaseException):
        pass

    def broken(self: Any, *_: Any) -> Any:
        raise Panic

    calls: list[int] = []
    with bench(settings(task_diagnostics=["memory"])) as tasks, monkeypatch.context() as patch:
        patch.setattr(WorkerProcess, place, broken)
        for number in range(2):
            tasks.run(lambda: calls.append(1), actor_name=f"actor{number}")
        patch.undo()
        tasks.diagnostics.process.log.write()

    assert calls == [1, 1]
    assert f"The diagnostics of a task failed to {place}." in caplog.text


def test_an_end_that_fails_leaves_a_run_with_its_status(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])

    def broken(self: Any, *_: Any) -> Any:
        raise MemoryError

    with bench(given) as tasks:
        monkeypatch.setattr(Run, "end", broken)
        task_id = tasks.run(short_task, actor_name="broken")
        monkeypatch.undo()
        after = tasks.run(short_task, actor_name="whole")
        assert tasks.diagnostics.process.runs == {}
        assert tasks.diagnostics.process.unsaved == set()

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SUCCEEDED
    assert run.duration_ms >= 0.0
    assert stored(given).runs(after)[0].status == RunStatus.SUCCEEDED


def test_a_message_that_is_executed_within_a_task_does_not_lose_the_run_of_that_task(bench, settings, stored):
    """As brokers do that execute a message at once, on the thread that sends it."""
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        inner = tasks.actor(short_task, actor_name="inner")

        def outer() -> None:
            proxy = MessageProxy(inner.message())
            tasks.broker.emit_before("process_message", proxy)
            tasks.broker.emit_after("process_message", proxy, result=None)

        outer_id = tasks.run(outer, actor_name="outer")
        assert tasks.diagnostics.process.runs == {}
        assert tasks.diagnostics.process.unsaved == set()

    assert [run.status for run in stored(given).runs(outer_id)] == [RunStatus.INTERRUPTED]
    assert {run.actor_name for run in stored(given).all_runs()} == {"outer", "inner"}


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
