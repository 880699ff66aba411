"""Pins and deletions by hand, over both databases: what a person decided holds against cleanups and publishers."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from dramatiq_diag.errors import StoreMismatchError, StoreUnavailableError
from dramatiq_diag.maintenance.cleanup import Cleanup, Counts
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.pins import Deletion, RunIsPinnedError, RunIsRunningError, RunNotFoundError, delete, pin, unpin
from support import eventually
from support.records import artifact_record, bundle, run_record
from support.store import files

HOUR = timedelta(hours=1)


@pytest.fixture
def given(settings, database_url):
    return settings(database_url=database_url, orphan_protection_time=3600, run_retention=7200)


@pytest.fixture
def published(store):
    """A run with two artifacts that live and one that never did."""
    now = datetime.now(UTC)
    made = bundle(
        run_record(task_id="task", started_at=now - timedelta(seconds=1), finished_at=now),
        artifact_record(),
        artifact_record(b"x" * 100, name="pyinstrument_profile", status=ArtifactStatus.PARTIAL, reason="cut"),
        artifact_record(None, name="memray_profile"),
    )
    store.publish([made])
    return made


# Pins.


def test_the_cleanup_leaves_a_pinned_run_alone_until_it_is_unpinned(store, given, stored, clock, published):
    run_id = published.run.run_id

    pinned = pin(store, run_id)

    assert (pinned.run_id, pinned.artifact_count, pinned.expires_at) == (run_id, 2, None)
    assert stored(given).runs("task")[0].pinned_at == pinned.pinned_at
    clock.ahead = timedelta(days=400)
    assert Cleanup(store).run() == Counts()
    assert stored(given).data("task", "memory_profile")
    assert not stored(given).check()

    # When it is unpinned it is protected anew, and then goes like any other
    clock.ahead = timedelta(0)
    unpinned = unpin(store, run_id)
    assert (unpinned.pinned_at, unpinned.artifact_count) == (None, 2)
    assert timedelta(minutes=59) < unpinned.expires_at - datetime.now(UTC) <= HOUR
    assert Cleanup(store).run() == Counts()
    clock.ahead = 3 * HOUR
    counts = Cleanup(store).run()
    assert (counts.expired_artifacts, counts.removed_runs) == (2, 1)
    assert not stored(given).check()


def test_an_old_run_is_young_again_once_it_is_unpinned(store, given, stored, published):
    with store.session() as session:
        session.execute(update(Artifact).values(expires_at=datetime.now(UTC) - timedelta(days=9)))
    pin(store, published.run.run_id)

    unpin(store, published.run.run_id)

    assert Cleanup(store).run() == Counts()
    assert stored(given).data("task", "memory_profile")


def test_a_pinned_run_of_which_nothing_lives_keeps_its_row(store, given, stored, clock, published):
    clock.ahead = timedelta(minutes=90)
    Cleanup(store).run()

    assert pin(store, published.run.run_id).artifact_count == 0

    clock.ahead = timedelta(days=400)
    assert Cleanup(store).run().removed_runs == 0
    unpin(store, published.run.run_id)
    artifacts = stored(given).artifacts("task")
    assert artifacts["memory_profile"].status == ArtifactStatus.EXPIRED
    assert artifacts["memray_profile"].expires_at is None
    assert Cleanup(store).run().removed_runs == 1


def test_pinning_and_unpinning_twice_is_like_once(store, published):
    run_id = published.run.run_id

    assert pin(store, run_id) == pin(store, run_id)
    assert unpin(store, run_id) == unpin(store, run_id)


def test_publishing_again_neither_unpins_nor_brings_an_expiry_back(store, given, stored, clock, published):
    pinned = pin(store, published.run.run_id)

    store.publish([published])

    assert stored(given).runs("task")[0].pinned_at == pinned.pinned_at
    assert {each.expires_at for each in stored(given).artifacts("task").values()} == {None}
    clock.ahead = timedelta(days=400)
    assert Cleanup(store).run() == Counts()
    assert not stored(given).check()


def test_publishing_again_moves_the_expiry_of_what_is_not_pinned(store, given, stored, published):
    before = stored(given).artifacts("task")["memory_profile"].expires_at

    store.publish([published])

    assert stored(given).artifacts("task")["memory_profile"].expires_at > before


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time.
def test_a_pin_that_comes_while_a_cleanup_is_about_to_expire_the_run_holds(
    store,
    given,
    stored,
    clock,
    published,
    store_of,
):
    # Given a cleanup that has seen that the run is due, and waits for a pin that is not committed yet
    clock.ahead = 2 * HOUR
    cleaner, counts = store_of(given), []
    with store.session() as session:
        session.execute(update(TaskRun).values(pinned_at=datetime.now(UTC)))
        session.execute(update(Artifact).values(expires_at=None))
        cleanup = threading.Thread(target=lambda: counts.append(Cleanup(cleaner).run()))
        cleanup.start()
        eventually(lambda: is_waited_for(store), "the cleanup waits for the pin")

    # When the pin is there
    cleanup.join()

    # Then the cleanup looked again
    assert counts == [Counts()]
    assert stored(given).data("task", "memory_profile")


def is_waited_for(store) -> bool:
    with store.session() as session:
        query = (
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
            "AND query LIKE 'UPDATE dramatiq_diag_artifacts%%'"
        )
        return session.connection().exec_driver_sql(query).first() is not None


def test_a_cleanup_goes_on_after_a_batch_that_was_pinned_under_its_hands(store, clock):
    store.publish([bundle() for _ in range(3)])
    clock.ahead = 2 * HOUR

    assert Cleanup(store, expiry_batch_size=1).run().expired_artifacts == 3


# Deletions.


def test_a_deletion_takes_files_and_what_was_rendered_from_them_and_says_so(store, given, stored, published):
    names = files(store)
    for name in (names[0].partition("/")[2], str(uuid.uuid4())):
        store.cache.put(f"{name}.0.html", lambda file: file.write(b"<html>" * 1000))
    other = bundle(run_record(task_id="other"))
    store.publish([other])

    deletion = delete(store, published.run.run_id)

    assert (deletion.artifact_count, deletion.freed_bytes) == (2, 112)
    assert [entry.name for entry in store.cache.entries()] == [f"{name}.0.html"]
    artifacts = stored(given).artifacts("task")
    for name in ("memory_profile", "pyinstrument_profile"):
        assert artifacts[name].status == ArtifactStatus.DELETED
        assert artifacts[name].reason.startswith("Deleted by hand at ")
        assert artifacts[name].reason.endswith(" UTC.")
    assert artifacts["memray_profile"].status == ArtifactStatus.FAILED
    assert stored(given).data("other", "memory_profile")
    assert len(files(store)) == 1
    assert not stored(given).check()

    # And once more changes nothing
    assert delete(store, published.run.run_id) == Deletion(run_id=published.run.run_id, artifact_count=0, freed_bytes=0)
    assert stored(given).artifacts("task")["memory_profile"].reason == artifacts["memory_profile"].reason


def test_the_row_of_a_deleted_run_goes_after_the_retention(store, given, stored, clock, published):
    delete(store, published.run.run_id)

    assert Cleanup(store).run() == Counts()
    clock.ahead = 3 * HOUR
    assert Cleanup(store).run() == Counts(removed_runs=1)
    assert stored(given).runs("task") == []


def test_publishing_again_does_not_bring_back_what_was_deleted(store, given, stored, published):
    delete(store, published.run.run_id)

    store.publish([published, bundle(run_record(task_id="other"))])

    assert stored(given).artifacts("task")["memory_profile"].status == ArtifactStatus.DELETED
    assert len(files(store)) == 1
    assert not stored(given).check()


def test_a_deletion_that_died_after_the_commit_is_finished_by_the_next(store, given, stored, published, monkeypatch):
    def die(names: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.blobs, "delete", die)
    with pytest.raises(KeyboardInterrupt):
        delete(store, published.run.run_id)
    monkeypatch.undo()
    assert len(files(store)) == 2

    assert delete(store, published.run.run_id).freed_bytes == 112
    assert files(store) == []
    assert not stored(given).check()


def test_a_pinned_run_is_not_deleted(store, given, stored, published):
    pin(store, published.run.run_id)

    with pytest.raises(RunIsPinnedError, match="unpin it first"):
        delete(store, published.run.run_id)

    assert stored(given).data("task", "memory_profile")
    unpin(store, published.run.run_id)
    assert delete(store, published.run.run_id).artifact_count == 2


@pytest.mark.parametrize("mounted", [True, False])
def test_nothing_is_deleted_by_a_store_whose_blobs_are_elsewhere(store, given, stored, published, mounted):
    away = given.blob_dir.rename(given.blob_dir.with_name("away"))
    given.blob_dir.mkdir()
    if mounted:
        store.blobs.claim(uuid.uuid4())

    with pytest.raises((StoreMismatchError, StoreUnavailableError)):
        delete(store, published.run.run_id)

    for path in given.blob_dir.iterdir():
        path.unlink()
    given.blob_dir.rmdir()
    away.rename(given.blob_dir)
    assert stored(given).data("task", "memory_profile")
    assert not stored(given).check()


# Runs that are not there to be kept.


@pytest.mark.parametrize("step", [pin, unpin, delete])
def test_a_running_run_is_left_alone(store, given, stored, step):
    running = run_record(task_id="task", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    store.announce([running])

    with pytest.raises(RunIsRunningError, match="not ended"):
        step(store, running.run_id)

    assert stored(given).runs("task")[0].pinned_at is None


@pytest.mark.parametrize("step", [pin, unpin, delete])
def test_an_unknown_run_is_said(store, step):
    with pytest.raises(RunNotFoundError, match="no such run"):
        step(store, uuid.uuid4())


def test_a_deletion_and_a_pin_at_once_leave_one_of_them(store, given, stored, store_of, published):
    other, outcomes = store_of(given), {}

    def attempt(name: str, step) -> None:
        try:
            outcomes[name] = step()
        except RunIsPinnedError:
            outcomes[name] = None

    run_id = published.run.run_id
    threads = [
        threading.Thread(target=attempt, args=("pin", lambda: pin(store, run_id))),
        threading.Thread(target=attempt, args=("delete", lambda: delete(other, run_id))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    with store.session() as session:
        live = session.execute(select(Artifact).where(Artifact.status.in_(("stored", "partial")))).scalars().all()
    assert len(live) == outcomes["pin"].artifact_count == (2 if outcomes["delete"] is None else 0)
    assert not stored(given).check()
