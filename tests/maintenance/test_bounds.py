"""Bounds on what is stored, over both databases: the oldest goes, and nothing that is pinned or running."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select

from dramatiq_diag.maintenance.cleanup import Cleanup, Counts
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.counters import Series, total
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.pins import pin, unpin
from dramatiq_diag.store.store import Store
from support import eventually
from support.records import artifact_record, bundle, run_record
from support.store import FakeClock, files

MINUTE = timedelta(minutes=1)
SIZES = (0, 1, 10, 100)


@pytest.fixture
def make(settings, database_url, store_of):
    """Makes a store with bounds."""

    def make(**bounds: int) -> Store:
        return store_of(settings(database_url=database_url, **bounds))

    return make


def publish(store: Store, clock: FakeClock, *sizes: int, **changes: object) -> str:
    """Publishes a run a minute after the one before, with artifacts of these sizes. Returns: The id of the task."""
    clock.ahead += MINUTE
    run = run_record(**{"started_at": clock.now(), "finished_at": clock.now()} | changes)
    records = [artifact_record(b"x" * size, name=f"artifact_{number}") for number, size in enumerate(sizes)]
    failed = artifact_record(None, name="failed")
    store.publish([bundle(run, *records, failed)])
    return run.task_id


def totals(store: Store) -> tuple[int, int]:
    """Returns: The stored bytes, and the runs that have ended."""
    with store.session() as session:
        return total(session, Series.STORED_BYTES), total(session, Series.STORED_RUNS)


def test_the_oldest_artifacts_expire_until_the_rest_is_within_the_bytes(make, clock, stored):
    store = make(max_bytes=250)
    old, middle, young = (publish(store, clock, 100) for _ in range(3))

    counts = Cleanup(store).run()

    assert counts == Counts(expired_artifacts=1, removed_blobs=1, freed_bytes=100)
    reader = stored(store.settings)
    expired = reader.artifacts(old)["artifact_0"]
    assert expired.status == ArtifactStatus.EXPIRED
    assert "more is stored than DRAMATIQ_DIAG_MAX_BYTES allows: 250 bytes." in expired.reason
    assert {reader.artifacts(task_id)["artifact_0"].status for task_id in (middle, young)} == {ArtifactStatus.STORED}
    assert not reader.check()
    # Exactly at the bound nothing goes.
    assert Cleanup(make(max_bytes=200)).run() == Counts()


def test_the_oldest_runs_go_with_their_artifacts_until_no_more_are_left_than_the_bound(make, clock, stored):
    store = make(max_runs=2)
    tasks = [publish(store, clock, 100, 10) for _ in range(4)]

    counts = Cleanup(store).run()

    assert counts == Counts(expired_artifacts=4, removed_blobs=4, freed_bytes=220, removed_runs=2)
    reader = stored(store.settings)
    assert {run.task_id for run in reader.all_runs()} == {*tasks[2:]}
    assert not reader.check()
    assert len(files(store)) == 4
    assert Cleanup(store).run() == Counts()


def test_without_a_bound_nothing_young_goes(make, clock):
    store = make()
    for _ in range(5):
        publish(store, clock, 100)

    assert Cleanup(store).run() == Counts()


def test_an_artifact_past_its_time_says_so_and_counts_for_the_bound(make, clock, stored):
    store = make(max_bytes=100, orphan_protection_time=3600)
    old, young = publish(store, clock, 100), publish(store, clock, 100)
    clock.ahead += timedelta(minutes=59, seconds=30)

    assert Cleanup(store, dry_run=True).run().expired_artifacts == 1
    assert Cleanup(store).run().expired_artifacts == 1

    assert "protection time" in stored(store.settings).artifacts(old)["artifact_0"].reason
    assert stored(store.settings).data(young, "artifact_0")


def test_pinned_and_running_runs_stay_though_that_is_more_than_the_bounds(make, clock, stored):
    store = make(max_bytes=1, max_runs=1)
    pinned, other = publish(store, clock, 100), publish(store, clock, 100)
    pin(store, stored(store.settings).runs(pinned)[0].run_id)
    running = run_record(started_at=clock.now() - timedelta(hours=1))
    store.announce([running.as_running()])

    Cleanup(store).run()

    reader = stored(store.settings)
    assert {run.task_id for run in reader.all_runs()} == {pinned, running.task_id}
    assert len(reader.data(pinned, "artifact_0")) == 100
    assert reader.runs(other) == []
    assert Cleanup(store).run() == Counts()


def test_what_would_expire_first_goes_first(make, clock, stored):
    """The time of an unpinned run begins anew, that of a host whose clock is ahead at the end that it names."""
    store = make(max_bytes=200)
    unpinned, ahead = publish(store, clock, 100), publish(store, clock, 100, finished_at=clock.now() + 9 * MINUTE)
    run_id = stored(store.settings).runs(unpinned)[0].run_id
    pin(store, run_id)
    young = publish(store, clock, 100)
    clock.ahead += MINUTE
    unpin(store, run_id)

    assert Cleanup(store).run().expired_artifacts == 1

    reader = stored(store.settings)
    assert reader.artifacts(young)["artifact_0"].status == ArtifactStatus.EXPIRED
    assert {reader.artifacts(task)["artifact_0"].status for task in (unpinned, ahead)} == {ArtifactStatus.STORED}


# Properties.


@dataclass(frozen=True)
class Kept:
    """What the rows of a run and its artifacts say."""

    started_at: datetime
    status: str
    is_pinned: bool
    artifacts: dict[str, tuple[str, int | None, datetime | None]]
    "Name -> status, size, expiry."


def look(store: Store) -> dict[str, Kept]:
    """Returns: Task id -> its run."""
    with store.session() as session:
        runs = session.execute(select(TaskRun)).scalars().all()
        artifacts = session.execute(select(Artifact)).scalars().all()
    return {
        run.task_id: Kept(
            started_at=run.started_at,
            status=run.status,
            is_pinned=run.pinned_at is not None,
            artifacts={
                each.name: (each.status, each.size_bytes, each.expires_at)
                for each in artifacts
                if each.run_id == run.run_id
            },
        )
        for run in runs
    }


def live(run: Kept) -> dict[str, tuple[str, int | None, datetime | None]]:
    return {name: each for name, each in run.artifacts.items() if each[0] == ArtifactStatus.STORED}


def fill(store: Store, clock: FakeClock, stored, chance: random.Random) -> None:
    for _ in range(chance.randrange(25)):
        task_id = publish(store, clock, *chance.choices(SIZES, k=chance.randrange(4)))
        if chance.random() < 0.2:
            pin(store, stored(store.settings).runs(task_id)[0].run_id)
        if chance.random() < 0.2:
            store.announce([run_record(started_at=clock.now(), finished_at=None).as_running()])


def assert_kept(before: dict[str, Kept], after: dict[str, Kept], max_bytes: int | None, max_runs: int | None) -> None:
    """Checks what a cleanup left of what it found, where nothing was past its time."""
    assert {task: run for task, run in before.items() if run.is_pinned or run.status == RunStatus.RUNNING}.items() <= (
        after.items()
    )

    # Runs: the oldest go, as many as needed and no more.
    may_go = sorted(
        (run.started_at, task) for task, run in before.items() if not run.is_pinned and run.status != RunStatus.RUNNING
    )
    ended = sum(run.status != RunStatus.RUNNING for run in before.values())
    excess = 0 if max_runs is None else max(0, ended - max_runs)
    assert {*before} - {*after} == {task for _, task in may_go[:excess]}

    # Artifacts of the others: the same.
    rest = {task: before[task] for task in after}
    stored_bytes = sum(size or 0 for run in rest.values() for _, size, _ in live(run).values())
    lost = [each for task in after for name, each in live(rest[task]).items() if name not in live(after[task])]
    kept = [each for run in after.values() for each in live(run).values()]
    lost_bytes = sum(size or 0 for _, size, _ in lost)
    if max_bytes is None:
        assert lost == []
        return
    unpinned = [expires_at for _, _, expires_at in kept if expires_at is not None]
    assert stored_bytes - lost_bytes <= max_bytes or not unpinned
    if lost:
        last = max(expires_at for _, _, expires_at in lost)
        assert all(expires_at >= last for expires_at in unpinned)
        assert stored_bytes - lost_bytes + max(size or 0 for _, size, at in lost if at == last) > max_bytes


@pytest.mark.parametrize(
    ("database_url", "seed"),
    [*(("sqlite", seed) for seed in range(5)), *(("postgresql", seed) for seed in range(5, 8))],
    indirect=["database_url"],
)
def test_what_is_left_is_within_the_bounds_and_the_oldest_went_first(make, clock, stored, seed):
    chance = random.Random(seed)
    bounds = {
        name: value
        for name, value in {"max_bytes": chance.randrange(1, 400), "max_runs": chance.randrange(1, 12)}.items()
        if chance.random() < 0.8
    }
    store = make(**bounds)
    for _ in range(2):
        fill(store, clock, stored, chance)
        before = look(store)
        foretold = Cleanup(store, dry_run=True).run()
        assert look(store) == before

        counts = Cleanup(store, batch_size=3, expiry_batch_size=2, chunk_size=chance.choice([2, 5, 1000])).run()

        assert counts == foretold
        assert_kept(before, look(store), bounds.get("max_bytes"), bounds.get("max_runs"))
        assert not stored(store.settings).check()


# Others at the same time.


def test_two_cleanups_at_once_remove_no_more_than_one(make, clock):
    stores = make(max_bytes=2000, max_runs=30), make(max_bytes=2000, max_runs=30)
    for _ in range(60):
        publish(stores[0], clock, 100)
    counts: list[Counts] = []
    cleanups = [Cleanup(store, batch_size=4, expiry_batch_size=4, chunk_size=16) for store in stores]
    threads = [threading.Thread(target=lambda each=each: counts.append(each.run())) for each in cleanups]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert totals(stores[0]) == (2000, 30)
    assert sum(count.removed_runs for count in counts) == 30
    assert sum(count.expired_artifacts for count in counts) == 40
    assert len(files(stores[0])) == 20


def test_a_cleanup_ends_though_a_publisher_goes_on_without_a_pause(make, clock, stored):
    store, bounded, stop = make(), make(max_bytes=120, max_runs=5), threading.Event()
    published = list[str]()
    errors = list[Exception]()

    def work() -> None:
        while not stop.is_set():
            run = run_record(started_at=clock.now(), finished_at=clock.now())
            try:
                store.publish([bundle(run)])
            except Exception as error:
                errors.append(error)
            published.append(run.task_id)

    def wait_for(count: int) -> None:
        eventually(lambda: len(published) >= count, f"{count} runs are published")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_for(30)
        counts = Cleanup(bounded, batch_size=5, expiry_batch_size=5).run()
        wait_for(len(published) + 5)
    finally:
        stop.set()
        thread.join()

    assert counts.removed_runs >= 25
    assert not errors
    assert not stored(store.settings).check()
    # What came meanwhile is left to the next one.
    Cleanup(bounded).run()
    assert {run.task_id for run in stored(store.settings).all_runs()} == {*published[-5:]}
    assert totals(store)[0] <= 120


def test_a_run_that_is_pinned_in_the_middle_of_a_cleanup_stays_whole(make, clock, stored, monkeypatch):
    store = make(max_runs=2)
    tasks = [publish(store, clock, 100) for _ in range(4)]
    run_id = stored(store.settings).runs(tasks[1])[0].run_id
    delete = store.blobs.delete

    def pin_another(names):
        pin(store, run_id)
        return delete(names)

    monkeypatch.setattr(store.blobs, "delete", pin_another)
    Cleanup(store, batch_size=1, expiry_batch_size=1).run()

    reader = stored(store.settings)
    assert {run.task_id for run in reader.all_runs()} == {tasks[1], tasks[3]}  # The next oldest goes instead.
    assert reader.data(tasks[1], "artifact_0")


def test_a_cleanup_that_died_in_the_middle_is_finished_by_the_next(make, clock, stored, monkeypatch):
    store = make(max_runs=1)
    tasks = [publish(store, clock, 100) for _ in range(3)]

    def die(names):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.blobs, "delete", die)
        with pytest.raises(KeyboardInterrupt):
            Cleanup(store).run()
    reason = stored(store.settings).artifacts(tasks[0])["artifact_0"].reason
    assert "more runs are stored than DRAMATIQ_DIAG_MAX_RUNS allows: 1." in reason

    assert Cleanup(store).run().removed_runs == 2
    assert [run.task_id for run in stored(store.settings).all_runs()] == [tasks[2]]
