"""What a dry run and `GET /storage/` foretell is what a cleanup removes, over both databases."""

from __future__ import annotations

import random
import uuid
from datetime import timedelta
from typing import Any

import pytest

from dramatiq_diag.documents.storage import storage_document
from dramatiq_diag.maintenance.cleanup import Cleanup, Counts
from dramatiq_diag.store.pins import pin, unpin
from dramatiq_diag.store.records import FinishedRun
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.workers import note_worker
from support.records import artifact_record, executed_task, run_record, worker_report

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def make(settings, database_url, store_of, clock):
    """Makes a store whose runs go with their artifacts, after an hour, unless they are told otherwise."""
    own = {"orphan_protection_time": HOUR.total_seconds(), "run_retention": HOUR.total_seconds()}

    def make(**values: Any) -> Store:
        return store_of(settings(**{"database_url": database_url, **own, **values}))

    return make


@pytest.fixture
def publish(clock):
    def publish(store: Store, *sizes: int) -> uuid.UUID:
        clock.ahead += MINUTE
        run = run_record(started_at=clock.now(), finished_at=clock.now())
        artifacts = [artifact_record(b"x" * size, name=f"artifact_{number}") for number, size in enumerate(sizes)]
        store.publish([FinishedRun(run=run, artifacts=artifacts)])
        return run.run_id

    return publish


@pytest.fixture
def announce(clock):
    def announce(store: Store, worker_id: uuid.UUID | None = None, attached_bytes: int | None = None) -> uuid.UUID:
        """Announces a run, to which something may be attached."""
        clock.ahead += MINUTE
        run = run_record(started_at=clock.now(), worker_id=worker_id).as_running()
        store.announce([run])
        if attached_bytes is not None:
            artifact = artifact_record(b"x" * attached_bytes)
            store.publish([FinishedRun(run=run, artifacts=[artifact], attachment_id=uuid.uuid4())])
        return run.run_id

    return announce


def cleaned_up(store: Store) -> Counts:
    """Returns: What a cleanup removes; the same was foretold, in both ways."""
    foretold = Cleanup(store, dry_run=True).run()
    with store.session() as session:
        document = storage_document(session, store.settings)["next_cleanup"]
    counts = Cleanup(store).run()
    assert counts == foretold
    reasons = document["by_time"], document["by_max_runs"], document["by_max_bytes"]
    assert sum(reason["run_count"] for reason in reasons) == counts.removed_runs
    assert sum(reason["artifact_count"] for reason in reasons) == counts.expired_artifacts
    assert document["size_bytes"] == counts.freed_bytes
    assert document["is_complete"]
    return counts


def test_the_rows_of_runs_whose_artifacts_are_due(make, publish, clock):
    store = make(max_runs=2)
    for _ in range(3):
        publish(store, 100, 10)
    clock.ahead += HOUR
    publish(store, 1)

    assert cleaned_up(store) == Counts(expired_artifacts=6, removed_blobs=6, freed_bytes=330, removed_runs=3)


def test_a_run_that_was_unpinned_after_the_retention(make, publish, clock):
    store = make()
    run_id = publish(store, 100)
    pin(store, run_id)
    clock.ahead += 2 * HOUR
    assert cleaned_up(store) == Counts()

    unpin(store, run_id)
    clock.ahead += 2 * HOUR
    assert cleaned_up(store).removed_runs == 1


@pytest.mark.parametrize("is_worker_live", [False, True])
def test_runs_that_end_in_the_cleanup_and_are_beyond_the_bound_then(make, announce, publish, clock, is_worker_live):
    store = make(max_runs=2, run_retention=60 * DAY.total_seconds(), orphan_protection_time=60 * DAY.total_seconds())
    worker_id = uuid.uuid4()
    for _ in range(3):
        announce(store, worker_id, 100)
    kept = announce(store, other := uuid.uuid4())
    clock.ahead += 2 * DAY
    publish(store, 10)
    with store.session() as session:
        note_worker(session, worker_report(worker_id=other, tasks=[executed_task(run_id=str(kept))]))
        if is_worker_live:
            note_worker(session, worker_report(worker_id=worker_id))

    assert cleaned_up(store) == Counts(expired_artifacts=2, removed_blobs=2, freed_bytes=200, removed_runs=2)


def test_what_is_attached_to_an_older_run_that_goes_on(make, announce, publish):
    store = make(max_runs=1, max_bytes=10)
    announce(store, attached_bytes=1000)
    for _ in range(3):
        publish(store, 20)

    assert cleaned_up(store) == Counts(expired_artifacts=4, removed_blobs=4, freed_bytes=1060, removed_runs=2)


def test_more_rows_than_are_looked_at_are_a_minimum(make, announce, publish, clock):
    store = make(max_runs=1, run_retention=60 * DAY.total_seconds())
    for _ in range(3):
        announce(store, uuid.uuid4())
    clock.ahead += 2 * DAY
    with store.session() as session:
        document = storage_document(session, store.settings, most_rows=2)["next_cleanup"]
        assert not document["is_complete"]
        assert storage_document(session, store.settings, most_rows=3)["next_cleanup"]["is_complete"]


@pytest.mark.parametrize("seed", range(8))
def test_any_mixture(make, announce, publish, clock, seed):
    chance = random.Random(seed)
    bounds = {"max_bytes": chance.randrange(1, 400), "max_runs": chance.randrange(1, 12)}
    times = {name: chance.choice([HOUR, DAY, 60 * DAY]) for name in ("orphan_protection_time", "run_retention")}
    store = make(
        **{name: bound for name, bound in bounds.items() if chance.random() < 0.8},
        **{name: time.total_seconds() for name, time in times.items()},
    )
    workers, ended = [uuid.uuid4() for _ in range(3)], []
    for _ in range(3):
        for _ in range(12):
            if chance.random() < 0.4:
                announce(store, chance.choice(workers), chance.choice([None, 10, 100]))
            else:
                ended.append(publish(store, *chance.choices([0, 1, 10, 100], k=chance.randrange(3))))
            if chance.random() < 0.2 and ended:
                pin(store, ended.pop())
        clock.ahead += chance.choice([HOUR, 13 * HOUR, 2 * DAY])
        with store.session() as session:
            note_worker(session, worker_report(worker_id=workers[0]))
        cleaned_up(store)
        cleaned_up(store)  # A run whose artifacts went for the bytes may go now.
        ended.clear()
