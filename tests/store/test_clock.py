"""Clocks that are wrong: the database's decides, so nothing young is removed and nothing expires early."""

from __future__ import annotations

import datetime as datetime_module
import os
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import selectinload

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.captures import create, find_capture
from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.models import Artifact, StoreState, TaskRun, WorkerActor
from dramatiq_diag.store.pins import delete, pin, unpin
from dramatiq_diag.store.slots import open_captures
from dramatiq_diag.store.worker_actors import note_actors
from dramatiq_diag.store.workers import note_worker, reported_spools
from support.captures import running, standing
from support.records import bundle, put_blob, run_record, worker_report

#: A protection time and a wrong clock, in minutes.
_PROTECTED = 5
_WRONG = [pytest.param(-10, id="behind"), pytest.param(10, id="ahead")]


@pytest.fixture
def given(settings, database_url):
    seconds = _PROTECTED * 60
    times = dict.fromkeys(("orphan_protection_time", "run_retention", "cleanup_interval"), seconds)
    return settings(database_url=database_url, task_diagnostics_on_request=["memory"], **times)


@pytest.fixture
def wrong_by(monkeypatch):
    """Sets the clock of this process wrong by so many minutes, for every module of the package."""
    real = time.time

    def set_wrong(minutes: float) -> None:
        class Wrong(datetime_module.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(tz) + timedelta(minutes=minutes)

        monkeypatch.setattr(time, "time", lambda: real() + minutes * 60)
        for name, module in tuple(sys.modules.items()):
            if name.startswith("dramatiq_diag") and getattr(module, "datetime", None) is datetime:
                monkeypatch.setattr(module, "datetime", Wrong)

    return set_wrong


def publish(store, **changes: Any):
    now = datetime.now(UTC)
    made = bundle(run_record(**{"task_id": "task", "started_at": now, "finished_at": now} | changes))
    store.publish([made])
    return made.run.run_id


def test_the_clock_of_the_database_is_what_it_says(store):
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    with store.session() as session:
        moment = Clock(session).read()
    assert before <= moment <= datetime.now(UTC)
    assert before <= store.now() <= datetime.now(UTC)


@pytest.mark.parametrize("seconds", [0.0, 0.25, -0.25, 90.5, -86400.0, 100 * 366 * 86400.0, -100 * 366 * 86400.0])
def test_a_moment_of_the_database_is_as_far_away_as_it_should_be(store, seconds):
    with store.session() as session:
        clock = Clock(session)
        now, moment = session.execute(select(clock.now, clock.after(seconds))).one()

    assert abs((moment - now).total_seconds() - seconds) < 0.002


@pytest.mark.parametrize("minutes", _WRONG)
def test_a_worker_whose_clock_is_wrong_gives_its_artifacts_their_time(store, given, stored, wrong_by, minutes):
    real = datetime.now(UTC)
    wrong_by(minutes)
    wrong_now = real + timedelta(minutes=minutes)
    publish(store, started_at=wrong_now, finished_at=wrong_now)

    artifact = stored(given).artifacts("task")["memory_profile"]

    # Then it expires after its protection time, at the earliest; where the run ended later by its host's clock, then
    earliest = max(wrong_now, real) + timedelta(minutes=_PROTECTED)
    assert earliest <= artifact.expires_at < earliest + timedelta(minutes=2)
    assert real <= artifact.published_at < real + timedelta(minutes=2)


@pytest.mark.parametrize("minutes", _WRONG)
def test_a_cleanup_whose_clock_is_wrong_takes_what_is_due_and_no_more(store, given, stored, wrong_by, minutes):
    young, due = publish(store), publish(store)
    with store.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(Artifact).where(Artifact.run_id == due).values(expires_at=past))
    orphans = {age: store.blobs.root / f"{datetime.now(UTC):%Y%m%d}" / str(uuid.uuid4()) for age in (0, 60)}
    for age, path in orphans.items():
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (datetime.now(UTC).timestamp() - age * 60,) * 2)
    wrong_by(minutes)

    counts = Cleanup(store).run()

    assert (counts.expired_artifacts, counts.removed_runs) == (1, 0)
    statuses = {run.run_id: run.artifacts[0].status for run in runs_with_artifacts(store)}
    assert statuses == {young: ArtifactStatus.STORED, due: ArtifactStatus.EXPIRED}
    assert [path.exists() for path in orphans.values()] == [True, False]


