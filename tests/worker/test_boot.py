"""Diagnostics of a process begin with its first worker and end with its last; a boot that fails leaves nothing."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import dramatiq
import pytest
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO

from dramatiq_diag import Diagnostics
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, eventually
from support.tasks import Gate, finish, middleware_under_test, running

memray = pytest.importorskip("memray")

memray = pytest.importorskip("memray")


def make_broker(diagnostics: Diagnostics) -> StubBroker:
    # Without Dramatiq's event loop: it has one a process, and the second worker that stops does not find it.
    middleware = [each for each in middleware_under_test(diagnostics) if not isinstance(each, AsyncIO)]
    return StubBroker(middleware=middleware, fail_fast_default=False)


def ours() -> list[str]:
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("dramatiq_diag"))


# Several workers in one process.


@pytest.mark.parametrize("same_broker", [True, False])
def test_a_run_of_the_second_worker_is_whole_though_the_first_one_stops(settings, stored, same_broker):
    # Given two workers, and a run of the second one
    given = settings(task_diagnostics=["memory", "memray"])
    diagnostics = Diagnostics(given)
    first_broker = make_broker(diagnostics)
    second_broker = first_broker if same_broker else make_broker(diagnostics)
    gate = Gate()
    dramatiq.actor(lambda: None, broker=first_broker, actor_name="a", queue_name="a")
    actor = dramatiq.actor(gate.wait, broker=second_broker, actor_name="b", queue_name="b", max_retries=0)
    first, second = Worker(first_broker, queues={"a"}), Worker(second_broker, queues={"b"}, worker_timeout=10)
    first.start()
    second.start()
    process = diagnostics.process
    try:
        message = actor.send()
        assert gate.reached.wait(PATIENCE_S)
        # When the first one stops, twice, and the run ends after it
        first.stop()
        first.stop()
        assert diagnostics.process is process
        gate.opened.set()
        finish(second_broker, second, "b")
    finally:
        gate.opened.set()
        second.stop()

    # Then it is stored, and with the second worker everything has ended
    assert stored(given).runs(message.message_id)[0].status == "succeeded"
    statuses = {name: each.status for name, each in stored(given).artifacts(message.message_id).items()}
    assert statuses == {"memory_profile": ArtifactStatus.STORED, "memray_profile": ArtifactStatus.STORED}
    assert diagnostics.process is None
    assert ours() == []
    first_broker.close()
    second_broker.close()


def test_a_worker_that_is_started_again_is_diagnosed_again(settings, stored):
    given = settings(task_diagnostics=["memory"])
    broker = make_broker(Diagnostics(given))
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
    ids = []
    for _ in range(2):
        with running(broker) as worker:
            ids.append(actor.send().message_id)
            finish(broker, worker, "default")
        assert ours() == []
    broker.close()

    assert {run.task_id: run.status for run in stored(given).all_runs()} == dict.fromkeys(ids, "succeeded")


class OpaqueError(Exception):
    """Dramatiq fails when it asks for the class, and the thread of its worker ends."""

    @property
    def __class__(self) -> Any:
        raise ZeroDivisionError


def test_a_run_whose_thread_ends_before_it_keeps_its_time_profile(settings, stored, monkeypatch):
    # Given a task whose exception ends the thread
    given = settings(task_diagnostics=["pyinstrument"], shutdown_timeout=1)
    broker = make_broker(Diagnostics(given))
    threads: list[threading.Thread] = []
    monkeypatch.setattr(threading, "excepthook", lambda _: None)

    def work() -> None:
        threads.append(threading.current_thread())
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            sum(range(1000))
        raise OpaqueError

    message = dramatiq.actor(work, broker=broker, max_retries=0).send()
    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    worker.start()
    eventually(lambda: threads and not threads[0].is_alive(), "the thread has ended")
    eventually(lambda: list(given.spool.rglob("*.part")), "a checkpoint is written")
    worker.stop(timeout=1)
    with running(broker):
        eventually(lambda: stored(given).runs(message.message_id), "the run is published")
    broker.close()

    artifact = stored(given).artifacts(message.message_id)["pyinstrument_profile"]
    assert (artifact.status, artifact.reason) == (
        ArtifactStatus.PARTIAL,
        "The worker was stopped while the task went on.",
    )


def test_a_task_that_outlasts_its_worker_leaves_no_tracker_behind(settings, stored):
    # Given a task under memray whose worker is stopped without waiting for it
    given = settings(task_diagnostics=["memory", "memray"], shutdown_timeout=1)
    broker = make_broker(Diagnostics(given))
    started, let_go, ended = threading.Event(), threading.Event(), threading.Event()

    def wait() -> None:
        started.set()
        let_go.wait(PATIENCE_S)
        ended.set()

    actor = dramatiq.actor(wait, broker=broker, actor_name="waits", max_retries=0)
    worker = Worker(broker, worker_timeout=10)
    worker.start()
    message = actor.send()
    try:
        assert started.wait(PATIENCE_S)
        worker.stop(timeout=1)
        # Then another Tracker may begin at once
        with memray.Tracker(destination=memray.FileDestination("/dev/null", overwrite=True)):
            pass
        # And a worker that is started again publishes what there was of the run
        with running(broker):
            eventually(lambda: stored(given).runs(message.message_id), "the run is published")
    finally:
        let_go.set()
        assert ended.wait(PATIENCE_S)
        broker.close()
    run = stored(given).runs(message.message_id)[0]
    assert (run.status, run.death_reason) == (RunStatus.INTERRUPTED, "The worker was stopped while the task went on.")
    assert {each.reason for each in stored(given).artifacts(message.message_id).values()} == {run.death_reason}
    statuses = {name: each.status for name, each in stored(given).artifacts(message.message_id).items()}
    assert statuses == {"memory_profile": ArtifactStatus.PARTIAL, "memray_profile": ArtifactStatus.PARTIAL}


def test_workers_that_two_threads_start_at_once_share_one_process(settings):
    diagnostics = Diagnostics(settings(task_diagnostics=["memory"]))
    brokers = [make_broker(diagnostics) for _ in range(4)]
    workers = [Worker(broker, worker_threads=1, worker_timeout=10) for broker in brokers]
    together = threading.Barrier(len(workers))
    seen: list[Any] = []

    def start(worker: Worker) -> None:
        together.wait(PATIENCE_S)
        worker.start()
        seen.append(diagnostics.process)

    threads = [threading.Thread(target=start, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    once = ours()
    for worker in workers:
        worker.stop()
    for broker in brokers:
        broker.close()

    assert len({id(process) for process in seen}) == 1
    assert seen[0] is not None
    assert once == sorted(set(once))
    assert ours() == []


def test_a_second_diagnostics_of_one_broker_does_nothing_and_says_so(settings, stored, caplog):
    given = settings(task_diagnostics=["memory"])
    first, second = Diagnostics(given), Diagnostics(given)
    broker = make_broker(first)
    broker.add_middleware(second)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")

    caplog.clear()  # Dramatiq warns of any middleware that is added twice.
    with caplog.at_level(logging.ERROR), running(broker) as worker:
        assert second.process is None
        task_id = actor.send().message_id
        finish(broker, worker, "default")
    broker.close()

    assert [record.getMessage() for record in caplog.records] == [
        "The broker has Diagnostics twice: the first works, and this one does not."
    ]
    assert len(stored(given).runs(task_id)) == 1


# A boot that fails.


@pytest.mark.parametrize("name", ["ticker", "saver", "publisher"])
def test_a_boot_that_fails_leaves_nothing_and_the_next_one_may_succeed(settings, stored, monkeypatch, caplog, name):
    given = settings(task_diagnostics=["memory"])
    diagnostics = Diagnostics(given)
    broker = make_broker(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
    original = threading.Thread.start

    # Given a machine on which one of our threads cannot be started
    def fail(self: threading.Thread) -> None:
        if self.name == f"dramatiq_diag.{name}":
            raise RuntimeError("can't start new thread")
        original(self)

    worker = Worker(broker, worker_timeout=10, worker_threads=1)
    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
        patch.setattr(threading.Thread, "start", fail)
        worker.start()

    # When tasks are executed there
    for _ in range(20):
        actor.send()
    finish(broker, worker, "default")

    # Then they are not diagnosed, nothing of ours is left, and the reason was said
    assert diagnostics.process is None
    assert ours() == []
    assert "Diagnostics cannot start, and this worker's tasks run without them: can't start new thread" in [
        record.getMessage() for record in caplog.records
    ]
    worker.stop()
    assert ours() == []

    # And the next worker is diagnosed
    with running(broker) as worker:
        task_id = actor.send().message_id
        finish(broker, worker, "default")
    broker.close()
    assert stored(given).runs(task_id)[0].status == "succeeded"
