"""The backlog: bounded in memory, in the order of the runs' end, and nothing is lost past the bound."""

from __future__ import annotations

import itertools
import os
import threading
import uuid
from typing import Any

import pytest

from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.spool.backlog import Backlog
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import Entry
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.tasks import finish

HELD = 5


@pytest.fixture
def unsaved():
    return set()


@pytest.fixture
def backlog(spool, unsaved):
    return Backlog(spool, unsaved, max_held=HELD)


def written(spool: Spool, at: int) -> Entry:
    """An entry that was last written to at a time of its own."""
    entry = spool.entry()
    entry.append({"number": at})
    entry.flush()
    entry.close()
    os.utime(entry.path("entry"), (at, at))
    return entry


def emptied(backlog: Backlog, count: int = 2, but: Any = ()) -> list[uuid.UUID]:
    """Publishes everything, a few at a time."""
    ids = []
    while batch := backlog.oldest(count, but=but):
        ids += [entry.run_id for entry in batch]
        for entry in batch:
            entry.remove(())
            backlog.done(entry)
    return ids


def test_entries_come_out_in_the_order_they_came_in(spool, backlog):
    entries = [written(spool, at) for at in range(3)]

    backlog.add(entries)

    assert len(backlog) == 3
    assert backlog.oldest(2, but=()) == entries[:2]
    assert backlog.oldest(2, but=()) == entries[:2]  # Until they are done.
    assert emptied(backlog) == [entry.run_id for entry in entries]
    assert len(backlog) == 0


def test_what_is_past_the_bound_is_found_again_in_the_spool(spool, backlog):
    entries = [written(spool, at) for at in range(4 * HELD + 1)]
    for entry in entries:
        backlog.add([entry])

    assert len(backlog.oldest(len(entries), but=())) == HELD
    assert len(backlog) == len(entries)
    assert emptied(backlog) == [entry.run_id for entry in entries]
    assert len(backlog) == 0


def test_what_comes_while_the_spool_holds_older_ones_waits_behind_them(spool, backlog):
    entries = [written(spool, at) for at in range(3 * HELD)]
    backlog.add(entries[: 2 * HELD])
    for entry in backlog.oldest(HELD, but=()):
        backlog.done(entry)
    for entry in entries[:HELD]:
        entry.remove(())

    backlog.add(entries[2 * HELD :])

    assert emptied(backlog) == [entry.run_id for entry in entries[HELD:]]


def test_a_run_that_is_not_saved_yet_is_not_found(spool, backlog, unsaved):
    entries = [written(spool, at) for at in range(HELD + 2)]
    backlog.add(entries[:-1])
    unsaved.add(entries[-1].run_id)

    assert entries[-1].run_id not in emptied(backlog)

    backlog.add(entries[-1:])
    unsaved.clear()
    assert emptied(backlog) == [entries[-1].run_id]


def test_entries_that_cannot_be_published_are_not_found_again(spool, backlog):
    entries = [written(spool, at) for at in range(2 * HELD)]
    backlog.add(entries)
    refused = {entries[0].run_id, entries[HELD].run_id}
    for entry in backlog.oldest(HELD, but=()):
        backlog.done(entry)
    for entry in entries[1:HELD]:
        entry.remove(())

    assert emptied(backlog, but=refused) == [entry.run_id for entry in entries[HELD + 1 :]]


def test_what_someone_removed_is_not_waited_for(spool, backlog):
    entries = [written(spool, at) for at in range(2 * HELD)]
    backlog.add(entries)
    for entry in entries[HELD:]:
        entry.remove(())

    emptied(backlog)

    assert backlog.wait_until_done(len(entries), 0)
    assert len(backlog) == 0


def test_what_the_disk_did_not_take_is_held_up_to_a_number_and_counted_beyond(spool, backlog, monkeypatch):
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dramatiq_diag.spool.entry.os.write", full)
    entries = [written(spool, at) for at in range(2 * HELD + 3)]

    backlog.add(entries)

    assert backlog.dropped == 3
    assert emptied(backlog, 100) == [entry.run_id for entry in entries[: 2 * HELD]]
    assert len(backlog) == 0


def test_a_run_is_unsaved_until_its_entry_is_added(spool, backlog, unsaved):
    entry = written(spool, 1)
    unsaved.add(entry.run_id)
    assert backlog.unsaved == (entry.run_id,)
    backlog.add([entry])
    assert backlog.unsaved == ()


# As a part of a worker.


def test_more_runs_than_are_held_get_there_in_the_order_of_their_end(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "pyinstrument"])
    order: list[uuid.UUID] = []
    written_at: dict[uuid.UUID, int] = {}
    away = threading.Event()
    away.set()
    original = Store.publish

    def publish(store: Store, bundles: Any) -> None:
        if away.is_set():
            raise StoreUnavailableError
        order.extend(bundle.run.run_id for bundle in bundles)
        for bundle in bundles:
            [path] = given.spool.rglob(f"{bundle.run.run_id}.entry")
            written_at[bundle.run.run_id] = path.stat().st_mtime_ns
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", publish)

    with bench(given, threads=4, tuning=Tuning(max_held=HELD)) as tasks:
        # Given many runs that end while the store is away
        submitted: list[uuid.UUID] = []
        submit = tasks.diagnostics.process.saver.submit

        def note_and_submit(run: Any) -> None:
            submitted.append(run.entry.run_id)
            submit(run)

        monkeypatch.setattr(tasks.diagnostics.process.saver, "submit", note_and_submit)
        actor = tasks.actor(lambda: None, actor_name="work")
        ids = [actor.send().message_id for _ in range(10 * HELD)]
        finish(tasks.broker, tasks.worker, "tasks")
        backlog = tasks.diagnostics.process.publisher.backlog
        eventually(lambda: len(backlog) == len(ids), "all runs are saved")
        assert len(backlog.oldest(len(ids), but=())) == HELD
        # When it is back
        away.clear()
        assert tasks.diagnostics.flush(PATIENCE_S)

    # Then each is there once, in the order in which their threads ended them, or their entries were written
    runs = stored(given).all_runs()
    assert sorted(run.task_id for run in runs) == sorted(ids)
    assert sorted(order) == sorted(submitted)
    for earlier, later in itertools.pairwise(order):
        is_submitted_later = submitted.index(later) > submitted.index(earlier)
        assert is_submitted_later or written_at[later] >= written_at[earlier]
    assert not stored(given).check()


def test_runs_are_saved_while_the_store_does_not_answer(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "pyinstrument"])
    asked, answer = threading.Event(), threading.Event()
    original = Store.publish

    def hang(store: Store, bundles: Any) -> None:
        asked.set()
        answer.wait(PATIENCE_S)
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", hang)

    with bench(given) as tasks:
        # Given a store that does not answer
        actor = tasks.actor(lambda: None, actor_name="work")
        ids = [actor.send().message_id]
        assert asked.wait(PATIENCE_S)
        # When more tasks run than entries were made beforehand
        ids += [actor.send().message_id for _ in range(100)]
        finish(tasks.broker, tasks.worker, "tasks")
        # Then the spool has all of each, as if the process would be killed now
        backlog = tasks.diagnostics.process.publisher.backlog
        eventually(lambda: len(backlog) == len(ids), "all runs are saved")
        profiles = list(given.spool.rglob("*.pyinstrument_profile"))
        assert len(profiles) == len(ids)
        answer.set()
        assert tasks.diagnostics.flush(PATIENCE_S)

    for task_id in ids:
        assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
        assert stored(given).artifacts(task_id)["pyinstrument_profile"].status == ArtifactStatus.STORED
