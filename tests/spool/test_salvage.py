"""Salvage: one listing, a step at a time, between the process's own runs; it hears the stop."""

from __future__ import annotations

import os
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.runtime.memory_state import MemoryState
from dramatiq_diag.spool.delivery import SALVAGE_BATCH_SIZE, Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.owner_lock import LOCK_FILE, AnotherStoreError
from dramatiq_diag.spool.owner_state import StateFile
from dramatiq_diag.spool.reader import file_suffixes, read_finished_run
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.spool import END, dead_entry, start_record
from support.tasks import finish


class Listings:
    """Counts how often a directory is listed, and how many files are looked at."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        scandir = os.scandir

        def counted(path: Any) -> Any:
            self.count += Path(path) == directory
            return scandir(path)

        monkeypatch.setattr(os, "scandir", counted)


class Taking:
    """A store that takes everything, and does nothing with it."""

    def __init__(self) -> None:
        self.batches: list[list[uuid.UUID]] = []
        self.runs: list[Any] = []

    def store_id(self) -> uuid.UUID:
        return uuid.UUID(int=1)

    def publish(self, bundles: Any) -> None:
        self.batches.append([bundle.run.run_id for bundle in bundles])
        self.runs += bundles


def left_behind(spool_root: Path, count: int) -> tuple[Path, list[uuid.UUID]]:
    """Leaves entries of one dead worker. Returns: Its directory, and the ids, oldest first."""
    owner, ids = str(uuid.uuid4()), [uuid.uuid4() for _ in range(count)]
    for number, run_id in enumerate(ids):
        entry = dead_entry(
            spool_root, [start_record(run_id, artifacts=[], task_id=f"left-{number}"), END], run_id, owner
        )
        os.utime(entry.path("entry"), (number, number))
    return spool_root / owner, ids


@pytest.mark.parametrize("at", [1e18, 1e300, -1e18])
def test_a_state_of_an_impossible_time_costs_only_its_owner(settings, at):
    owners = sorted(str(uuid.uuid4()) for _ in range(3))
    ids = [uuid.uuid4() for _ in owners]
    for owner, run_id in zip(owners, ids, strict=True):
        dead_entry(settings().spool, [start_record(run_id, artifacts=[])], run_id, owner)
    forged = StateFile(settings().spool / owners[1])
    forged.write(at, MemoryState(rss_bytes=1, available_bytes=1, total_bytes=1, oom_kills=0, boot_id="b" * 36))
    forged.close()
    store = Taking()

    salvaged = Delivery(Spool(settings()), store).salvage()

    published = {run_id for batch in store.batches for run_id in batch}
    assert {ids[0], ids[2]} <= published
    assert salvaged.recovered_runs + salvaged.refused_runs == 3


def test_the_checkpoint_goes_before_the_file_that_took_its_place(settings):
    """After a kill in between, a salvager would publish the checkpoint in place of what is stored."""
    run_id = uuid.uuid4()
    run = read_finished_run(dead_entry(settings().spool, [start_record(run_id), END], run_id))
    assert file_suffixes(run) == ["memory_profile.part", "memory_profile"]


@pytest.mark.parametrize("count", [300, 3000])
def test_a_directory_is_listed_once_however_much_is_in_it(settings, monkeypatch, count):
    owner, ids = left_behind(settings().spool, count)
    listings, store = Listings(owner, monkeypatch), Taking()

    salvaged = Delivery(Spool(settings()), store).salvage()

    assert salvaged.recovered_runs == count
    assert [run_id for batch in store.batches for run_id in batch] == ids
    assert listings.count == 2  # The second one finds it empty, and removes it.
    assert not owner.exists()


def test_what_is_too_much_for_one_listing_takes_a_few_and_comes_oldest_first(settings, monkeypatch):
    owner, ids = left_behind(settings().spool, 230)
    listings, store = Listings(owner, monkeypatch), Taking()

    Delivery(Spool(settings(), max_listed=50), store).salvage()

    assert [run_id for batch in store.batches for run_id in batch] == ids
    assert listings.count == 6


def test_listing_is_done_in_steps_as_well(settings):
    owner, _ = left_behind(settings().spool, 95)

    steps = list(Spool(settings(), files_per_step=10).batches(owner, 50))

    assert [len(step) for step in steps] == [0] * 9 + [50, 45]


def test_a_salvage_that_is_stopped_begins_nothing_more_and_leaves_the_rest(settings):
    owner, ids = left_behind(settings().spool, 3 * SALVAGE_BATCH_SIZE)
    store = Taking()

    salvaged = Delivery(Spool(settings()), store).salvage(until=time.monotonic())

    assert salvaged.recovered_runs == SALVAGE_BATCH_SIZE
    assert len(Spool(settings()).entries(owner, len(ids))) == 2 * SALVAGE_BATCH_SIZE
    assert list(Spool(settings()).dead_owners()) == [owner]


def test_own_runs_are_published_between_the_steps_of_a_salvage(settings, bench, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    _, left = left_behind(given.spool, 30 * SALVAGE_BATCH_SIZE)
    original = Store.publish
    order: list[list[str]] = []
    own: list[str] = []
    is_up = threading.Event()

    # Given a task that ends while the first of many salvaged batches is published
    def publish(store: Store, bundles: Any) -> None:
        order.append([bundle.run.task_id for bundle in bundles])
        if not own:
            is_up.wait(PATIENCE_S)
            own.append(actor.send().message_id)
            eventually(lambda: len(backlog), "it is saved")
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", publish)
    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="work")
        backlog = tasks.diagnostics.process.publisher.backlog
        is_up.set()
        eventually(lambda: own, "the salvage has begun")
        finish(tasks.broker, tasks.worker, "tasks")
        assert tasks.diagnostics.flush(PATIENCE_S)

    # Then it is published next, and the salvage goes on
    assert order[0][0].startswith("left-")
    assert order[1] == own
    assert len(stored(given).all_runs()) == len(left) + 1


def test_a_file_that_was_not_saved_before_the_worker_died_is_not_a_fault_of_the_collector(spool):
    # Given a run that has ended, and whose profile was not saved
    owner, run_id = str(uuid.uuid4()), uuid.uuid4()
    dead_entry(spool.root, [start_record(run_id), END], run_id, owner)

    # Then what another process publishes of it says so
    store = Taking()
    Delivery(spool, store).salvage()
    assert [each.reason for each in store.runs[0].artifacts] == [
        "The worker process died soon after the run had ended, most likely before this was saved."
    ]


# Which store a spool directory is of.


def lock_content(owner: Path) -> str:
    return (owner / LOCK_FILE).read_text()


def test_a_worker_says_in_its_directory_which_store_its_runs_are_of(settings, bench, stored):
    given = settings(task_diagnostics=["memory"])
    with bench(given, tuning=Tuning(measure_s=0.01)) as tasks:
        tasks.run(lambda: None, actor_name="work")
        owner = tasks.diagnostics.process.spool.owner
        store_id = str(stored(given).store.store_id())
        eventually(lambda: lock_content(owner) == store_id, "the id is written")


def test_what_a_worker_of_another_store_left_waits_for_a_worker_of_that_store(settings, stored, caplog):
    given = settings()
    store = stored(given).store
    theirs, ids = left_behind(given.spool, 2)
    (theirs / LOCK_FILE).write_text(str(uuid.uuid4()))
    ours, _ = left_behind(given.spool, 1)
    (ours / LOCK_FILE).write_text(str(store.store_id()))
    left_behind(given.spool, 1)  # Its worker never reached a store.

    spool = Spool(given)
    assert Delivery(spool, store).salvage().recovered_runs == 2
    assert len(stored(given).all_runs()) == 2
    assert isinstance(spool.passed_over[theirs], AnotherStoreError)
    assert "It is of another store" in caplog.text
    assert "DRAMATIQ_DIAG_SPOOL_DIR" in caplog.text

    # A cleanup removes nothing of it either, however old it is
    cleaned = list(spool.remove_abandoned(time.time() + 1e6, store_id=store.store_id))
    assert cleaned == []
    assert {entry.run_id for entry in spool.entries(theirs, 10)} == set(ids)


def test_what_is_left_of_a_run_without_its_end_is_cut_short(spool):
    ended, going_on = (
        dead_entry(spool.root, [start_record(run_id), *more], run_id)
        for run_id, more in ((uuid.uuid4(), [END]), (uuid.uuid4(), []))
    )
    attached_id = uuid.uuid4()
    attached = dead_entry(spool.root, [start_record(uuid.uuid4(), attachment_id=str(attached_id))], attached_id)

    found = [read_finished_run(entry, is_left=True).is_cut_short for entry in (ended, going_on, attached)]

    assert found == [False, True, True]


@pytest.mark.parametrize(("wrote_s", "duration_ms"), [(30.0, 30_000.0), (-0.5, 0.0), (-3600.0, None)])
def test_the_length_of_a_run_whose_worker_died_is_unknown_where_the_clock_went_back(spool, wrote_s, duration_ms):
    run_id, started = uuid.uuid4(), datetime(2026, 5, 4, tzinfo=UTC)
    entry = dead_entry(spool.root, [start_record(run_id, started_at=started.isoformat())], run_id)
    os.utime(entry.path("entry"), (started.timestamp() + wrote_s,) * 2)

    run = read_finished_run(entry, is_left=True).run

    assert run.duration_ms == duration_ms
    assert run.finished_at == started + timedelta(seconds=max(wrote_s, 0.0))
