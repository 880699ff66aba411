"""The cleanup actor: scheduled once per interval, and executed by a worker."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.middleware import Middleware

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.cleanup import register_cleanup
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.policy.propagation import CLEANUP_ACTOR
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.cleanup_schedule import run_cleanup
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, RABBITMQ_URL, eventually
from support.tasks import Gate, finish

#: A worker that looks at the schedule many times a second.
QUICK = Tuning(schedule_s=0.0, attention_s=0.05, report_s=0.05)


def enqueued(broker: Any) -> list[str]:
    """Counts the cleanups that are sent to a broker from now on. Returns: A list that grows."""
    sent: list[str] = []
    enqueue = broker.enqueue

    def note(message: Any, **options: Any) -> Any:
        if message.actor_name == CLEANUP_ACTOR:
            sent.append(message.message_id)
        return enqueue(message, **options)

    broker.enqueue = note
    return sent


def claims(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Returns: A list that grows with each look at the schedule."""
    made: list[bool] = []
    claim = Store.claim_cleanup

    def note(store: Store) -> bool:
        made.append(claim(store))
        return made[-1]

    monkeypatch.setattr(Store, "claim_cleanup", note)
    return made


def test_its_name_is_what_the_documentation_says():
    assert CLEANUP_ACTOR == "dramatiq_diag.cleanup_orphans"


def test_a_worker_schedules_it_and_it_removes_what_is_old(settings, stub_broker, run_worker, stored, queue_name):
    # Given artifacts past their protection time
    given = settings(task_diagnostics=["memory"], cleanup_interval=3600, orphan_protection_time=0)
    diagnostics = Diagnostics(given, tuning=QUICK)
    stub_broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")

    # When a worker runs
    with run_worker(stub_broker) as worker:
        task_id = actor.send().message_id
        finish(stub_broker, worker, "default")
        assert diagnostics.flush(PATIENCE_S)
        reader = stored(given)
        stub_broker.actors[CLEANUP_ACTOR].send()
        finish(stub_broker, worker, queue_name)

    # Then they are expired, their files are gone, and the cleanup itself has no run
    artifact = reader.artifacts(task_id)["memory_profile"]
    assert artifact.status == ArtifactStatus.EXPIRED
    assert list(reader.store.blobs.scan()) == []
    assert {run.actor_name for run in reader.all_runs()} == {"work"}
    assert not reader.check()


def test_it_is_enqueued_once_per_interval_across_workers_that_share_a_database(
    settings, run_worker, database_url, stored, monkeypatch
):
    from dramatiq.brokers.stub import StubBroker

    given = settings(task_diagnostics=["memory"], cleanup_interval=3600, database_url=database_url)

    # When three workers with brokers of their own run for a while
    looks = claims(monkeypatch)
    brokers = [StubBroker(middleware=[Diagnostics(given, tuning=QUICK)]) for _ in range(3)]
    sent = [enqueued(broker) for broker in brokers]
    for broker in brokers:
        with run_worker(broker):
            eventually(lambda: sum(map(len, sent)) == 1, "one cleanup is enqueued")
            seen = len(looks)
            eventually(lambda seen=seen: len(looks) >= seen + 3, "the schedule was looked at")
        broker.close()

    # Then one cleanup was enqueued
    assert sum(map(len, sent)) == 1


def test_it_is_enqueued_again_after_the_interval(settings, stub_broker, run_worker):
    given = settings(task_diagnostics=["memory"], cleanup_interval=0.05)
    stub_broker.add_middleware(Diagnostics(given, tuning=QUICK))
    sent = enqueued(stub_broker)

    with run_worker(stub_broker):
        eventually(lambda: len(sent) >= 3, "three cleanups are enqueued")

    assert len(set(sent)) == len(sent)


def test_an_interval_of_zero_turns_the_schedule_off(settings, bench, monkeypatch):
    looks = claims(monkeypatch)
    with bench(settings(task_diagnostics=["memory"], cleanup_interval=0), tuning=QUICK) as tasks:
        sent = enqueued(tasks.broker)
        for number in range(3):
            tasks.run(lambda: None, actor_name=f"work{number}")
        assert CLEANUP_ACTOR in tasks.broker.actors

    assert (looks, sent) == ([], [])


