"""The store, over both databases: what is published is there, once, and knows where it belongs."""

from __future__ import annotations

import math
import uuid
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from dramatiq_diag.errors import SchemaError, StoreError, StoreMismatchError, StoreUnavailableError
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.models import StoreState
from dramatiq_diag.store.pins import pin
from dramatiq_diag.store.records import FinishedRun, artifact_id
from dramatiq_diag.store.store import Store
from support.records import artifact_record, bundle, run_record


def test_what_was_published_is_there_whole(store, given, stored):
    published = bundle(
        run_record(peak_rss_bytes=2**40, exception_type="ValueError", exception_message="x", overlapped_task_ids=["a"])
    )

    store.publish([published])

    (run,) = stored(given).runs(published.run.task_id)
    for name, value in vars(published.run).items():
        assert name in ("without_capture", "is_attached") or getattr(run, name) == value
    assert run.started_at.tzinfo is not None
    artifact = stored(given).artifacts(run.task_id)["memory_profile"]
    assert artifact.artifact_id == artifact_id(run.run_id, "memory_profile")
    assert artifact.size_bytes == 12
    assert stored(given).data(run.task_id, "memory_profile") == b"0.000\t1.000\n"
    assert not stored(given).check()


def test_an_artifact_without_a_file_is_a_row_with_a_reason(store, given, stored):
    published = bundle(None, artifact_record(None, status=ArtifactStatus.UNAVAILABLE, reason="pip install it"))

    store.publish([published])

    artifact = stored(given).artifacts(published.run.task_id)["memory_profile"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.UNAVAILABLE, "pip install it")
    assert (artifact.blob_name, artifact.size_bytes, artifact.sha256, artifact.expires_at) == (None, None, None, None)


def test_expiry_counts_from_the_later_of_end_and_publication(settings, store_of, stored, database_url):
    given = settings(orphan_protection_time=1000, database_url=database_url)
    store = store_of(given)
    now = datetime.now(UTC)
    old = bundle(run_record(finished_at=now - timedelta(days=3)))
    future = bundle(run_record(finished_at=now + timedelta(days=3)))

    store.publish([old, future])

    expiry = [stored(given).artifacts(each.run.task_id)["memory_profile"].expires_at - now for each in (old, future)]
    assert timedelta(seconds=1000) <= expiry[0] < timedelta(seconds=1060)
    assert timedelta(days=3) <= expiry[1] < timedelta(days=3, seconds=1060)


def test_all_artifacts_of_a_batch_appear_together_or_not_at_all(store, given, stored):
    good = bundle()
    bad = bundle(None, artifact_record(), artifact_record(name="memory_profile_2", filename="x" * 300 + "\ud800"))

    with pytest.raises((StoreError, UnicodeError)):
        store.publish([good, bad])

    assert stored(given).all_runs() == []


def test_publishing_again_keeps_one_row_and_one_blob(store, given, stored):
    published = bundle()

    store.publish([published])
    store.publish([published])

    assert len(stored(given).all_runs()) == 1
    assert len([found for found in store.blobs.scan() if found.is_blob]) == 1
    assert not stored(given).check()


def test_publishing_again_after_the_file_left_the_spool_takes_nothing_away(store, given, stored):
    # Given a worker that died between removing an artifact's file from the spool and removing the entry
    run = run_record()
    store.publish([bundle(run)])

    store.publish([bundle(run, artifact_record(None, reason="The collector left no file."))])

    assert stored(given).data(run.task_id, "memory_profile") == b"0.000\t1.000\n"
    assert not stored(given).check()


def raises(error: type[Exception]) -> Any:
    def call(*_: Any) -> None:
        raise error

    return call


def test_publishing_again_on_another_day_leaves_no_second_blob(store, given, stored, monkeypatch):
    published = bundle()

    # Given a database that fails just before midnight, after the blobs were put
    with monkeypatch.context() as patch:
        patch.setattr(Store, "session", raises(StoreUnavailableError))
        with pytest.raises(StoreUnavailableError):
            store.publish([published])
    assert len(list(store.blobs.scan())) == 1

    # When it is published again, on whatever day
    store.publish([published])

    # Then there is one blob, in the directory of the day that the run began
    (blob,) = store.blobs.scan()
    assert blob.name.partition("/")[0] == "20260504"
    assert not stored(given).check()


