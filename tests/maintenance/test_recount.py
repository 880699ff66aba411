"""Counters that differ from the rows are found and mended, over both databases, while others write."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete, event, update

from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.maintenance.recount import wrong_counters
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.counters import Series
from dramatiq_diag.store.models import Artifact, Counter
from dramatiq_diag.store.store import Store
from support.records import artifact_record, bundle, run_record
from support.store import counted_anew, kept_counters


@pytest.fixture
def published(store):
    """Seven runs of two actors, of which two failed, with an artifact each."""
    actors = ["work", "work", "work", "other", "work", "other", "work"]
    runs = [
        run_record(actor_name=name, status=RunStatus.FAILED if number in (1, 3) else RunStatus.SUCCEEDED)
        for number, name in enumerate(actors)
    ]
    bundles = [bundle(run, artifact_record(b"x" * 10)) for run in runs]
    store.publish(bundles)
    return bundles


def forget(store: Store, *conditions: Any) -> None:
    """Deletes counters, as if a version without counters had published."""
    with store.session() as session:
        session.execute(delete(Counter).where(*conditions))


def assert_exact(store: Store) -> None:
    with store.session() as session:
        assert kept_counters(session) == counted_anew(session)


@contextmanager
def at_first_look_at_artifacts(store: Store, act: Callable[[], object]) -> Iterator[None]:
    """Calls *act* when the rows of the runs have been counted and those of the artifacts have not."""
    waiting = [act]

    def interfere(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if waiting and Artifact.__tablename__ in statement:
            waiting.pop()()

    event.listen(store.engine, "before_cursor_execute", interfere)
    yield
    event.remove(store.engine, "before_cursor_execute", interfere)
    assert not waiting


def test_right_counters_are_no_finding(store, published):
    assert wrong_counters(store, chunk_size=2) == []


def test_what_was_published_without_counting_is_found_and_mended(store, published):
    forget(store, Counter.actor_name == "other")
    with store.session() as session:
        too_many = update(Counter).where(Counter.series == Series.STORED_BYTES, Counter.actor_name == "work")
        session.execute(too_many.values(value=60))
    expected = [
        "stored_artifacts of other, memory_profile: 0 instead of 2",
        "stored_bytes of other, memory_profile: 0 instead of 20",
        "stored_bytes of work, memory_profile: 60 instead of 50",
        "stored_failed_runs of other: 0 instead of 1",
        "stored_runs of other: 0 instead of 2",
    ]

    assert sorted(check(store).wrong_counters) == expected
    assert sorted(check(store, fix=True).wrong_counters) == expected
    assert check(store).wrong_counters == []
    assert_exact(store)


def test_counters_of_actors_without_a_row_become_zero(store):
    with store.session() as session:
        session.add(Counter(actor_name="gone", queue_name="", series=Series.STORED_RUNS, label="", value=3))

    assert wrong_counters(store, fix=True) == ["stored_runs of gone: 3 instead of 0"]
    assert_exact(store)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_artifacts_are_counted_in_chunks(store, published, chunk_size):
    forget(store)

    wrong_counters(store, fix=True, chunk_size=chunk_size)

    assert_exact(store)


def test_what_is_published_during_the_comparison_is_counted_once(store, published, given):
    forget(store)
    other = Store(given)

    def publish() -> None:
        other.publish([bundle(run_record(), artifact_record(b"new"))])

    with at_first_look_at_artifacts(store, publish):
        wrong_counters(store, fix=True)

    assert_exact(store)
    other.close()


def test_two_processes_that_mend_at_once_mend_once(store, published, given):
    forget(store)
    other = Store(given)

    with at_first_look_at_artifacts(store, lambda: wrong_counters(other, fix=True)):
        assert wrong_counters(store, fix=True) == []

    assert_exact(store)
    other.close()
