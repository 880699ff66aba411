"""The counters over both databases: each run counts once, and what is stored is counted exactly."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.counters import SUM, Series, bucket_label, read_counters, total
from dramatiq_diag.store.models import Counter
from dramatiq_diag.store.pins import delete
from support.records import artifact_record, bundle, run_record
from support.store import FakeClock, counted_anew, kept_counters


@pytest.fixture
def given(settings, database_url):
    return settings(database_url=database_url, orphan_protection_time=3600, run_retention=7200)


def counters(store, series, **conditions):
    """Returns: Label -> value."""
    with store.session() as session:
        rows = session.execute(select(Counter).filter_by(series=series, **conditions)).scalars()
        return {row.label: row.value for row in rows}


def assert_exact(store):
    with store.session() as session:
        assert kept_counters(session) == counted_anew(session)


def recent(**changes):
    now = datetime.now(UTC)
    return run_record(started_at=now - timedelta(seconds=1), finished_at=now, **changes)


def test_a_run_counts_by_status_duration_queue_and_memory(store):
    runs = [
        recent(duration_ms=50.0, queue_wait_ms=2000.0, peak_rss_bytes=100 * 1024**2),
        recent(duration_ms=50.1, status=RunStatus.FAILED),
        recent(duration_ms=10_000_000.0, actor_name="other"),
    ]
    store.publish([bundle(run) for run in runs])

    assert counters(store, "runs", actor_name="work") == {"succeeded": 1, "failed": 1}
    assert counters(store, "run_seconds", actor_name="work") == {"0.05": 1, "0.1": 1, SUM: pytest.approx(0.1001)}
    assert counters(store, "run_seconds", actor_name="other") == {"+Inf": 1, SUM: 10_000}
    assert counters(store, "run_queue_seconds", actor_name="work") == {"5.0": 1, SUM: 2}
    assert counters(store, "run_peak_rss_bytes") == {"134217728.0": 1, SUM: 100 * 1024**2}
    assert_exact(store)


def test_a_bucket_remembers_a_run_until_another_comes(store):
    first, second, third = recent(), recent(), recent(duration_ms=70_000.0)
    for run in (first, second, third):
        store.publish([bundle(run)])

    with store.session() as session:
        rows = {row.label: row for row in read_counters(session) if row.series == Series.RUN_SECONDS}
    assert (rows["5.0"].exemplar_run_id, rows["5.0"].exemplar_value) == (second.run_id, pytest.approx(1.0005))
    assert rows["5.0"].exemplar_at == second.finished_at
    assert rows["300.0"].exemplar_run_id == third.run_id
    assert rows[SUM].exemplar_run_id is None


def test_a_run_that_is_announced_and_published_twice_counts_once(store):
    run = recent()
    store.announce([run.as_running()])
    assert counters(store, "runs") == {}
    finished = bundle(run, artifact_record(b"x" * 10))

    store.publish([finished])
    store.publish([finished])

    assert counters(store, "runs") == {"succeeded": 1}
    assert counters(store, "artifacts") == {"stored": 1}
    assert counters(store, "stored_bytes") == {"memory_profile": 10}
    assert_exact(store)


def test_an_entry_that_grew_before_it_is_published_again_counts_with_its_new_size(store):
    run = recent()
    store.publish([bundle(run, artifact_record(b"x" * 10))])

    store.publish([bundle(run, artifact_record(b"x" * 25), artifact_record(b"yy", name="task_logs"))])

    assert counters(store, "stored_bytes") == {"memory_profile": 25, "task_logs": 2}
    assert counters(store, "stored_artifacts") == {"memory_profile": 1, "task_logs": 1}
    assert_exact(store)


def test_a_cleanup_counts_what_it_expires_and_the_runs_that_it_removes(store, monkeypatch):
    store.publish([bundle(recent(), artifact_record(b"x" * 10)) for _ in range(3)])
    clock = FakeClock(monkeypatch)
    clock.ahead = timedelta(hours=1.5)

    Cleanup(store, expiry_batch_size=2).run()

    assert counters(store, "artifacts") == {"stored": 3, "expired": 3}
    assert counters(store, "stored_bytes") == {"memory_profile": 0}
    with store.session() as session:
        assert (total(session, Series.STORED_RUNS), total(session, Series.STORED_ARTIFACTS)) == (3, 0)
    clock.ahead = timedelta(hours=4)
    Cleanup(store, batch_size=2).run()
    assert counters(store, "stored_runs") == {"": 0}
    assert counters(store, "runs") == {"succeeded": 3}
    assert_exact(store)


def test_a_deletion_by_hand_and_a_damaged_blob_are_counted(store):
    kept, deleted, damaged = (bundle(recent(), artifact_record(b"x" * 10)) for _ in range(3))
    store.publish([kept, deleted, damaged])

    delete(store, deleted.run.run_id)
    delete(store, deleted.run.run_id)
    [name] = [found.name for found in store.blobs.scan() if found.name.endswith(str(artifact_of(damaged)))]
    (store.blobs.root / name).write_bytes(b"short")
    check(store, fix=True)

    assert counters(store, "artifacts") == {"stored": 3, "deleted": 1, "failed": 1}
    assert counters(store, "stored_bytes") == {"memory_profile": 10}
    assert_exact(store)


def artifact_of(finished):
    return uuid.uuid5(finished.run.run_id, "memory_profile")


def test_an_artifact_without_a_blob_takes_no_bytes(store):
    dropped = artifact_record(None, status=ArtifactStatus.DROPPED, reason="dropped")
    store.publish([bundle(recent(), dropped)])

    assert counters(store, "artifacts") == {"dropped": 1}
    assert counters(store, "stored_bytes") == {}
    assert_exact(store)


def test_publishers_of_many_actors_in_any_order_neither_lose_a_count_nor_deadlock(store):
    names = [f"actor-{number}" for number in range(20)]
    errors = []

    def publish(order):
        try:
            for _ in range(5):
                store.publish([bundle(recent(actor_name=name)) for name in order])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=publish, args=(names[::step],)) for step in (1, -1, 1, -1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not errors
    with store.session() as session:
        assert total(session, Series.RUNS) == 400
    assert_exact(store)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_figure_that_is_none_is_not_counted(store, value):
    store.publish([bundle(recent(queue_wait_ms=None, peak_rss_bytes=None, duration_ms=value))])
    assert counters(store, "run_seconds") == {}
    assert counters(store, "runs") == {"succeeded": 1}


def test_a_bound_belongs_to_its_bucket():
    assert bucket_label(Series.RUN_SECONDS, 0.01) == "0.01"
    assert bucket_label(Series.RUN_SECONDS, 0.0100001) == "0.05"
    assert bucket_label(Series.RUN_SECONDS, 3601) == "+Inf"


def test_hostile_names_are_counted_under_the_text_that_the_row_has(store):
    store.publish([bundle(recent(actor_name="a\0b" + "x" * 400, queue_name="\ud800"))])
    assert_exact(store)
