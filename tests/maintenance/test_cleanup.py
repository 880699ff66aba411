"""Retention: what is old ends, what is young stays, over both databases."""

from __future__ import annotations

import errno
import os
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, update

from dramatiq_diag.errors import StoreMismatchError
from dramatiq_diag.maintenance.cleanup import Cleanup, Counts
from dramatiq_diag.maintenance.pace import Pace
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.models import Artifact, StoreState, TaskRun
from dramatiq_diag.store.records import FinishedRun
from dramatiq_diag.store.runs import all_artifacts_of
from dramatiq_diag.store.store import Store
from support.records import artifact_record, bundle, run_record
from support.spool import END, TEXT, dead_entry, start_record
from support.store import files

HOUR = timedelta(hours=1)


@pytest.fixture
def given(settings, database_url):
    return settings(database_url=database_url, orphan_protection_time=3600, run_retention=7200)


def publish(store: Store, count: int = 1, **changes: Any) -> list[str]:
    """Returns: The ids of the tasks."""
    now = datetime.now(UTC)
    values = {"started_at": now - timedelta(seconds=1), "finished_at": now} | changes
    bundles = [bundle(run_record(**values)) for _ in range(count)]
    store.publish(bundles)
    return [each.run.task_id for each in bundles]


def test_what_was_attached_expires_like_the_rest_also_while_its_run_goes_on(store, given, stored, clock):
    now = datetime.now(UTC)
    run = run_record(started_at=now, finished_at=now + 2 * HOUR, is_attached=True)
    attached = [
        FinishedRun(
            run=replace(run.as_running(), is_attached=False), artifacts=[artifact_record()], attachment_id=uuid.uuid4()
        )
        for _ in range(2)
    ]
    store.publish(attached[:1])

    def statuses() -> dict[Any, Any]:
        with store.session() as session:
            found = all_artifacts_of(session, run.run_id)
        return {artifact.attachment_id: artifact.status for artifact in found}

    # Before the run ends
    clock.ahead = HOUR + timedelta(minutes=1)
    assert Cleanup(store).run().expired_artifacts == 1
    assert statuses() == {attached[0].attachment_id: ArtifactStatus.EXPIRED}
    assert files(store) == []
    assert not stored(given).check()

    # It does not come back with the end of the run, nor when it is published once more
    clock.ahead = 2 * HOUR
    store.publish([attached[1], bundle(run), attached[0]])
    assert statuses()[attached[0].attachment_id] == ArtifactStatus.EXPIRED
    assert not stored(given).check()

    # After the protection time that begins with the end of the run, all is gone
    clock.ahead = 3 * HOUR - timedelta(minutes=1)
    assert Cleanup(store).run().expired_artifacts == 0
    clock.ahead = 3 * HOUR + timedelta(minutes=1)
    assert Cleanup(store).run().expired_artifacts == 2
    assert set(statuses().values()) == {ArtifactStatus.EXPIRED}
    assert files(store) == []
    assert not stored(given).check()


def test_other_writers_have_their_turn_after_each_transaction_that_writes(store, clock, monkeypatch):
    publish(store)
    clock.ahead = 3 * HOUR
    seen: list[str] = []
    let_others_write = Pace.let_others_write

    def turn(pace: Pace) -> None:
        seen.append("turn")
        let_others_write(pace)

    def execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(("INSERT", "UPDATE", "DELETE", "WITH")):
            seen.append("write")

    def commit(_connection: Any) -> None:
        if seen and seen[-1] == "write":
            seen.append("commit")

    monkeypatch.setattr(Pace, "let_others_write", turn)
    event.listen(store.engine, "before_cursor_execute", execute)
    event.listen(store.engine, "commit", commit)

    counts = Cleanup(store).run()

    assert (counts.expired_artifacts, counts.removed_runs) == (1, 1)
    steps = [step for step in seen if step != "write"]
    assert steps.count("commit") > 5
    assert [before for before, after in pairwise(steps) if after == "commit" == before] == []


def test_an_artifact_expires_after_its_protection_time_and_its_row_stays(store, given, stored, clock):
    (task_id,) = publish(store)
    size = stored(given).artifacts(task_id)["memory_profile"].size_bytes

    # Before its time, a cleanup leaves it alone
    clock.ahead = HOUR - timedelta(minutes=1)
    assert Cleanup(store).run() == Counts()
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED

    # After it, the file goes and the row says so
    clock.ahead = HOUR + timedelta(minutes=1)
    assert Cleanup(store).run() == Counts(expired_artifacts=1, removed_blobs=1, freed_bytes=size)
    artifact = stored(given).artifacts(task_id)["memory_profile"]
    assert artifact.status == ArtifactStatus.EXPIRED
    assert "protection time" in artifact.reason
    assert files(store) == []
    assert not stored(given).check()
    # And once more changes nothing
    assert Cleanup(store).run() == Counts()


