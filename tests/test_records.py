"""Questions to the rows, over both databases: attempts, pages, filters, choices."""

from __future__ import annotations

import base64
import random
import uuid
from datetime import timedelta

import pytest
from test_store import NOW, artifact_record, bundle, run_record

from dramatiq_diag.models import ArtifactStatus, RunStatus
from dramatiq_diag.records import (
    RunFilter,
    artifacts_of,
    choose_run,
    clean_text,
    find_artifact,
    list_runs,
    runs_of_task,
    task_key,
)
from dramatiq_diag.store import artifact_id


@pytest.fixture
def store(settings, database_url, store_of):
    return store_of(settings(database_url=database_url))


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
        runs = runs_of_task(session, "task")
        listed, _ = list_runs(session, RunFilter(), 10)

    assert [(run.run.run_id, run.attempt) for run in runs] == list(zip(run_ids, (1, 2, 3), strict=True))
    ranks = {run.run.run_id: run.attempt for run in listed}
    assert [ranks[run_id] for run_id in run_ids] == [1, 2, 3]


def test_runs_that_start_in_the_same_microsecond_have_ranks_of_their_own(store):
    store.publish([bundle(run_record(task_id="task")) for _ in range(5)])

    with store.session() as session:
        runs = runs_of_task(session, "task")
        listed, _ = list_runs(session, RunFilter(), 10)

    assert [run.attempt for run in runs] == [1, 2, 3, 4, 5]
    assert {run.run.run_id: run.attempt for run in runs} == {run.run.run_id: run.attempt for run in listed}


def test_an_unknown_task_has_no_runs(store):
    with store.session() as session:
        assert runs_of_task(session, "unknown") == []
        assert choose_run([]) is None
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
        run = choose_run(runs_of_task(session, "task"), attempt)

    assert (run and run.attempt) == chosen


def test_pages_have_every_run_once_newest_first(store):
    moments = [NOW + timedelta(microseconds=random.Random(number).randrange(20)) for number in range(57)]
    store.publish([bundle(run_record(started_at=moment)) for moment in moments])

    seen, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        with store.session() as session:
            runs, cursor = list_runs(session, RunFilter(), 10, cursor)
        assert len(runs) <= 10
        seen += [(run.run.started_at, run.run.run_id) for run in runs]
        pages += 1

    assert pages == 6
    assert len(set(seen)) == 57
    assert [moment for moment, _ in seen] == sorted(moments, reverse=True)


def test_a_run_that_comes_in_between_does_not_shift_the_pages(store):
    store.publish([bundle(run_record(started_at=NOW + timedelta(seconds=number))) for number in range(4)])
    with store.session() as session:
        first, cursor = list_runs(session, RunFilter(), 2)

    store.publish([bundle(run_record(started_at=NOW + timedelta(days=1)))])
    with store.session() as session:
        second, end = list_runs(session, RunFilter(), 2, cursor)

    assert len({run.run.run_id for run in first + second}) == 4
    assert end is None


def test_a_full_last_page_has_no_next(store):
    store.publish([bundle() for _ in range(3)])

    with store.session() as session:
        assert list_runs(session, RunFilter(), 3)[1] is None
        assert list_runs(session, RunFilter(), 2)[1] is not None


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
    ],
)
def test_runs_are_filtered(store, wanted, count):
    store.publish(
        [
            bundle(run_record(actor_name="work")),
            bundle(run_record(actor_name="work", status=RunStatus.FAILED)),
            bundle(run_record(actor_name="rest", queue_name="low")),
        ]
    )

    with store.session() as session:
        assert len(list_runs(session, wanted, 10)[0]) == count


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%%%",
        "é",
        "\0",
        "A" * 100_000,
        encoded("now then"),
        encoded(f"2026-01-01T00:00:00 {uuid.uuid4()}"),
        encoded("2026-01-01T00:00:00+00:00 no-uuid"),
        encoded(f"2026-01-01T00:00:00+00:00 {uuid.uuid4()} more"),
        encoded(f"{'9' * 5000}-01-01T00:00:00+00:00 {uuid.uuid4()}"),
        encoded(f"9999-12-31T23:59:59-14:00 {uuid.uuid4()}"),
        encoded(f"0001-01-01T00:00:00+14:00 {uuid.uuid4()}"),
    ],
)
def test_a_cursor_that_is_not_ours_is_refused(store, cursor):
    store.publish([bundle()])

    with store.session() as session, pytest.raises(ValueError, match="cursor"):
        list_runs(session, RunFilter(), 10, cursor)


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