def test_a_running_run_becomes_an_ended_one_and_never_back(store, given, stored):
    run_id, task_id = uuid.uuid4(), "task"
    running = run_record(run_id=run_id, task_id=task_id, status=RunStatus.RUNNING, finished_at=None, duration_ms=None)

    store.announce([running])
    assert [run.status for run in stored(given).runs(task_id)] == [RunStatus.RUNNING]
    store.publish([bundle(run_record(run_id=run_id, task_id=task_id))])
    store.announce([running])
    store.announce([])

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SUCCEEDED
    assert run.finished_at is not None


def cut_short(published, *artifacts):
    """Returns: What a salvager would publish of the same run if its worker had died in the middle of it."""
    died = replace(
        published.run,
        status=RunStatus.INTERRUPTED,
        finished_at=published.run.started_at + timedelta(seconds=0.5),
        duration_ms=500.0,
        death_reason="Its process died.",
    )
    return FinishedRun(run=died, artifacts=artifacts, is_cut_short=True)


def test_a_restored_spool_takes_nothing_away_from_what_is_published(store, given, stored):
    # Given a run and an attachment that are published whole
    published, attachment_id = bundle(), uuid.uuid4()
    running = replace(published.run, status=RunStatus.RUNNING, finished_at=None)
    attached = FinishedRun(run=running, artifacts=[artifact_record(b"whole")], attachment_id=attachment_id)
    store.publish([published, attached])

    # When a backup of the spool is restored that was made while they went on, and what it has is salvaged
    part = artifact_record(b"0.000", status=ArtifactStatus.PARTIAL, reason="It died.")
    store.publish([cut_short(published, part), replace(attached, artifacts=[part], is_cut_short=True)])

    # Then both are what they were
    (run,) = stored(given).runs(published.run.task_id)
    assert (run.status, run.duration_ms, run.death_reason) == (RunStatus.SUCCEEDED, 1000.5, None)
    assert stored(given).data(run.task_id, "memory_profile") == b"0.000\t1.000\n"
    ((artifact,),) = stored(given).attached().values()
    assert (artifact.status, artifact.size_bytes) == (ArtifactStatus.STORED, 5)
    assert not stored(given).check()


@pytest.mark.parametrize("pinned", [False, True])
def test_a_run_that_only_seemed_to_have_died_gets_its_true_end(store, given, stored, pinned):
    # Given a run that goes on, and that another host has salvaged, as with a spool of two hosts without locks
    gone = artifact_record(None, name="gone", filename="gone", reason="The collector left no file.")
    published = bundle(None, artifact_record(), artifact_record(name="late", filename="late"), gone)
    part = artifact_record(b"0.000", status=ArtifactStatus.PARTIAL, reason="It died.")
    nothing = artifact_record(None, name="late", filename="late")
    taken = artifact_record(b"part", name="gone", filename="gone", status=ArtifactStatus.PARTIAL, reason="It died.")
    store.publish([cut_short(published, part, nothing, taken)])
    if pinned:
        pin(store, published.run.run_id)

    # When its worker publishes it, twice, as after a fault
    store.publish([published])
    store.publish([published])

    # Then it has its end and its files, which expire as any others, and none says that the worker died
    (run,) = stored(given).runs(published.run.task_id)
    assert (run.status, run.duration_ms, run.death_reason) == (RunStatus.SUCCEEDED, 1000.5, None)
    artifacts = stored(given).artifacts(run.task_id)
    assert {name: artifact.status for name, artifact in artifacts.items()} == {
        "memory_profile": ArtifactStatus.STORED,
        "late": ArtifactStatus.STORED,
        "gone": ArtifactStatus.PARTIAL,
    }
    assert "as if its worker had died" in artifacts["gone"].reason
    assert {artifact.expires_at is None for artifact in artifacts.values()} == {pinned}
    assert stored(given).data(run.task_id, "late") == stored(given).data(run.task_id, "memory_profile")
    # Nor are the counters wrong
    assert not stored(given).check()


