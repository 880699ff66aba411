"""Numbers the runs of a task, and reads them by number: one attempt, a page of attempts, how many there are."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, func, literal, select, tuple_
from sqlalchemy.orm import Session, aliased

from ..statuses import RunStatus
from .cursors import Sort, read_cursor, write_cursor
from .models import TaskRun
from .values import task_key

#: Start and id of a position before every run.
_FIRST_MOMENT = datetime.min.replace(tzinfo=UTC)
_FIRST_ID = uuid.UUID(int=0)

#: No task has so many runs; SQLite and PostgreSQL cannot skip more than 2**63 rows.
_MAX_FIRST = 2**62

_BY_START = (TaskRun.started_at, TaskRun.run_id)


class Attempt(TaskRun):
    """A run that knows which attempt at its task it is."""

    __allow_unmapped__ = True

    attempt: int
    "The rank of the run among the task's runs by start, from 1; not a column. The functions below set it."


def read_attempts(
    session: Session, query: Select[Attempt], parameters: Mapping[str, Any] | None = None
) -> list[Attempt]:
    """Reads runs, and numbers them.

    The ranks of a task's runs are counted in one pass over its part of the index: from its first run to the earliest of
    those that were read, from that to the next, and so on. To count from the first run for each of them took 22 s for
    1,000 of 100,000 attempts.

    Returns:
      The runs in the order of the query; one that a cleanup has removed in between has the rank 1.
    """
    runs = list(session.execute(query, parameters).scalars())
    if not runs:
        return []
    attempts: dict[uuid.UUID, int] = {}
    last: defaultdict[str, int] = defaultdict(int)
    for key, run_id, step in session.execute(_steps(), {"run_ids": [run.run_id for run in runs]}):
        last[key] += step
        attempts[run_id] = last[key]
    for run in runs:
        run.attempt = attempts.get(run.run_id, 1)
    return runs


def read_page(session: Session, query: Select[Attempt], limit: int, sort: Sort) -> tuple[list[Attempt], str | None]:
    """Returns: The first *limit* runs of a query that has this order, and the cursor of the next page or None."""
    runs = read_attempts(session, query.limit(limit + 1))
    return (runs, None) if len(runs) <= limit else (runs[:limit], write_cursor(sort, runs[limit - 1]))


@cache
def _steps() -> Select[str, uuid.UUID, int]:
    """Builds the query of `read_attempts`, once: that takes SQLAlchemy several times as long as the database's answer.

    Returns:
      Key of the task, run id, and by how much its rank exceeds that of the task's run before; by start.
    """
    before_moment = func.lag(TaskRun.started_at).over(partition_by=TaskRun.task_key, order_by=_BY_START)
    before_id = func.lag(TaskRun.run_id).over(partition_by=TaskRun.task_key, order_by=_BY_START)
    page = (
        select(
            TaskRun.task_key,
            *_BY_START,
            func.coalesce(before_moment, literal(_FIRST_MOMENT, TaskRun.started_at.type)).label("after_moment"),
            func.coalesce(before_id, literal(_FIRST_ID, TaskRun.run_id.type)).label("after_id"),
        )
        .where(TaskRun.run_id.in_(bindparam("run_ids", expanding=True)))
        .cte("page")
    )
    counted = aliased(TaskRun)
    position = tuple_(counted.started_at, counted.run_id)
    step = (
        select(func.count())
        .where(
            counted.task_key == page.c.task_key,
            position > tuple_(page.c.after_moment, page.c.after_id),
            position <= tuple_(page.c.started_at, page.c.run_id),
        )
        .scalar_subquery()
    )
    return select(page.c.task_key, page.c.run_id, step).order_by(page.c.started_at, page.c.run_id)


def find_attempt(session: Session, task_id: str, attempt: int | None = None) -> Attempt | None:
    """Returns: A run of a task by its number, or None.

    Without a number it is the latest run that has ended, or the latest that runs if none has ended.
    """
    if attempt is not None:
        return next(iter(_from(session, task_id, attempt, 1)), None)
    for is_ended in (True, False):
        found = session.execute(_newest(is_ended), {"task_key": task_key(task_id)}).first()
        if found is not None:
            run, rank = found
            run.attempt = rank
            return run
    return None


@cache
def _newest(is_ended: bool) -> Select[Attempt, int]:
    """Builds the query of a task's latest run, or latest ended run, and of its rank; once, as in `_steps`."""
    earlier = aliased(TaskRun)
    is_counted = tuple_(earlier.started_at, earlier.run_id) <= tuple_(*_BY_START)
    rank = select(func.count()).where(earlier.task_key == TaskRun.task_key, is_counted).scalar_subquery()
    of_task = select(Attempt, rank).where(TaskRun.task_key == bindparam("task_key"))
    if is_ended:
        of_task = of_task.where(TaskRun.status != RunStatus.RUNNING)
    return of_task.order_by(*(column.desc() for column in _BY_START)).limit(1)


def newest_attempt(session: Session, task_id: str) -> Attempt | None:
    """Returns: The latest run of a task, running or ended; None if the task has no run."""
    of_task = select(Attempt).where(TaskRun.task_key == task_key(task_id))
    newest = of_task.order_by(*(column.desc() for column in _BY_START)).limit(1)
    return next(iter(read_attempts(session, newest)), None)


def attempts_around(session: Session, task_id: str, attempt: int, distance: int) -> list[Attempt]:
    """Returns: The runs of a task whose number is at most *distance* away from *attempt*, first attempt first."""
    first = max(attempt - distance, 1)
    return _from(session, task_id, first, attempt + distance + 1 - first)


def _from(session: Session, task_id: str, first: int, limit: int) -> list[Attempt]:
    if not 1 <= first < _MAX_FIRST:
        return []
    # The inner query skips rows within the index, without reading any of them.
    page = (
        select(TaskRun.run_id)
        .where(TaskRun.task_key == task_key(task_id))
        .order_by(*_BY_START)
        .offset(first - 1)
        .limit(limit)
        .subquery()
    )
    query = select(Attempt).join(page, page.c.run_id == TaskRun.run_id).order_by(*_BY_START)
    runs = list(session.execute(query).scalars())
    for number, run in enumerate(runs, first):
        run.attempt = number
    return runs


def list_attempts(
    session: Session, task_id: str, limit: int, cursor: str | None = None
) -> tuple[list[Attempt], str | None]:
    """Returns: The runs of a task, first attempt first, and the cursor of the next page or None.

    Raises:
      ValueError: When the cursor is not one of ours.
    """
    page = select(Attempt).where(TaskRun.task_key == task_key(task_id)).order_by(*_BY_START)
    if cursor is not None:  # A position by start, as in a list that has the newest run first.
        page = page.where(tuple_(*_BY_START) > tuple_(*read_cursor(Sort.NEWEST, cursor)))
    return read_page(session, page, limit, Sort.NEWEST)


def count_attempts(session: Session, task_id: str) -> int:
    query = select(func.count()).select_from(TaskRun).where(TaskRun.task_key == task_key(task_id))
    return session.execute(query).scalar_one()
