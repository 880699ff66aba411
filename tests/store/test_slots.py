"""Slots of captures: as many runs as were asked for, over all processes of a database, and not one more."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, update
from sqlalchemy.orm import Session

from dramatiq_diag.errors import StoreError
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.captures import CaptureState, end
from dramatiq_diag.store.models import Capture
from dramatiq_diag.store.records import NO_SLOT, FinishedRun
from dramatiq_diag.store.runs import all_artifacts_of
from dramatiq_diag.store.slots import open_captures
from dramatiq_diag.store.store import Store
from support import PATIENCE_S
from support.captures import ask, captured, running, runs_of, settings_for_captures, standing
from support.records import artifact_record, bundle, run_record

_CLAIM = """
import sys, threading, uuid
from datetime import UTC, datetime
from dramatiq_diag import Settings
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.records import RunRecord
from dramatiq_diag.store.store import Store

store = Store(Settings(data_dir=sys.argv[1], database_url=sys.argv[2] or None, cleanup_interval=0))
store.open()
won = []

def claim():
    for _ in range(10):
        run = RunRecord(
            run_id=uuid.uuid4(), task_id=str(uuid.uuid4()), actor_name="work", queue_name="default", hostname="host",
            pid=1, status=RunStatus.RUNNING, started_at=datetime.now(UTC), capture_id=uuid.UUID(sys.argv[3]),
            without_capture=[],
        )
        if not store.announce([run]):
            won.append(run.run_id)

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=claim) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
store.close()
print(*won, flush=True)
"""


@pytest.fixture
def given(settings, database_url):
    return settings_for_captures(settings, database_url)


def at_once(*calls):
    """Makes the calls on threads that begin together."""
    barrier, errors = threading.Barrier(len(calls)), []

    def make(call) -> None:
        barrier.wait()
        try:
            call()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_run_has_one_slot_however_often_it_is_announced_and_published(store):
    capture_id = ask(store, runs=2)
    run = captured(capture_id)

    assert store.announce([run.as_running()]) == set()
    assert standing(store, capture_id).captured_runs == 1
    assert [found.status for found in runs_of(store, capture_id)] == ["running"]
    store.announce([run.as_running()])
    for _ in range(2):
        store.publish([bundle(run)])

    assert standing(store, capture_id).captured_runs == 1
    assert [found.status for found in runs_of(store, capture_id)] == ["succeeded"]


def test_a_run_that_was_never_announced_has_its_slot_when_it_is_published(store, stored, given):
    capture_id = ask(store)
    run = captured(capture_id, task_id="task")

    store.publish([bundle(run)])

    assert standing(store, capture_id).state == CaptureState.COMPLETE
    assert [found.run_id for found in runs_of(store, capture_id)] == [run.run_id]
    assert stored(given).artifacts("task")["memory_profile"].status == ArtifactStatus.STORED


def test_the_last_slot_ends_a_capture_and_a_run_too_many_leaves_no_trace(store, stored, given):
    capture_id = ask(store, runs=2)
    runs = [captured(capture_id) for _ in range(3)]

    store.publish([bundle(run) for run in runs])

    done = standing(store, capture_id)
    assert (done.state, done.captured_runs) == (CaptureState.COMPLETE, 2)
    assert done.capture.ended_at is not None
    assert {found.run_id for found in stored(given).all_runs()} == {run.run_id for run in runs[:2]}
    assert store.announce([captured(capture_id).as_running()])
    assert len(stored(given).all_runs()) == 2
    assert not stored(given).check()


def test_a_run_without_a_slot_keeps_what_it_has_without_the_capture(store, stored, given):
    capture_id = ask(store, names=("pyinstrument",))
    store.announce([running(capture_id)])
    late = captured(capture_id, "memory_profile", task_id="late")
    profile = {"name": "pyinstrument_profile", "filename": "pyinstrument.html", "media_type": "text/html"}

    assert store.announce([late.as_running()]) == {late.run_id}
    store.publish([bundle(late, artifact_record(), artifact_record(b"profile", **profile))])

    artifacts = stored(given).artifacts("late")
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    dropped = artifacts["pyinstrument_profile"]
    assert (dropped.status, dropped.reason, dropped.blob_name) == (ArtifactStatus.DROPPED, NO_SLOT, None)
    assert standing(store, capture_id).captured_runs == 1
    assert not stored(given).check()


@pytest.mark.parametrize("is_announced", [True, False])
@pytest.mark.parametrize("attached_first", [True, False])
def test_what_was_attached_to_a_run_without_a_slot_stays(store, stored, given, is_announced, attached_first):
    capture_id = ask(store)
    store.announce([running(capture_id)])
    late = captured(capture_id, task_id="late", is_attached=True)
    attached = FinishedRun(
        run=replace(late.as_running(), capture_id=None, without_capture=None, is_attached=False),
        artifacts=[artifact_record()],
        attachment_id=uuid.uuid4(),
    )

    if is_announced:
        assert store.announce([late.as_running()]) == {late.run_id}
    for finished in (attached, bundle(late)) if attached_first else (bundle(late), attached):
        store.publish([finished])

    (found,) = stored(given).runs("late")
    assert (found.status, found.capture_id) == ("succeeded", None)
    with store.session() as session:
        statuses = {artifact.attachment_id: artifact.status for artifact in all_artifacts_of(session, late.run_id)}
    assert statuses == {None: ArtifactStatus.DROPPED, attached.attachment_id: ArtifactStatus.STORED}
    assert standing(store, capture_id).captured_runs == 1
    assert not stored(given).check()


def test_a_run_that_lost_its_slot_has_none_later_either(store, stored, given):
    capture_id = ask(store)
    store.announce([running(capture_id)])
    run = captured(capture_id, "memory_profile", task_id="late")

    for _ in range(2):
        assert store.announce([run.as_running()]) == {run.run_id}
    store.publish([bundle(run)])

    assert standing(store, capture_id).captured_runs == 1
    (found,) = stored(given).runs("late")
    assert (found.status, found.capture_id) == ("succeeded", None)


def test_no_slot_is_claimed_of_a_capture_that_was_ended_or_removed(store):
    by_hand, unknown = ask(store), uuid.uuid4()
    end(store, by_hand)

    runs = [running(by_hand), running(unknown)]

    assert store.announce(runs) == {run.run_id for run in runs}
    assert standing(store, by_hand).captured_runs == 0


def test_a_run_that_began_in_time_has_a_slot_after_the_time_as_well(store):
    capture_id = ask(store, runs=2)
    with store.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(Capture).where(Capture.capture_id == capture_id).values(expires_at=past))
        assert open_captures(session) == []

    assert store.announce([running(capture_id)]) == set()
    made = standing(store, capture_id)
    assert (made.state, made.captured_runs) == (CaptureState.EXPIRED, 1)


def test_a_run_with_the_permit_of_an_older_version_is_published_without_a_slot(store):
    capture_id = ask(store)
    end(store, capture_id)
    run = run_record(capture_id=capture_id)

    store.publish([bundle(run)])

    assert [found.run_id for found in runs_of(store, capture_id)] == [run.run_id]
    assert standing(store, capture_id).captured_runs == 0


def test_a_commit_whose_answer_was_lost_is_no_second_slot(store):
    capture_id = ask(store, runs=2)
    run = captured(capture_id)

    def lose_the_answer(_session):
        event.remove(Session, "after_commit", lose_the_answer)
        raise ConnectionError

    event.listen(Session, "after_commit", lose_the_answer)
    with pytest.raises(ConnectionError):
        store.publish([bundle(run)])
    assert standing(store, capture_id).captured_runs == 1
    store.publish([bundle(run)])

    assert standing(store, capture_id).captured_runs == 1


def test_a_transaction_that_failed_claims_nothing(store):
    capture_id = ask(store)

    def fail(session):
        raise StoreError("away")

    event.listen(Session, "before_commit", fail)
    with pytest.raises(StoreError):
        store.announce([running(capture_id)])
    event.remove(Session, "before_commit", fail)

    assert standing(store, capture_id).captured_runs == 0
    assert runs_of(store, capture_id) == []


def test_the_last_slots_end_a_capture_also_where_two_are_claimed_at_once(given, store, store_of):
    captures = [ask(store, runs=2) for _ in range(20)]

    def claim_all(own: Store):
        return lambda: [own.announce([running(capture_id)]) for capture_id in captures]

    at_once(*(claim_all(store_of(given)) for _ in range(2)))

    assert [standing(store, each).captured_runs for each in captures] == [2] * 20
    assert None not in [standing(store, each).capture.ended_at for each in captures]


def test_transactions_that_claim_slots_of_several_captures_do_not_wait_for_each_other(given, store, store_of):
    captures = [ask(store, runs=40) for _ in range(4)]

    def claim_all(own: Store, order):
        return lambda: [own.announce([running(capture_id) for capture_id in order]) for _ in range(10)]

    at_once(*(claim_all(store_of(given), order) for order in (captures, captures[::-1]) * 2))

    assert [standing(store, each).captured_runs for each in captures] == [40] * 4


def test_two_processes_that_publish_the_same_run_at_once_claim_one_slot(given, store, store_of):
    capture_id = ask(store, runs=100)
    runs = [captured(capture_id) for _ in range(20)]

    def publish_all(own: Store):
        return lambda: [own.publish([bundle(run)]) for run in runs]

    at_once(*(publish_all(store_of(given)) for _ in range(3)))

    assert standing(store, capture_id).captured_runs == 20
    assert len(runs_of(store, capture_id)) == 20


def test_threads_of_several_processes_claim_exactly_as_many_slots_as_there_are(given, store, python):
    capture_id = ask(store, runs=100)
    processes = [python(_CLAIM, str(given.data_dir), given.database_url or "", str(capture_id)) for _ in range(3)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()

    won = [uuid.UUID(text) for process in processes for text in process.communicate(timeout=PATIENCE_S)[0].split()]

    assert len(won) == len(set(won)) == 100
    assert {run.run_id for run in runs_of(store, capture_id)} == set(won)
    done = standing(store, capture_id)
    assert (done.state, done.captured_runs) == (CaptureState.COMPLETE, 100)