def test_an_expired_artifact_does_not_come_back_by_publishing_again(store, given, stored):
    from sqlalchemy import update as sql_update

    from dramatiq_diag.store.models import Artifact

    published = bundle()
    store.publish([published])
    with store.session() as session:
        session.execute(sql_update(Artifact).values(status=ArtifactStatus.EXPIRED, reason="old"))

    store.publish([published])

    assert stored(given).artifacts(published.run.task_id)["memory_profile"].status == ArtifactStatus.EXPIRED


@pytest.mark.parametrize(
    "task_id",
    [
        "",
        " ",
        "\0",
        "a\0b",
        "\ud800",
        "x" * 10_000,
        "/../../etc/passwd",
        "%00?attempt=1#",
        "'; DROP TABLE task_runs; --",
        "ünïcödé 😀",
        "a\nb\r\n",
    ],
)
def test_any_string_is_a_task_id(store, given, stored, task_id):
    store.publish([bundle(run_record(task_id=task_id)), bundle(run_record(task_id=task_id + "x"))])

    assert len(stored(given).runs(task_id)) == 1
    assert set(stored(given).artifacts(task_id)) == {"memory_profile"}


@pytest.mark.parametrize("task_id", ["a\0", "\ud800", "ok"])
def test_the_id_that_is_shown_leads_to_the_task(store, given, stored, task_id):
    store.publish([bundle(run_record(task_id=task_id)), bundle(run_record(task_id="another"))])

    (run,) = stored(given).runs(task_id)

    assert [again.run_id for again in stored(given).runs(run.task_id)] == [run.run_id]


@pytest.mark.parametrize(
    "changes",
    [
        {"actor_name": "a" * 1000, "queue_name": "q\0" * 300, "hostname": "\ud800" * 300},
        {"exception_type": "E" * 1000, "exception_message": "\0\ud800" * 100_000},
        {"overlapped_task_ids": ["\0", "\ud800"]},
        {"pid": 2**62, "peak_rss_bytes": 2**62},
        {"duration_ms": 0.0},
    ],
)
def test_what_a_column_cannot_hold_is_made_fit(store, given, stored, changes):
    published = bundle(run_record(**changes))

    store.publish([published])

    assert len(stored(given).runs(published.run.task_id)) == 1


def test_a_naive_datetime_is_refused(store):
    with pytest.raises(StoreError):
        store.publish([bundle(run_record(started_at=datetime(2026, 1, 1)))])  # noqa: DTZ001 - that is the point.


def test_a_duration_that_is_no_number_does_not_reach_the_rows(store, given, stored):
    published = bundle(run_record(duration_ms=math.nan))

    try:
        store.publish([published])
    except StoreError:
        return
    (run,) = stored(given).runs(published.run.task_id)
    assert run.duration_ms is None or math.isnan(run.duration_ms)


# One store, two halves.


def test_database_and_blob_root_know_each_other(store):
    assert store.blobs.store_id() == store.store_id()
    store.check_identity()


def test_halves_of_two_stores_are_refused(store, given):
    with store.session() as session:
        session.execute(update(StoreState).values(store_id=uuid.uuid4()))

    with pytest.raises(StoreMismatchError, match="DRAMATIQ_DIAG_BLOB_URL"):
        store.check_identity()


def test_blobs_without_an_id_are_refused(store):
    store.publish([bundle()])
    (store.blobs.root / ".store-id").unlink()

    with pytest.raises(StoreMismatchError, match="not known"):
        store.check_identity()


