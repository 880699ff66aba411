"""Questions to the rows, over both databases: attempts, filters, choices."""

from __future__ import annotations

import math
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from sqlalchemy import update

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.attempts import find_attempt, list_attempts
from dramatiq_diag.store.cursors import FIGURES
from dramatiq_diag.store.models import TaskRun
from dramatiq_diag.store.records import artifact_id
from dramatiq_diag.store.runs import (
    RunFilter,
    Sort,
    artifacts_of,
    children_of,
    count_runs,
    find_artifact,
    find_run,
    list_runs,
    overlapping_runs,
    parent_of,
)
from dramatiq_diag.store.values import clean_text, task_key
from support.records import NOW, artifact_record, bundle, run_record


def publish_task(store, task_id, *statuses, start=NOW):
    """Publishes the attempts at a task, last one first. Returns: The run ids, first attempt first."""
    runs = [
        run_record(task_id=task_id, status=status, started_at=start + timedelta(seconds=number))
        for number, status in enumerate(statuses)
    ]
    store.publish([bundle(run) for run in reversed(runs)])
    return [run.run_id for run in runs]


def test_attempts_are_ranked_by_start(store):
    run_ids = publish_task(store, "task", RunStatus.FAILED, RunStatus.INTERRUPTED, RunStatus.SUCCEEDED)
    publish_task(store, "other", RunStatus.SUCCEEDED)

    with store.session() as session:
        runs, _ = list_attempts(session, "task", 10)
        listed, _ = list_runs(session, RunFilter(), 10)

    assert [(run.run_id, run.attempt) for run in runs] == list(zip(run_ids, (1, 2, 3), strict=True))
    ranks = {run.run_id: run.attempt for run in listed}
    assert [ranks[run_id] for run_id in run_ids] == [1, 2, 3]


def test_runs_that_start_in_the_same_microsecond_have_ranks_of_their_own(store):
    store.publish([bundle(run_record(task_id="task")) for _ in range(5)])

    with store.session() as session:
        runs, _ = list_attempts(session, "task", 10)
        listed, _ = list_runs(session, RunFilter(), 10)

    assert [run.attempt for run in runs] == [1, 2, 3, 4, 5]
    assert {run.run_id: run.attempt for run in runs} == {run.run_id: run.attempt for run in listed}


def test_an_unknown_task_has_no_runs(store):
    with store.session() as session:
        assert list_attempts(session, "unknown", 10) == ([], None)
        assert find_attempt(session, "unknown") is None
        assert find_artifact(session, uuid.uuid4()) is None
        assert artifacts_of(session, []) == {}


@pytest.mark.parametrize(
    ("statuses", "attempt", "chosen"),
    [
        (["succeeded"], None, 1),
        (["failed", "succeeded"], None, 2),
        (["failed", "running"], None, 1),
        (["running"], None, 1),
        (["failed", "failed", "running"], 1, 1),
        (["failed", "failed", "running"], 3, 3),
        (["failed"], 2, None),
        (["failed"], 0, None),
        (["failed"], -1, None),
    ],
)
def test_without_an_attempt_the_latest_ended_run_is_chosen(store, statuses, attempt, chosen):
    publish_task(store, "task", *map(RunStatus, statuses))

    with store.session() as session:
        run = find_attempt(session, "task", attempt)

    assert (run and run.attempt) == chosen


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (RunFilter(), 3),
        (RunFilter(actor_name="work"), 2),
        (RunFilter(actor_name="work", status="failed"), 1),
        (RunFilter(queue_name="low"), 1),
        (RunFilter(actor_name="nobody"), 0),
        (RunFilter(status="\0"), 0),
        (RunFilter(actor_name="\ud800"), 0),
        (RunFilter(queue_name="x" * 10_000), 0),
        (RunFilter(started_since=NOW), 3),
        (RunFilter(started_since=NOW + timedelta(microseconds=1)), 0),
        (RunFilter(started_before=NOW), 0),
        (RunFilter(started_before=NOW + timedelta(microseconds=1)), 3),
        (RunFilter(started_since=NOW.astimezone(timezone(timedelta(hours=14)))), 3),
        (RunFilter(started_since=datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))), 3),
        (RunFilter(started_before=datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))), 3),
        (RunFilter(min_duration_ms=1000.5), 3),
        (RunFilter(min_duration_ms=1000.6), 1),
        (RunFilter(max_duration_ms=1000.5), 2),
        (RunFilter(min_duration_ms=1000, max_duration_ms=1001), 2),
        (RunFilter(min_duration_ms=10**400), 0),
        (RunFilter(min_duration_ms=math.inf), 0),
        (RunFilter(max_duration_ms=10**400), 3),
        (RunFilter(min_peak_rss_bytes=2**40), 1),
        (RunFilter(min_peak_rss_bytes=2**40 + 1), 0),
        (RunFilter(min_peak_rss_bytes=2**200), 0),
        (RunFilter(min_duration_ms=2000, status="failed"), 0),
    ],
)
def test_runs_are_filtered(store, wanted, count):
    store.publish(
        [
            bundle(run_record(actor_name="work")),
            bundle(run_record(actor_name="work", status=RunStatus.FAILED)),
            bundle(run_record(actor_name="rest", queue_name="low", duration_ms=2000.0, peak_rss_bytes=2**40)),
        ]
    )

    with store.session() as session:
        assert len(list_runs(session, wanted, 10)[0]) == count