def test_younger_artifacts_are_untouched(store, given, stored, clock):
    old = publish(store, 5)
    clock.ahead = timedelta(minutes=90)
    with store.session() as session:
        session.execute(update(Artifact).values(expires_at=datetime.now(UTC) + HOUR))
    young = publish(store, 5)
    with store.session() as session:
        session.execute(
            update(Artifact)
            .where(Artifact.run_id.in_([stored(given).runs(task_id)[0].run_id for task_id in young]))
            .values(expires_at=datetime.now(UTC) + 2 * HOUR)
        )
    for name in files(store):  # The scan for orphans passes by what is young on disk as well.
        os.utime(store.blobs.root / name, (time.time() - 9999, time.time() - 9999))

    assert Cleanup(store).run().expired_artifacts == 5

    for task_id in old:
        assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.EXPIRED
    for task_id in young:
        assert stored(given).data(task_id, "memory_profile")
    assert not stored(given).check()


def test_what_is_cached_of_an_artifact_goes_with_it(store, clock):
    publish(store)
    (name,) = files(store)
    cached = f"{name.partition('/')[2]}.0.html"
    store.cache.put(cached, lambda file: file.write(b"<html>" * 1000))
    (store.cache.root / "notes.html").write_text("mine")

    assert Cleanup(store).run() == Counts()
    assert [entry.name for entry in store.cache.entries()] == [cached]

    clock.ahead = 1.5 * HOUR
    would = Cleanup(store, dry_run=True).run()
    assert [entry.name for entry in store.cache.entries()] == [cached]
    counts = Cleanup(store).run()

    assert counts.freed_bytes > 6000
    assert would.expired_artifacts == counts.expired_artifacts == 1
    assert files(store) == []
    assert [path.name for path in store.cache.root.iterdir()] == ["notes.html"]


def test_the_reports_that_version_663677e_kept_beside_the_blobs_go(store, clock):
    publish(store)
    (name,) = files(store)
    rendered = store.blobs.root / f"{name}.rendered"
    rendered.mkdir()
    (rendered / "html").write_bytes(b"x" * 1000)
    os.utime(rendered, (1, 1))

    assert Cleanup(store).run().removed_blobs == 1

    assert files(store) == [name]


def test_orphaned_blobs_and_temporary_files_go_after_the_protection_time(store, given, stored, clock):
    (task_id,) = publish(store)
    (name,) = files(store)
    day = (store.blobs.root / name).parent
    orphans = [
        day / str(uuid.uuid4()),
        day / f"{uuid.uuid4()}.{'a' * 32}.tmp",
        day / f"{uuid.uuid4()}.rendered",
        store.blobs.root / f"{name}.{'b' * 32}.tmp",
    ]
    for path in orphans:
        path.write_bytes(b"x" * 100)
    foreign = day / "notes.txt"
    foreign.write_text("mine")
    with store.session() as session:
        session.execute(update(Artifact).values(expires_at=datetime.now(UTC) + timedelta(days=9)))

    assert Cleanup(store).run() == Counts()
    assert all(path.exists() for path in orphans)

    clock.ahead = 2 * HOUR
    assert Cleanup(store).run() == Counts(removed_blobs=4, freed_bytes=400)
    assert files(store) == [name]
    assert foreign.read_text() == "mine"
    assert stored(given).data(task_id, "memory_profile")


def test_what_a_dead_worker_left_is_published_however_old_it_is(store, given, stored, clock):
    """After a long outage of the database nobody has published it yet."""
    run_id = uuid.uuid4()
    dead_entry(given.spool, [start_record(run_id), TEXT, END], run_id)
    clock.ahead = 2 * HOUR

    assert Cleanup(store).run() == Counts()
    assert list(given.spool.iterdir()) == []
    assert [run.run_id for run in stored(given).all_runs()] == [run_id]


def test_what_a_dead_worker_left_and_cannot_be_published_goes(store, given, stored, clock):
    run_id = uuid.uuid4()
    entry = dead_entry(given.spool, [{"run": {"run_id": str(run_id)}}, TEXT, END], run_id)
    size = os.path.getsize(entry.path("entry"))

    assert Cleanup(store).run() == Counts()
    clock.ahead = 2 * HOUR
    assert Cleanup(store).run() == Counts(removed_spool_entries=1, freed_bytes=size)
    assert list(given.spool.iterdir()) == []
    assert stored(given).all_runs() == []


def test_what_a_cleanup_did_not_come_to_is_not_removed_as_if_it_could_not_be_published(
    store, given, stored, clock, monkeypatch
):
    """As when the process has no descriptor left for the moment in which it is to be published."""
    run_id = uuid.uuid4()
    owner = dead_entry(given.spool, [start_record(run_id), TEXT, END], run_id).owner
    clock.ahead = 2 * HOUR
    scandir, failures = os.scandir, []

    def fail_once(path: Any) -> Any:
        if Path(path) == owner and not failures:
            failures.append(1)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", fail_once)
        assert Cleanup(store).run() == Counts()
    assert failures
    assert stored(given).all_runs() == []

    assert Cleanup(store).run() == Counts()
    assert [run.run_id for run in stored(given).all_runs()] == [run_id]


