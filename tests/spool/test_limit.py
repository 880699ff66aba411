"""The limit of the spool: what is past it takes no room on the disk, and a bounded part of the memory."""

from __future__ import annotations

import threading
import uuid
from pathlib import Path
from typing import Any

from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.runtime.memory_state import MemoryStateReader
from dramatiq_diag.spool.backlog import Backlog
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX
from dramatiq_diag.spool.owner_lock import LOCK_FILE
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.store import Store
from support import PATIENCE_S, eventually
from support.spool import END, TEXT, dead_entry, start_record
from support.tasks import finish


def disk_bytes(root: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in root.rglob("*") if path.is_file())


def used_files(root: Path) -> list[Path]:
    """The files that something was written to; entries made beforehand are empty."""
    return sorted(path for path in root.rglob("*") if path.is_file() and path.stat().st_size)


def test_runs_past_the_limit_leave_nothing_on_the_disk(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "pyinstrument"], spool_max_bytes=1000)
    run_id = uuid.uuid4()
    dead_entry(given.spool, [start_record(run_id, pid=-1), TEXT, END, "x" * 2000], run_id)
    away = threading.Event()
    away.set()
    original = Store.publish

    def publish(store: Store, bundles: Any) -> None:
        if away.is_set():
            raise StoreUnavailableError
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", publish)

    with bench(given) as tasks:
        # Given a spool that is full, and a store that is away
        process = tasks.diagnostics.process
        process.spool.write_state(0.0, MemoryStateReader(process.services.rss).read())
        process.spool.measure()
        lock = process.spool.owner / LOCK_FILE  # The id of the store is written into it once.
        eventually(
            lambda: process.saver.thread.wake() or lock.stat().st_size > 0, "the spool says which store it is of"
        )
        before = used_files(given.spool), disk_bytes(given.spool)
        # When runs end
        actor = tasks.actor(lambda: None, actor_name="work")
        ids = [actor.send().message_id for _ in range(200)]
        finish(tasks.broker, tasks.worker, "tasks")
        eventually(lambda: len(process.publisher.backlog) == len(ids), "all runs are saved")
        # Then the disk has not one file more, nor one block
        assert (used_files(given.spool), disk_bytes(given.spool)) == before
        away.clear()
        process.publisher.thread.hold(0.0)
        assert tasks.diagnostics.flush(PATIENCE_S)

    # And when the store is back, each says of each artifact why there is none
    for task_id in ids:
        artifacts = stored(given).artifacts(task_id)
        assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.SKIPPED}
        assert all("DRAMATIQ_DIAG_SPOOL_MAX_BYTES" in artifact.reason for artifact in artifacts.values())


def test_a_run_that_was_declined_stays_so_when_there_is_room_again(settings):
    spool = Spool(settings())
    spool.open()
    spool.full = True
    declined = spool.entry()
    spool.full = False
    usual = spool.entry()

    assert (declined.is_declined, usual.is_declined) == (True, False)
    assert not declined.path(ENTRY_SUFFIX).exists()

    usual.close()
    usual.remove(())
    spool.close()


def test_small_files_count_with_the_blocks_that_they_take(settings):
    spool = Spool(settings(spool_max_bytes=200_000))
    for _ in range(100):
        dead_entry(spool.root, [start_record(uuid.uuid4())])
    written = sum(path.stat().st_size for path in spool.root.rglob("*.entry"))

    measured = spool.measure()

    assert written < 100_000
    assert measured >= disk_bytes(spool.root) > written
    assert spool.full


def test_entries_made_beforehand_do_not_fill_a_spool(settings):
    spool = Spool(settings(spool_max_bytes=1))
    spool.open()
    spool.refill_pool()

    assert spool.measure() == 0
    assert not spool.full

    spool.close()


def test_what_is_held_in_memory_is_bounded_in_bytes(settings):
    spool = Spool(settings(spool_dir=settings().data_dir / "nowhere"))
    backlog = Backlog(spool, set(), max_held_bytes=100_000)
    entries = []
    for _ in range(20):
        entry = spool.entry()
        entry.append(start_record(entry.run_id), TEXT | {"text": "x" * 30_000}, END)
        entry.flush()
        entry.close()
        entries.append(entry)

    backlog.add(entries)

    # Then as many are kept as there is room for, the others are counted, and what was published makes room
    assert backlog.oldest(100, but=()) == entries[:3]
    assert backlog.dropped == 17
    for entry in entries[:2]:
        backlog.done(entry)
    backlog.add(entries[10:])
    assert backlog.oldest(100, but=()) == [entries[2], *entries[10:12]]