@pytest.mark.parametrize(
    ("task_id", "found"),
    [
        ("ab", {"ab"}),  # Exactly that, though others begin with it.
        ("a", {"ab", "abc", "a%c", "a_c"}),
        ("AB", {"ABd"}),
        ("abc", {"abc"}),
        ("a%", {"a%c"}),
        ("a_", {"a_c"}),
        ("a*", set()),
        ("%", set()),
        ("_", set()),
        ("\\", {"\\x"}),
        ("b", set()),  # Only how they begin.
        ("ü", {"üb"}),
        ("n\0", {"n\0l"}),
        ("\ud800", {"?"}),
        ("x" * 100_000, set()),
        ("'; DROP TABLE task_runs; --", set()),
    ],
)
def test_runs_are_found_by_their_task_or_how_its_id_begins(store, task_id, found):
    known = ["ab", "abc", "ABd", "a%c", "a_c", "\\x", "üb", "n\0l", "?"]
    store.publish([bundle(run_record(task_id=each)) for each in known])

    with store.session() as session:
        runs, _ = list_runs(session, RunFilter(task_id=task_id), 20)

    assert {run.task_id for run in runs} == {clean_text(each) for each in found}


@pytest.mark.parametrize("sort", [Sort.SLOWEST, Sort.QUEUE_WAIT, Sort.CPU, Sort.RUN_QUEUE, Sort.GC])
def test_a_duration_that_is_no_number_is_not_the_slowest(store, sort):
    name = FIGURES[sort].key
    store.publish([bundle(run_record(**{name: 5.0})), bundle(run_record(task_id="odd", **{name: 6.0}))])
    with store.session() as session:
        session.execute(update(TaskRun).where(TaskRun.task_id == "odd").values({name: math.nan}))

    with store.session() as session:
        runs, _ = list_runs(session, RunFilter(), 10, None, sort)

    assert [getattr(run, name) for run in runs] == [5.0]


def test_a_run_is_found_by_its_id_with_its_rank(store):
    run_ids = publish_task(store, "task", RunStatus.FAILED, RunStatus.SUCCEEDED)

    with store.session() as session:
        found = [find_run(session, run_id) for run_id in run_ids]
        assert [(each.run_id, each.attempt) for each in found] == [(run_ids[0], 1), (run_ids[1], 2)]
        assert find_run(session, uuid.uuid4()) is None