def test_rows_of_runs_without_live_artifacts_go_after_the_retention(store, given, stored, clock):
    (ended,) = publish(store)
    (young,) = publish(store, started_at=datetime.now(UTC) + 10 * HOUR, finished_at=datetime.now(UTC) + 10 * HOUR)
    store.announce(
        [
            run_record(
                task_id="running",
                status=RunStatus.RUNNING,
                started_at=datetime.now(UTC),
                finished_at=None,
                duration_ms=None,
            )
        ]
    )

    # Its artifacts live: the row stays, however old
    with store.session() as session:
        session.execute(update(Artifact).values(expires_at=datetime.now(UTC) + timedelta(days=99)))
    clock.ahead = 3 * HOUR
    assert Cleanup(store).run() == Counts()

    # They expired: the row goes, and only that
    with store.session() as session:
        session.execute(update(Artifact).values(expires_at=datetime.now(UTC)))
    counts = Cleanup(store).run()
    assert counts.removed_runs == 1
    assert {run.task_id for run in stored(given).all_runs()} == {young, "running"}
    assert stored(given).runs(ended) == []


def test_a_run_whose_worker_is_gone_for_good_does_not_run_for_ever(store, given, stored, clock):
    started = datetime.now(UTC)
    store.announce(
        [run_record(task_id="lost", status=RunStatus.RUNNING, started_at=started, finished_at=None, duration_ms=None)]
    )

    clock.ahead = timedelta(days=29)
    assert Cleanup(store).run().removed_runs == 0
    clock.ahead = timedelta(days=31)
    assert Cleanup(store).run().removed_runs == 1
    assert stored(given).all_runs() == []


def test_more_than_a_batch_is_done_with_progress(store, given, stored, clock):
    publish(store, 35)
    clock.ahead = 3 * HOUR
    seen: list[int] = []

    cleanup = Cleanup(store, on_batch=lambda counts: seen.append(counts.total), batch_size=10, expiry_batch_size=10)
    counts = cleanup.run()

    assert (counts.expired_artifacts, counts.removed_blobs, counts.removed_runs) == (35, 35, 35)
    assert seen == sorted(seen)
    assert len(seen) >= 8
    with store.session() as session:
        assert session.query(TaskRun).count() == session.query(Artifact).count() == 0


def test_a_dry_run_counts_the_same_and_touches_nothing(store, given, stored, clock):
    publish(store, 3)
    day = (store.blobs.root / files(store)[0]).parent
    (day / str(uuid.uuid4())).write_bytes(b"x" * 100)
    run_id = uuid.uuid4()
    dead_entry(given.spool, [start_record(run_id), TEXT, END], run_id)
    clock.ahead = timedelta(minutes=90)
    before = (files(store), sorted(map(str, given.spool.rglob("*.entry"))))

    foretold = Cleanup(store, dry_run=True).run()

    assert (files(store), sorted(map(str, given.spool.rglob("*.entry")))) == before
    assert len(stored(given).all_runs()) == 3
    assert foretold.total > 0
    assert Cleanup(store).run() == foretold


def test_a_cleanup_that_died_after_the_commit_is_finished_by_the_next(store, given, stored, clock, monkeypatch):
    publish(store, 3)
    clock.ahead = 2 * HOUR

    def die(names: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(store.blobs, "delete", die)
    with pytest.raises(KeyboardInterrupt):
        Cleanup(store).run()
    monkeypatch.undo()
    assert len(files(store)) == 3
    for name in files(store):
        os.utime(store.blobs.root / name, (1, 1))

    assert Cleanup(store).run().removed_blobs == 3
    assert files(store) == []


def test_two_cleanups_at_once_count_everything_once(store, given, store_of, clock):
    import threading

    publish(store, 60)
    clock.ahead = 2 * HOUR
    other = store_of(given)
    counts: list[Counts] = []
    threads = [threading.Thread(target=lambda s=s: counts.append(Cleanup(s).run())) for s in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(count.expired_artifacts for count in counts) == 60
    assert files(store) == []


# Two halves of one store.


def test_halves_of_two_stores_are_refused_and_nothing_is_changed(store, given, stored, clock):
    publish(store, 3)
    before = files(store)
    with store.session() as session:
        session.execute(update(StoreState).values(store_id=uuid.uuid4()))
    clock.ahead = 2 * HOUR

    for dry_run in (True, False):
        with pytest.raises(StoreMismatchError):
            Cleanup(store, dry_run=dry_run).run()

    assert files(store) == before
    assert len(stored(given).all_runs()) == 3


def test_an_empty_new_database_does_not_take_every_blob_for_an_orphan(settings, store_of, clock, tmp_path):
    given = settings(orphan_protection_time=0)
    store = store_of(given)
    publish(store, 3)
    before = files(store)
    store.close()

    # Given the same blobs, and a database that was made anew
    for path in given.data_dir.glob("diagnostics.db*"):
        path.unlink()
    clock.ahead = 2 * HOUR
    anew = Store(given)

    with pytest.raises(StoreMismatchError):
        Cleanup(anew).run()

    assert files(store) == before
    anew.close()