def test_a_broker_that_does_not_take_it_is_asked_again(settings, stub_broker, run_worker, caplog):
    stub_broker.add_middleware(Diagnostics(settings(task_diagnostics=["memory"], cleanup_interval=3600), tuning=QUICK))
    failures: list[int] = []
    enqueue = stub_broker.enqueue

    def refuse_once(message: Any, **options: Any) -> Any:
        if not failures:
            failures.append(1)
            raise ConnectionError("the broker is away")
        return enqueue(message, **options)

    stub_broker.enqueue = refuse_once
    sent = enqueued(stub_broker)

    with run_worker(stub_broker):
        eventually(lambda: len(sent) == 2, "it is enqueued again")

    assert any("the broker is away" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("queues", "listens"), [(None, True), ({"low", "tasks"}, True), ({"tasks"}, False)])
def test_a_worker_that_leaves_its_queue_out_executes_it_itself(
    settings, stub_broker, run_worker, stored, queues, listens
):
    # Given an artifact past its protection time
    given = settings(task_diagnostics=["memory"], cleanup_queue="low", orphan_protection_time=0)
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work", queue_name="tasks")
    first = Diagnostics(given)
    stub_broker.add_middleware(first)
    with run_worker(stub_broker, queues={"tasks"}) as worker:
        task_id = actor.send().message_id
        finish(stub_broker, worker, "tasks")
        assert first.flush(PATIENCE_S)
    stub_broker.middleware.remove(first)

    # When a worker takes the turn
    stub_broker.add_middleware(Diagnostics(replace(given, cleanup_interval=3600), tuning=QUICK))
    sent = enqueued(stub_broker)
    with run_worker(stub_broker, queues=queues):
        eventually(lambda: _expired(stored, given, task_id), "the artifact is expired")

    # Then the cleanup went through the queue only where the worker listens to that
    assert len(sent) == (1 if listens else 0)


def test_a_cleanup_that_a_worker_executes_itself_ends_with_the_worker(
    settings, stub_broker, run_worker, monkeypatch, caplog
):
    # Given a cleanup of which each batch is followed by another one
    batches: list[int] = []

    class EndlessCleanup:
        def __init__(self, store: Any, *, on_batch: Any) -> None:
            self.on_batch = on_batch

        def run(self) -> None:
            while True:
                batches.append(1)
                self.on_batch(None)

    monkeypatch.setattr("dramatiq_diag.maintenance.cleanup.Cleanup", EndlessCleanup)
    diagnostics = Diagnostics(
        settings(task_diagnostics=["memory"], cleanup_interval=3600, cleanup_queue="low"), tuning=QUICK
    )
    stub_broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work", queue_name="tasks")

    # When the worker stops meanwhile, then what it has collected until then is published, and the cleanup has ended
    with run_worker(stub_broker, queues={"tasks"}) as worker:
        eventually(lambda: batches, "the cleanup goes on")
        actor.send()
        finish(stub_broker, worker, "tasks")
        assert diagnostics.flush(PATIENCE_S)
    assert [thread.name for thread in threading.enumerate() if thread.name == "dramatiq_diag.cleanup"] == []
    assert [record for record in caplog.records if record.levelno >= logging.WARNING and "cleanup" in record.name] == []


def test_a_worker_without_diagnostics_never_gets_it(settings, broker, run_worker, stored, queue_name):
    # Given a broker, and on its queue of tasks a worker without diagnostics that shares it
    has_queues_of_its_own = not hasattr(broker, "connection")  # RabbitMQ is shared by all that test at once.
    own = {} if has_queues_of_its_own else {"cleanup_queue": f"{queue_name}.diag"}
    given = Settings(
        task_diagnostics=["memory"],
        data_dir=settings().data_dir,
        cleanup_interval=3600,
        orphan_protection_time=0,
        **own,
    )
    without = _another(broker)
    dramatiq.actor(lambda: None, broker=without, actor_name="work", queue_name=queue_name)
    seen: list[str] = []
    without.add_middleware(_Seen(seen))
    diagnostics = Diagnostics(given, tuning=QUICK)
    broker.add_middleware(diagnostics)
    actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work", queue_name=queue_name)
    executed: list[str] = []
    broker.add_middleware(_Seen(executed))

    # When both work, and a cleanup is due again and again
    with run_worker(without) as worker:
        with run_worker(broker) as other:
            for _ in range(10):
                actor.send()
            eventually(lambda: CLEANUP_ACTOR in executed, "the cleanup is executed")
            finish(broker, other, queue_name)
            broker.actors[CLEANUP_ACTOR].send()
            finish(broker, other, given.cleanup_queue)
        finish(without, worker, queue_name)

    # Then the one without has had tasks alone
    assert set(seen) <= {"work"}
    assert executed.count(CLEANUP_ACTOR) == 2
    assert given.cleanup_queue not in without.queues
    if not has_queues_of_its_own:
        for suffix in ("", ".DQ", ".XQ"):
            broker.channel.queue_delete(f"{given.cleanup_queue}{suffix}")
    without.close()