def test_runs_beside_one_are_those_of_its_process_that_overlapped_it(store):
    second = timedelta(seconds=1)
    ids = ["before", "into", "within", "beyond", "after", "elsewhere", "another pid", "running", "not diagnosed"]
    one = run_record(task_id="one", started_at=NOW, finished_at=NOW + 10 * second, overlapped_task_ids=ids)

    def other(task_id, starts, ends, **changes):
        return run_record(task_id=task_id, started_at=NOW + starts * second, finished_at=NOW + ends * second, **changes)

    others = [
        other("before", -5, 0),
        other("into", -5, 1),
        other("within", 2, 3),
        other("beyond", 4, 20),
        other("after", 10, 20),
        other("elsewhere", 2, 3, hostname="other"),
        other("another pid", 2, 3, pid=1),
        other("not noted", 2, 3),
        other("within", 5, 6),
    ]
    running = run_record(
        task_id="running", started_at=NOW + 9 * second, finished_at=None, duration_ms=None, status=RunStatus.RUNNING
    )
    store.publish([bundle(run) for run in [one, *others]])
    store.announce([running])

    with store.session() as session:
        found = overlapping_runs(session, find_run(session, one.run_id))
        while_it_runs = overlapping_runs(session, find_run(session, running.run_id))

    assert [(each.task_id, each.attempt) for each in found] == [
        ("into", 1),
        ("within", 1),
        ("beyond", 1),
        ("within", 2),
        ("running", 1),
    ]
    assert while_it_runs == []


def test_artifacts_come_by_name(store):
    published = bundle(
        None,
        artifact_record(name="pyinstrument_profile"),
        artifact_record(None, name="memray_profile", status=ArtifactStatus.SKIPPED),
        artifact_record(),
    )
    store.publish([published, bundle()])

    with store.session() as session:
        found = artifacts_of(session, [published.run.run_id])
        one = find_artifact(session, artifact_id(published.run.run_id, "memory_profile"))

    assert [artifact.name for artifact in found[published.run.run_id]] == [
        "memory_profile",
        "memray_profile",
        "pyinstrument_profile",
    ]
    assert one.run_id == published.run.run_id


def test_keys_of_task_ids_are_short_and_distinct():
    ids = ["", "a", "A", " a", "?", "\ufffd", "x" * 10_000, "x" * 10_001]

    assert len({task_key(task_id) for task_id in ids}) == len(ids)
    assert {len(task_key(task_id)) for task_id in ids} == {32}


@pytest.mark.parametrize(
    ("text", "limit", "clean"),
    [("plain", None, "plain"), ("a\0b\ud800", None, "a\ufffdb?"), ("abcdef", 4, "abc…"), ("abcd", 4, "abcd")],
)
def test_texts_are_made_fit(text, limit, clean):
    assert clean_text(text, limit) == clean


def test_a_run_knows_what_sent_it_and_what_it_sent(store):
    parent = run_record(task_id="parent", started_at=NOW)
    first, again, second = (
        run_record(task_id=task_id, started_at=NOW + timedelta(seconds=number), parent_run_id=parent.run_id)
        for number, task_id in enumerate(["first", "first", "second"], 1)
    )
    grandchild = run_record(task_id="third", started_at=NOW + timedelta(seconds=9), parent_run_id=first.run_id)
    orphan = run_record(task_id="orphan", parent_run_id=uuid.uuid4())
    store.publish([bundle(run) for run in (second, grandchild, again, first, parent, orphan)])

    with store.session() as session:
        children = children_of(session, parent.run_id)
        parents = {
            run.task_id: parent_of(session, find_run(session, run.run_id))
            for run in (parent, second, grandchild, orphan)
        }
        assert children_of(session, second.run_id) == []

    assert [(child.run_id, child.attempt) for child in children] == [
        (first.run_id, 1),
        (again.run_id, 2),
        (second.run_id, 1),
    ]
    assert {task_id: found and found.task_id for task_id, found in parents.items()} == {
        "parent": None,
        "second": "parent",
        "third": "first",
        "orphan": None,
    }


def test_no_more_than_a_hundred_children_are_told(store):
    parent_run_id = uuid.uuid4()
    children = [
        run_record(task_id=f"child {number}", started_at=NOW + timedelta(seconds=number), parent_run_id=parent_run_id)
        for number in range(101)
    ]
    store.publish([bundle(run) for run in children])

    with store.session() as session:
        found = children_of(session, parent_run_id)

    assert [child.task_id for child in found] == [f"child {number}" for number in range(100)]


def test_a_count_stops_at_its_limit(store):
    store.publish([bundle(run_record(actor_name=name, started_at=NOW)) for name in ("work", "work", "work", "other")])

    with store.session() as session:
        counts = [count_runs(session, RunFilter(actor_name="work"), limit) for limit in (1, 3, 10)]
        since = count_runs(session, RunFilter(started_since=NOW + timedelta(seconds=1)), 10)

    assert counts == [1, 3, 3]
    assert since == 0