def runs_with_artifacts(store):
    with store.session() as session:
        return session.execute(select(TaskRun).options(selectinload(TaskRun.artifacts))).scalars().all()


def test_the_row_of_a_run_of_a_host_that_is_behind_has_its_retention(store, given, stored):
    # Given a run without a file, of a host by whose clock it ended longer ago than the retention
    long_ago = datetime.now(UTC) - timedelta(minutes=_PROTECTED * 2)
    run_id = publish(store, started_at=long_ago, finished_at=long_ago)
    delete(store, run_id)

    assert Cleanup(store).run().removed_runs == 0

    with store.session() as session:
        session.execute(update(Artifact).values(published_at=long_ago))
    assert Cleanup(store).run().removed_runs == 1


@pytest.mark.parametrize("minutes", _WRONG)
def test_the_turn_to_clean_up_comes_by_the_databases_clock(store, wrong_by, minutes):
    assert store.claim_cleanup()
    wrong_by(minutes)
    assert not store.claim_cleanup()

    with store.session() as session:
        session.execute(update(StoreState).values(last_cleanup_at=datetime.now(UTC) - timedelta(minutes=6)))
    assert store.claim_cleanup()


@pytest.mark.parametrize("minutes", _WRONG)
def test_a_pin_and_its_end_are_by_the_databases_clock(store, wrong_by, minutes):
    run_id = publish(store)
    wrong_by(minutes)
    real = datetime.now(UTC)

    pinned = pin(store, run_id)
    unpinned = unpin(store, run_id)

    assert abs(pinned.pinned_at - real) < timedelta(minutes=2)
    assert abs(unpinned.expires_at - real - timedelta(minutes=_PROTECTED)) < timedelta(minutes=2)


@pytest.mark.parametrize("minutes", _WRONG)
def test_a_capture_is_open_by_the_databases_clock(store, wrong_by, minutes):
    capture_id = create(store, "work", {"memory": {}}, 1, 300.0, unknown_actor=True).capture.capture_id
    wrong_by(minutes)

    with store.session() as session:
        assert find_capture(session, capture_id).state == "open"
        (capture,) = open_captures(session)
    assert 0 < capture.closes_at - time.monotonic() <= 300.0
    assert store.announce([running(capture_id)]) == set()
    done = standing(store, capture_id).capture.ended_at
    assert abs(done - datetime.now(UTC)) < timedelta(minutes=2)


@pytest.mark.parametrize("minutes", _WRONG)
def test_an_actor_is_seen_by_the_databases_clock(store, wrong_by, minutes):
    wrong_by(minutes)
    with store.session() as session:
        note_actors(session, {"work": "default"})
    with store.session() as session:
        seen = session.query(WorkerActor).one().last_seen_at
    assert abs(seen - datetime.now(UTC)) < timedelta(minutes=2)


@pytest.mark.parametrize("minutes", _WRONG)
def test_a_blob_whose_row_is_on_its_way_is_young_whatever_the_clock_of_who_checks(store, wrong_by, minutes):
    late = bundle()
    put_blob(store, late)
    waits: list[float] = []
    wrong_by(minutes)

    assert not check(store, sleep=lambda seconds: (waits.append(seconds), store.publish([late])))
    assert len(waits) == 1


@pytest.mark.parametrize("minutes", _WRONG)
def test_how_long_a_run_waits_on_its_host_is_told_by_the_databases_clock(store, wrong_by, minutes):
    wrong_by(minutes)
    with store.session() as session:
        note_worker(session, worker_report(unpublished_s=120.0))
        ((_, _, unpublished_since, now),) = reported_spools(session)

    assert 120.0 <= (now - unpublished_since).total_seconds() < 180.0