class _Seen(Middleware):
    """Notes the actors of the messages that a worker gets, those that it does not know as well."""

    def __init__(self, actors: list[str]) -> None:
        self._actors = actors

    def before_process_message(self, broker: Any, message: Any) -> None:
        self._actors.append(message.actor_name)


def _another(broker: Any) -> Any:
    """Returns: Another broker with the same queues, as another process has it; in memory there are none to share."""
    from dramatiq.brokers.stub import StubBroker

    if isinstance(broker, StubBroker):
        return StubBroker(middleware=[])
    if hasattr(broker, "connection"):
        return type(broker)(url=RABBITMQ_URL, middleware=[])
    return type(broker)(client=broker.client, namespace=broker.namespace, middleware=[])


def test_a_cleanup_overlaps_no_task(settings, stub_broker, run_worker, stored, queue_name, monkeypatch):
    # Given a task and a cleanup at the same time
    gate = Gate()
    monkeypatch.setattr("dramatiq_diag.worker.cleanup_schedule.run_cleanup", lambda _: gate.wait())
    given = settings(task_diagnostics=["memory"])
    stub_broker.add_middleware(Diagnostics(given))
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")

    with run_worker(stub_broker, threads=2) as worker:
        stub_broker.actors[CLEANUP_ACTOR].send()
        assert gate.reached.wait(PATIENCE_S)
        task_id = actor.send().message_id
        finish_tasks = threading.Thread(target=stub_broker.join, args=("default",))
        finish_tasks.start()
        finish_tasks.join(PATIENCE_S)
        gate.opened.set()
        finish(stub_broker, worker, queue_name)

    # Then the task's run names nothing that ran beside it
    assert stored(given).runs(task_id)[0].overlapped_task_ids == []


def _expired(stored: Any, given: Settings, task_id: str) -> bool:
    return stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.EXPIRED


def test_a_cleanup_that_fails_is_not_retried(settings, stub_broker, run_worker, queue_name, tmp_path):
    (tmp_path / "a file").touch()
    given = settings(task_diagnostics=["memory"], blob_url=str(tmp_path / "a file" / "blobs"))
    stub_broker.add_middleware(Diagnostics(given))
    actor = register_cleanup(stub_broker)

    with run_worker(stub_broker) as worker:
        actor.send()
        finish(stub_broker, worker, queue_name)

    assert [message.actor_name for message in stub_broker.dead_letters] == [CLEANUP_ACTOR]


def test_a_cleanup_beside_publishing_workers_loses_nothing(
    settings, stub_broker, run_worker, stored, queue_name, database_url
):
    # Given tasks that are published while one cleanup follows another
    given = settings(task_diagnostics=["memory"], database_url=database_url)
    diagnostics = Diagnostics(given)
    stub_broker.add_middleware(diagnostics)
    work = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")
    stop = threading.Event()

    def keep_cleaning() -> None:
        while not stop.is_set():
            try:
                run_cleanup(given)
                rounds.append(1)
            except StoreUnavailableError as error:
                failures.append(str(error))

    rounds: list[int] = []
    failures: list[str] = []
    thread = threading.Thread(target=keep_cleaning, daemon=True)
    with run_worker(stub_broker, threads=4) as worker:
        thread.start()
        try:
            ids = [work.send().message_id for _ in range(200)]
            finish(stub_broker, worker, "default")
            assert diagnostics.flush(PATIENCE_S)
            eventually(lambda: len(rounds) > 1, "a cleanup is done")
        finally:
            stop.set()
            thread.join()

    # Then all of them are there, whole
    assert {run.task_id for run in stored(given).all_runs()} == set(ids)
    # And no cleanup failed, unless the machine paused for half a minute
    assert [failure for failure in failures if "statement timeout" not in failure] == []
    assert not stored(given).check()