def test_an_empty_blob_directory_is_not_taken_for_that_of_a_store_in_use(store, given, store_of, stored):
    published = bundle()
    store.publish([published])
    away = given.blob_dir.rename(given.blob_dir.with_name("away"))

    # Given a disk that is not mounted, and a worker that boots or goes on
    given.blob_dir.mkdir()
    for each in (store, store_of(given)):
        with pytest.raises(StoreUnavailableError, match="is away"):
            each.publish([bundle()])
        with pytest.raises(StoreMismatchError, match="--blobs-lost"):
            each.check_identity()
    assert list(given.blob_dir.iterdir()) == []

    # When it is mounted
    given.blob_dir.rmdir()
    away.rename(given.blob_dir)
    store.publish([bundle()])

    # Then nothing was lost
    assert stored(given).data(published.run.task_id, "memory_profile")
    assert not stored(given).check()


def test_a_blob_directory_that_goes_away_while_blobs_are_put_is_noticed_before_their_rows(
    store, given, stored, monkeypatch
):
    published = bundle()
    original = LocalBlobStore.sync

    def vanish(blobs: LocalBlobStore, names: Any) -> None:
        original(blobs, names)
        given.blob_dir.rename(given.blob_dir.with_name("away"))
        given.blob_dir.mkdir()

    monkeypatch.setattr(LocalBlobStore, "sync", vanish)

    with pytest.raises(StoreUnavailableError):
        store.publish([published])
    assert stored(given).runs(published.run.task_id) == []


def test_opening_an_unused_store_makes_it(settings, store_of, tmp_path):
    given = settings(data_dir=tmp_path / "not" / "there" / "yet")

    store_of(given)

    assert (given.data_dir / "diagnostics.db").is_file()
    assert given.blob_dir.is_dir()


def test_a_database_that_cannot_be_reached_is_said(settings, tmp_path):
    store = Store(settings(database_url=f"sqlite:///{tmp_path}/no/such/directory/x.db"))

    with pytest.raises(StoreUnavailableError, match="database cannot be used"):
        store.open()
    store.close()


def test_a_server_that_does_not_answer_is_said(settings, tmp_path):
    pytest.importorskip("psycopg")
    store = Store(settings(database_url=f"postgresql://nobody@/x?host={tmp_path}"))

    with pytest.raises(StoreUnavailableError, match="database cannot be used"):
        store.open()
    store.close()


def test_a_database_without_a_schema_is_not_migrated_unasked(settings, tmp_path):
    store = Store(settings(database_url=f"sqlite:///{tmp_path}/elsewhere.db"))

    with pytest.raises(SchemaError, match="dramatiq-diag migrate"):
        store.open()
    store.close()


def test_the_turn_to_clean_up_is_taken_once_per_interval(settings, store_of, database_url):
    given = settings(cleanup_interval=3600, database_url=database_url)
    first, second = store_of(given), store_of(given)

    assert [store.claim_cleanup() for store in (first, second, first)] == [True, False, False]
    first.release_cleanup()
    assert [store.claim_cleanup() for store in (second, first)] == [True, False]


@pytest.mark.parametrize(
    ("age", "due"), [(timedelta(hours=2), True), (timedelta(minutes=30), False), (timedelta(days=-1), True)]
)
def test_the_turn_comes_back_after_the_interval_and_after_a_wrong_clock(settings, store_of, database_url, age, due):
    store = store_of(settings(cleanup_interval=3600, database_url=database_url))
    with store.session() as session:
        session.execute(update(StoreState).values(last_cleanup_at=datetime.now(UTC) - age))

    assert store.claim_cleanup() is due


def test_a_root_that_another_process_claims_during_the_check_is_no_mismatch(given, monkeypatch):
    with closing(Store(given)) as store, closing(Store(given)) as other:
        read_id, looks = store.blobs.read_id, list[Any]()

        def read_before_a_claim() -> Any:
            looks.append(read_id())
            if len(looks) == 1:
                other.publish([bundle()])
            return looks[-1]

        monkeypatch.setattr(store.blobs, "read_id", read_before_a_claim)
        store.check_identity()
        assert looks[0] is None
        assert looks[-1].root_id == other.identity().root_id
