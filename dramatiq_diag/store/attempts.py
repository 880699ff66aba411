"""Numbers the runs of a task, and reads them by number: one attempt, a page of attempts, how many there are."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import UTC, datetime
from functools import cache

from sqlalchemy import Select, bindparam, func, literal, select, tuple_
from sqlalchemy.orm import Session, aliased

from ..statuses import RunStatus
from .cursors import Sort, read_cursor, write_cursor
from .models import TaskRun
from .values import task_key

#: Sorts before every run.
_FIRST_MOMENT = datetime(1, 1, 1, tzinfo=UTC)
_FIRST_ID = uuid.UUID(int=0)

_BY_START = (TaskRun.started_at, TaskRun.run_id)


class Attempt(TaskRun):
    """A run that knows which attempt at its task it is."""

    __allow_unmapped__ = True

    attempt: int
    "The rank of the run among the task's runs by start, from 1; not a column. The functions below set it."


def read_attempts(session: Session, query: Select[Attempt]) -> list[Attempt]:
    """Reads runs, and numbers them.

    The ranks of a task's runs are counted in one pass over its part of the index: from its first run to the earliest of
    those that were read, from that to the next, and so on. To count from the first run for each of them took 22 s for
    1,000 of 100,000 attempts.

    Returns:
      The runs in the order of the query; one that a cleanup has removed in between has the rank 1.
    """
    runs = list(session.execute(query).scalars())
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
    of_task = select(Attempt).where(TaskRun.task_key == task_key(task_id))
    newest = of_task.order_by(*(column.desc() for column in _BY_START)).limit(1)
    found = read_attempts(session, newest.where(TaskRun.status != RunStatus.RUNNING)) or read_attempts(session, newest)
    return next(iter(found), None)


def attempts_around(session: Session, task_id: str, attempt: int, distance: int) -> list[Attempt]:
    """Returns: The runs of a task whose number is at most *distance* away from *attempt*, first attempt first."""
    first = max(attempt - distance, 1)
    return _from(session, task_id, first, attempt + distance + 1 - first)


def _from(session: Session, task_id: str, first: int, limit: int) -> list[Attempt]:
    if first < 1:
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
    page = select(Attempt).where(TaskRun.task_key == task_key(task_id)).order_by(*_BY_START).limit(limit + 1)
    if cursor is not None:  # A position by start, as in a list that has the newest run first.
        page = page.where(tuple_(*_BY_START) > tuple_(*read_cursor(Sort.NEWEST, cursor)))
    runs = read_attempts(session, page)
    if len(runs) <= limit:
        return runs, None
    return runs[:limit], write_cursor(Sort.NEWEST, runs[limit - 1])


def count_attempts(session: Session, task_id: str) -> int:
    """Returns: How many runs a task has."""
    query = select(func.count()).select_from(TaskRun).where(TaskRun.task_key == task_key(task_id))
    return session.execute(query).scalar_one()
