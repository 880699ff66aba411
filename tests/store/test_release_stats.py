"""The figures of an actor by release, over both databases."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest

from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.release_stats import LATEST_RUNS, summarize_releases
from dramatiq_diag.store.runs import find_run
from dramatiq_diag.store.store import Store
from support.records import NOW, bundle, run_record


def publish(store: Store, release: str | None, durations_ms: list[float], *, hour: int = 0, **fields: object) -> None:
    records = [
        run_record(
            **{
                "release": release,
                "duration_ms": duration_ms,
                "started_at": NOW + timedelta(hours=hour, seconds=number),
                **fields,
            }
        )
        for number, duration_ms in enumerate(durations_ms)
    ]
    store.publish([bundle(record) for record in records])


def summaries(store: Store, actor_name: str = "work"):
    with store.session() as session:
        return summarize_releases(session, actor_name)


def test_each_release_is_compared_with_the_one_before(store: Store) -> None:
    publish(store, "1", [10.0, 20.0, 30.0, 40.0, 50.0], cpu_ms=4.0, peak_rss_bytes=7)
    publish(store, "2", [45.0, 15.0, 90.0, 30.0, 60.0], hour=1)
    publish(store, "2", [1000.0, 1000.0], hour=2, status=RunStatus.FAILED, peak_rss_bytes=9)
    publish(store, "2", [1.0], hour=3, actor_name="other")
    publish(store, "2", [math.nan], hour=3)

    second, first = summaries(store)
    assert (first.release, first.run_count, first.failed_count, first.duration_ratio) == ("1", 5, 0, None)
    assert (first.median_duration_ms, first.p95_duration_ms) == (30.0, 50.0)
    assert (first.median_cpu_ms, first.max_peak_rss_bytes) == (4.0, 7)
    assert (first.first_started_at, first.last_started_at) == (NOW, NOW + timedelta(seconds=4))
    assert (second.release, second.run_count, second.failed_count) == ("2", 8, 2)
    assert (second.median_duration_ms, second.duration_ratio, second.max_peak_rss_bytes) == (45.0, 1.5, 9)
    with store.session() as session:
        typical = find_run(session, second.typical_run_id)
    assert (typical.duration_ms, typical.task_id) == (45.0, second.typical_task_id)


def test_few_runs_are_not_compared_and_runs_without_a_release_stand_beside(store: Store) -> None:
    publish(store, None, [10.0] * 5)
    publish(store, "1", [20.0] * 4, hour=1)
    publish(store, "2", [0.0] * 5, hour=2, status=RunStatus.SKIPPED)
    publish(store, "3", [0.0] * 5, hour=3)
    publish(store, "4", [5.0] * 5, hour=4)

    assert [(found.release, found.duration_ratio) for found in summaries(store)] == [
        ("4", None),  # Nothing can be divided by 0.
        ("3", None),
        ("2", None),
        ("1", None),
        (None, None),
    ]
    assert [found.typical_run_id is None for found in summaries(store)] == [False, False, True, False, False]


def test_a_release_that_runs_beside_the_one_before_is_the_newer_one(store: Store) -> None:
    publish(store, "canary", [10.0] * 5, hour=1)
    publish(store, "old", [20.0] * 5)
    publish(store, "old", [20.0], hour=2)

    assert [(found.release, found.duration_ratio) for found in summaries(store)] == [("canary", 0.5), ("old", None)]


def test_there_is_nothing_to_say_where_no_run_names_a_release(store: Store) -> None:
    publish(store, None, [10.0])
    publish(store, "1", [10.0], status=RunStatus.RUNNING, finished_at=None, duration_ms=None)

    assert summaries(store) == []


@pytest.mark.parametrize("newer", [LATEST_RUNS, LATEST_RUNS - 1])
def test_only_the_latest_runs_count(store: Store, newer: int) -> None:
    publish(store, "1", [10.0])
    publish(store, "2", [10.0] * newer, hour=1)

    assert [found.release for found in summaries(store)] == ["2", "1"][: 1 + (newer < LATEST_RUNS)]
