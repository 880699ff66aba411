"""Many rows by one statement: every value arrives as it does in a statement of its own."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from dramatiq_diag.errors import RunRefusedError
from dramatiq_diag.statuses import MemoryRole, RunStatus
from dramatiq_diag.store.database import upserting_insert
from dramatiq_diag.store.many_rows import ManyRows
from dramatiq_diag.store.models import TaskRun

NOW = datetime(2026, 11, 27, 12, 0, 0, 123456, tzinfo=UTC)


def row(**values: Any) -> dict[str, Any]:
    key = uuid.uuid4()
    known = {"run_id": key, "task_key": key.hex, "task_id": str(key), "actor_name": "work", "queue_name": "default"}
    known |= {"status": RunStatus.SUCCEEDED, "started_at": NOW, "duration_ms": None, "touched_bytes": None}
    known |= {"memory_role": None, "worker_id": None, "exception_message": None, "overlapped_task_ids": []}
    return known | {"hostname": "host", "pid": 1, "is_stuck": None} | values


ROWS = [
    row(),
    row(duration_ms=1, touched_bytes=2**62, memory_role=MemoryRole.VICTIM, overlapped_task_ids=["a", "b"]),
    row(duration_ms=2.5, touched_bytes=0, memory_role="grower", worker_id=uuid.uuid4(), is_stuck=True),
    row(status="failed", exception_message='NULL, {"a"}, \\ \' " %s %(x)s :p0 \n ü 😀', overlapped_task_ids=['{",\\}']),
    row(started_at=NOW.astimezone() - timedelta(days=400), exception_message="", is_stuck=False),
    row(actor_name="x" * 300, exception_message="null", overlapped_task_ids=[[], {"nested": [1, None]}]),
]


def stored_rows(session, names):
    query = select(*(TaskRun.__table__.c[name] for name in names)).order_by(TaskRun.run_id)
    return [tuple(found) for found in session.execute(query)]


@pytest.mark.parametrize("count", [1, len(ROWS)])
def test_rows_are_those_of_a_statement_for_each(store, count):
    backend_name = store.settings.database.get_backend_name()
    rows = ROWS[:count]
    with store.session() as session:
        for one in rows:
            session.connection().execute(upserting_insert(backend_name, TaskRun), one)
        expected = stored_rows(session, rows[0])
        session.rollback()

    with store.session() as session:
        ManyRows(TaskRun.__table__, lambda insert: insert).execute(session.connection(), rows)
        assert stored_rows(session, rows[0]) == expected


def test_what_is_done_on_a_conflict_and_what_is_returned_is_told_for_each_row(store):
    def keep(insert: Any) -> Any:
        running = TaskRun.status == RunStatus.RUNNING
        update = {"pid": insert.excluded.pid}
        return insert.on_conflict_do_update(index_elements=[TaskRun.run_id], set_=update, where=running).returning(
            TaskRun.run_id, TaskRun.pid
        )

    many = ManyRows(TaskRun.__table__, keep)
    running, ended, fresh = row(status="running"), row(), row()
    with store.session() as session:
        many.execute(session.connection(), [running, ended])
        found = many.execute(session.connection(), [{**one, "pid": 7} for one in (running, ended, fresh)])
        assert dict(map(tuple, found)) == {running["run_id"]: 7, fresh["run_id"]: 7}


def test_of_rows_with_the_same_key_the_last_one_stands(store):
    def replace(insert: Any) -> Any:
        return insert.on_conflict_do_update(index_elements=[TaskRun.run_id], set_={"pid": insert.excluded.pid})

    many = ManyRows(TaskRun.__table__, replace)
    first, other = row(pid=1), row(pid=3)
    with store.session() as session:
        many.execute(session.connection(), [first, other, {**first, "pid": 2}])
        assert dict(stored_rows(session, ["run_id", "pid"])) == {first["run_id"]: 2, other["run_id"]: 3}


def test_rows_with_other_columns_have_a_statement_of_their_own(store):
    many = ManyRows(TaskRun.__table__, lambda insert: insert)
    with store.session() as session:
        many.execute(session.connection(), [row()])
        many.execute(session.connection(), [row(gc_ms=1.5)])
        assert sorted(gc_ms or 0.0 for (gc_ms,) in stored_rows(session, ["gc_ms"])) == [0.0, 1.5]


@pytest.mark.parametrize("values", [{"touched_bytes": 2**63}, {"memory_role": "x" * 17}])
def test_a_value_that_does_not_fit_is_refused_and_not_cut(store, database_url, values):
    if database_url is None:
        values = {"pid": None}  # SQLite takes a text of any length.
    many = ManyRows(TaskRun.__table__, lambda insert: insert)

    with pytest.raises((RunRefusedError, OverflowError)), store.session() as session:
        many.execute(session.connection(), [row(), row(**values)])

    with store.session() as session:
        assert stored_rows(session, ["run_id"]) == []
