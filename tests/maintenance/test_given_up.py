"""Runs that nobody executes any more do not go on for ever, over both databases; what was left may still come."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store import pins
from dramatiq_diag.store.counters import Series
from dramatiq_diag.store.models import Counter
from dramatiq_diag.store.records import FinishedRun
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.workers import note_goodbye, note_worker
from support.records import artifact_record, bundle, executed_task, run_record, worker_report

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def given(settings, database_url):
    return settings(database_url=database_url, max_runs=1)


def running(**changes: Any) -> Any:
    values = {"worker_id": uuid.uuid4(), "started_at": datetime.now(UTC)} | changes
    return run_record(**values).as_running()


def ended(run: Any, status: RunStatus) -> Any:
    end = {"finished_at": run.started_at + timedelta(seconds=1), "duration_ms": 1000.0, "status": status}
    return run_record(**vars(run) | end)


def announce(store: Store, *runs: Any) -> None:
    """Announces runs, whose workers report themselves once."""
    store.announce(runs)
    with store.session() as session:
        for run in runs:
            note_worker(session, worker_report(worker_id=run.worker_id))


def executing(run: Any, **changes: Any) -> Any:
    return executed_task(run.task_id, **{"run_id": str(run.run_id)} | changes)


def report_of(run: Any, *tasks: Any, **changes: Any) -> Any:
    return worker_report(worker_id=run.worker_id, tasks=[*tasks], **changes)


def ended_runs(store: Store) -> dict[str, float]:
    """Returns: Status -> how many runs ended with it, as `/metrics` tells."""
    with store.session() as session:
        rows = session.execute(select(Counter).where(Counter.series == Series.RUNS)).scalars()
        return {row.label: row.value for row in rows}


def test_a_run_is_given_up_a_day_after_its_worker_was_last_heard_of(store, given, stored, clock):
    run, heard = running(task_id="lost"), running(task_id="heard")
    announce(store, run, heard)

    clock.ahead = DAY - MINUTE
    Cleanup(store).run()
    assert {each.status for each in stored(given).all_runs()} == {RunStatus.RUNNING}

    with store.session() as session:
        note_worker(session, report_of(heard, executing(heard)))
    clock.ahead = DAY + MINUTE
    Cleanup(store).run()
    (lost,) = stored(given).runs("lost")
    assert (lost.status, lost.finished_at, lost.duration_ms) == (RunStatus.INTERRUPTED, None, None)
    assert "how it ended is not known" in lost.death_reason
    assert stored(given).runs("heard")[0].status == RunStatus.RUNNING
    assert ended_runs(store) == {"interrupted": 1}
    assert not stored(given).check()


def note(store: Store, *reports: Any) -> None:
    with store.session() as session:
        for report in reports:
            note_worker(session, report)


def test_an_attachment_that_comes_after_the_row_of_its_run_makes_none_that_goes_on(
    store, given, settings, store_of, stored, clock
):
    run = running()
    young = running(worker_id=run.worker_id, started_at=run.started_at + MINUTE)
    store.publish([bundle(ended(run, RunStatus.SUCCEEDED)), bundle(ended(young, RunStatus.SUCCEEDED))])
    assert Cleanup(store).run().removed_runs == 1
    store.publish([FinishedRun(run=run, artifacts=[artifact_record()], attachment_id=uuid.uuid4())])

    clock.ahead = DAY + MINUTE
    # A busy one: there is always a run that waits to be published.
    note(store, report_of(run, executing(young), unpublished_s=0.0))
    Cleanup(store_of(settings(database_url=given.database_url))).run()

    (attempt,) = stored(given).runs(run.task_id)
    assert attempt.status == RunStatus.INTERRUPTED
    assert "does not execute it any more" in attempt.death_reason
    assert len(stored(given).attached()) == 1
    assert not stored(given).check()


def test_a_run_that_its_worker_may_still_execute_goes_on(store, given, stored, clock):
    executed, named, crowded, unpublished, silent = runs = [running() for _ in range(5)]
    young = running(started_at=datetime.now(UTC) + DAY)
    store.announce([*runs, young])

    clock.ahead = DAY + MINUTE
    note(store, report_of(silent))
    clock.ahead += MINUTE
    note(
        store,
        report_of(executed, executing(executed)),
        report_of(named, executing(named, run_id=None)),
        report_of(crowded, *(executed_task(f"task {number}") for number in range(256))),
        report_of(unpublished, unpublished_s=120.0),
        report_of(young),
    )
    Cleanup(store).run()

    assert {run.status for run in stored(given).all_runs()} == {RunStatus.RUNNING}
    clock.ahead += DAY - MINUTE
    note(store, *(report_of(run) for run in (executed, named, crowded, unpublished, silent)))
    Cleanup(store).run()
    assert {run.status for run in stored(given).all_runs()} == {RunStatus.INTERRUPTED, RunStatus.RUNNING}
    assert stored(given).runs(young.task_id)[0].status == RunStatus.RUNNING


def test_a_worker_that_said_goodbye_leaves_no_run_that_goes_on(store, given, stored, clock):
    run = running()
    announce(store, run)
    with store.session() as session:
        note_goodbye(session, run.worker_id)
    clock.ahead = DAY + MINUTE
    Cleanup(store).run()
    assert stored(given).runs(run.task_id)[0].status == RunStatus.INTERRUPTED


@pytest.mark.parametrize("changes", [{"worker_id": None}, {"started_at": datetime.now(UTC) + 2 * DAY}])
def test_a_young_run_and_one_of_an_unknown_worker_are_not_given_up(store, given, stored, clock, changes):
    run = running(**changes)
    store.announce([run])
    clock.ahead = 2 * DAY
    Cleanup(store).run()
    assert stored(given).runs(run.task_id)[0].status == RunStatus.RUNNING


@pytest.mark.parametrize("status", [RunStatus.SUCCEEDED, RunStatus.FAILED, RunStatus.INTERRUPTED])
def test_what_is_published_later_takes_its_place_and_counts_once(store, given, stored, clock, status):
    run = running(task_id="late")
    announce(store, run)
    clock.ahead = 2 * DAY
    Cleanup(store).run()

    # Its worker was only out of reach: it does not make the run go on
    store.announce([run])
    assert stored(given).runs("late")[0].status == RunStatus.INTERRUPTED

    for _ in range(2):
        store.publish([bundle(ended(run, status), artifact_record(b"whole"))])
        (late,) = stored(given).runs("late")
        assert (late.status, late.duration_ms, late.death_reason) == (status, 1000.0, None)
        assert stored(given).data("late", "memory_profile") == b"whole"
        assert ended_runs(store) == {"interrupted": 1}
        assert not stored(given).check()


def test_a_pin_of_a_run_that_was_given_up_holds_for_what_comes_later(store, given, stored, clock):
    run = running(task_id="pinned")
    announce(store, run)
    clock.ahead = 2 * DAY
    Cleanup(store).run()
    pins.pin(store, run.run_id)

    store.publish([bundle(ended(run, RunStatus.SUCCEEDED), artifact_record(b"whole"))])
    clock.ahead = 9 * DAY
    Cleanup(store).run()
    assert stored(given).data("pinned", "memory_profile") == b"whole"


def test_it_counts_for_the_bound_of_runs_and_goes_after_the_retention(store, given, stored, clock):
    lost = [running(started_at=datetime.now(UTC) + timedelta(seconds=number)) for number in range(3)]
    announce(store, *lost)
    clock.ahead = 2 * DAY
    Cleanup(store).run()
    assert [run.run_id for run in stored(given).all_runs()] == [lost[2].run_id]
    assert not stored(given).check()

    clock.ahead = 29 * DAY
    assert Cleanup(store).run().removed_runs == 0
    clock.ahead = 31 * DAY
    assert Cleanup(store).run().removed_runs == 1
    assert not stored(given).check()


def test_a_dry_run_gives_up_nothing(store, given, stored, clock):
    run = running()
    announce(store, run)
    clock.ahead = 2 * DAY
    Cleanup(store, dry_run=True).run()
    assert stored(given).runs(run.task_id)[0].status == RunStatus.RUNNING
