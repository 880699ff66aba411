"""The actors' summaries, over both databases."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from sqlalchemy import update

from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.actor_stats import LATEST_RUNS, ActorSummary, list_actors, summarize_actor
from dramatiq_diag.store.models import TaskRun
from dramatiq_diag.store.worker_actors import note_actors
from support.records import NOW, bundle, run_record


def publish(store, *runs):
    store.publish([bundle(run) for run in runs])


def summaries(store):
    with store.session() as session:
        return list_actors(session)


def summary(store, actor_name="work"):
    with store.session() as session:
        return summarize_actor(session, actor_name)


def test_every_actor_has_one_summary_by_name(store):
    publish(
        store,
        run_record(actor_name="b", duration_ms=10.0, peak_rss_bytes=5),
        run_record(actor_name="b", duration_ms=30.0, peak_rss_bytes=7, started_at=NOW + timedelta(seconds=1)),
        run_record(actor_name="b", status=RunStatus.FAILED, duration_ms=20.0),
        run_record(actor_name="a", status=RunStatus.INTERRUPTED, duration_ms=1.5),
        run_record(actor_name="a", status=RunStatus.SKIPPED, duration_ms=0.0),
    )

    assert summaries(store) == [
        ActorSummary(
            actor_name="a",
            run_count=2,
            failed_count=1,
            last_started_at=NOW,
            median_duration_ms=0.75,
            p95_duration_ms=1.5,
            max_peak_rss_bytes=None,
        ),
        ActorSummary(
            actor_name="b",
            run_count=3,
            failed_count=1,
            last_started_at=NOW + timedelta(seconds=1),
            median_duration_ms=20.0,
            p95_duration_ms=30.0,
            max_peak_rss_bytes=7,
        ),
    ]
    assert [summary(store, each.actor_name) for each in summaries(store)] == summaries(store)


def test_without_runs_there_are_no_actors(store):
    assert summaries(store) == []


@pytest.mark.parametrize("actor_name", ["", "nobody", "\0", "\ud800", "x" * 10_000, "WORK", "wor%"])
def test_an_unknown_actor_has_no_summary(store, actor_name):
    publish(store, run_record())

    assert summary(store, actor_name) is None


def test_a_name_longer_than_its_column_finds_the_actor(store):
    name = "work" * 100
    publish(store, run_record(actor_name=name))
    with store.session() as session:
        note_actors(session, {f"idle {name}": "default"})

    found = summary(store, name)
    assert (found.run_count, found.actor_name) == (1, name[:254] + "\u2026")
    assert summary(store, f"idle {name}").run_count == 0
    assert sorted(each.actor_name for each in summaries(store)) == [f"idle {name}"[:254] + "\u2026", found.actor_name]


def test_an_actor_whose_runs_all_run_has_no_durations(store):
    store.announce([run_record(status=RunStatus.RUNNING, finished_at=None, duration_ms=None)])

    found = summary(store)

    assert (found.run_count, found.failed_count) == (1, 0)
    assert (found.median_duration_ms, found.p95_duration_ms, found.max_peak_rss_bytes) == (None, None, None)


def test_the_durations_are_those_of_the_latest_ended_runs(store):
    # Given runs that were slow once, are quick lately, and one that runs
    slow = [run_record(duration_ms=1e6, started_at=NOW - timedelta(days=1)) for _ in range(50)]
    quick = [
        run_record(duration_ms=float(number), started_at=NOW + timedelta(seconds=number))
        for number in range(1, LATEST_RUNS + 1)
    ]
    publish(store, *slow, *quick)
    store.announce(
        [run_record(status=RunStatus.RUNNING, finished_at=None, duration_ms=None, started_at=NOW + timedelta(days=1))]
    )

    found = summary(store)

    assert found.run_count == 151
    assert found.last_started_at == NOW + timedelta(days=1)
    assert (found.median_duration_ms, found.p95_duration_ms) == (50.5, 95.0)


@pytest.mark.parametrize("duration_ms", [math.inf, math.nan])
def test_a_duration_that_is_no_number_does_not_count(store, duration_ms):
    publish(store, run_record(duration_ms=3.0), run_record())
    with store.session() as session:
        session.execute(update(TaskRun).where(TaskRun.duration_ms > 3).values(duration_ms=duration_ms))

    assert summary(store).p95_duration_ms == 3.0


def test_sums_and_queue_waits_over_a_time_range(store):
    later = NOW + timedelta(hours=1)
    publish(
        store,
        run_record(cpu_ms=9e9, touched_bytes=2**60, queue_wait_ms=1e6, duration_ms=5e6),
        run_record(cpu_ms=1500.5, touched_bytes=4096, queue_wait_ms=2.0, duration_ms=2000.0, started_at=later),
        run_record(cpu_ms=0.25, touched_bytes=8192, queue_wait_ms=4.0, duration_ms=500.0, started_at=later),
        run_record(cpu_ms=None, touched_bytes=None, queue_wait_ms=None, duration_ms=100.0, started_at=later),
        run_record(actor_name="unknown", duration_ms=7.0, started_at=later),
        run_record(actor_name="before", cpu_ms=7.0),
    )
    with store.session() as session:
        unknown, work = list_actors(session, later)
        before, *_ = list_actors(session)

    assert (work.actor_name, work.run_count, work.queue_wait_ms) == ("work", 3, 3.0)
    assert (work.cpu_s, work.run_s, work.touched_bytes) == (1.50075, 2.6, 12288)
    assert (unknown.cpu_s, unknown.run_s, unknown.touched_bytes, unknown.queue_wait_ms) == (None, 0.007, None, None)
    # Without a range it would be all runs that are stored
    assert (before.actor_name, before.cpu_s, before.run_s, before.touched_bytes) == ("before", None, None, None)


@pytest.mark.parametrize("number", [math.inf, math.nan])
def test_figures_that_are_no_numbers_do_not_count(store, number):
    publish(store, run_record(cpu_ms=3.0, queue_wait_ms=3.0), run_record(cpu_ms=4.0, queue_wait_ms=4.0))
    with store.session() as session:
        odd = update(TaskRun).where(TaskRun.cpu_ms > 3)
        session.execute(odd.values(cpu_ms=number, queue_wait_ms=number, duration_ms=number))

    with store.session() as session:
        (found,) = list_actors(session, NOW)

    assert (found.cpu_s, found.queue_wait_ms, found.run_s) == (0.003, 3.0, 1.0005)


def test_sums_may_exceed_the_largest_whole_number(store):
    publish(store, *(run_record(touched_bytes=2**62) for _ in range(4)))

    with store.session() as session:
        assert list_actors(session, NOW)[0].touched_bytes == pytest.approx(2**64)
