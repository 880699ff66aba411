"""Reads runs and artifacts: a list, a count, one run, and the runs that have to do with it."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from .attempts import Attempt, read_attempts
from .cursors import Sort as Sort
from .cursors import read_cursor, write_cursor
from .models import Artifact, TaskRun
from .values import clean_text, task_key

#: The column that each list is sorted by, largest first.
_FIGURES: dict[Sort, InstrumentedAttribute[Any]] = {
    Sort.NEWEST: TaskRun.started_at,
    Sort.SLOWEST: TaskRun.duration_ms,
    Sort.MEMORY: TaskRun.peak_rss_bytes,
}

_NEWEST_FIRST = TaskRun.started_at.desc(), TaskRun.run_id.desc()

#: The most that a column can hold.
_MAX_DURATION_MS = sys.float_info.max
_MAX_BYTES = 2**63 - 1
_FIRST_MOMENT = datetime(1, 1, 1, tzinfo=UTC)
_LAST_MOMENT = datetime(9999, 12, 31, tzinfo=UTC)

#: The most overlapping runs, and the most runs of tasks that a run sent, that are read.
_MAX_OVERLAPPING = 100
_MAX_CHILDREN = 100


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs to list; None leaves a field open."""

    actor_name: str | None = None
    queue_name: str | None = None
    status: str | None = None
    task_id: str | None = None
    "The id, or the beginning of ids where no run has that id; case counts."
    started_since: datetime | None = None
    "Aware, and included."
    started_before: datetime | None = None
    "Aware, and not included."
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    min_peak_rss_bytes: int | None = None
    capture_id: uuid.UUID | None = None
    "Only runs that this capture asked for."


def list_runs(
    session: Session, wanted: RunFilter, limit: int, cursor: str | None = None, sort: Sort = Sort.NEWEST
) -> tuple[list[Attempt], str | None]:
    """Returns: Runs in an order, and the cursor of the next page or None. Runs without the order's figure are left out.

    Raises:
      ValueError: When the cursor is not one of ours for this order.
    """
    figure = _FIGURES[sort]
    order = figure.desc(), TaskRun.run_id.desc()
    page = select(Attempt).where(*_conditions(session, wanted)).order_by(*order).limit(limit + 1)
    if sort is not Sort.NEWEST:
        page = page.where(figure.is_not(None))
    if sort is Sort.SLOWEST:
        page = page.where(figure < math.inf)  # PostgreSQL holds NaN for the largest of all.
    if cursor is not None:
        page = page.where(tuple_(figure, TaskRun.run_id) < tuple_(*read_cursor(sort, cursor)))
    runs = read_attempts(session, page)
    if len(runs) <= limit:
        return runs, None
    return runs[:limit], write_cursor(sort, runs[limit - 1])


def count_runs(session: Session, wanted: RunFilter, limit: int) -> int:
    """Returns: How many runs there are; it counts up to *limit* only."""
    newest = select(TaskRun.run_id).where(*_conditions(session, wanted)).order_by(*_NEWEST_FIRST).limit(limit)
    return session.execute(select(func.count()).select_from(newest.subquery())).scalar_one()


def find_run(session: Session, run_id: uuid.UUID) -> Attempt | None:
    """Returns: The run, or None."""
    return next(iter(read_attempts(session, select(Attempt).where(TaskRun.run_id == run_id))), None)


def overlapping_runs(session: Session, run: TaskRun) -> list[Attempt]:
    """Returns: The diagnosed runs of the same process that overlapped it in time, by start; at most 100."""
    keys = {task_key(task_id) for task_id in run.overlapped_task_ids[:_MAX_OVERLAPPING]}
    if not keys:
        return []
    others = select(Attempt).where(
        TaskRun.task_key.in_(keys),
        TaskRun.hostname == run.hostname,
        TaskRun.pid == run.pid,
        TaskRun.run_id != run.run_id,
        or_(TaskRun.finished_at.is_(None), TaskRun.finished_at > run.started_at),
    )
    if run.finished_at is not None:
        others = others.where(TaskRun.started_at < run.finished_at)
    return read_attempts(session, others.order_by(TaskRun.started_at, TaskRun.run_id).limit(_MAX_OVERLAPPING))


def parent_of(session: Session, run: TaskRun) -> Attempt | None:
    """Returns: The run that sent the task of this one, or None where it has none, or the row of that run is gone."""
    return None if run.parent_run_id is None else find_run(session, run.parent_run_id)


def children_of(session: Session, run_id: uuid.UUID) -> list[Attempt]:
    """Returns: The diagnosed runs of the tasks that a run sent, by start; at most 100."""
    sent = select(Attempt).where(TaskRun.parent_run_id == run_id)
    return read_attempts(session, sent.order_by(TaskRun.started_at, TaskRun.run_id).limit(_MAX_CHILDREN))


def traceback_of(session: Session, run_id: uuid.UUID) -> str | None:
    """Returns: The traceback of a run; rows are read without theirs, as one may have 64 KiB."""
    return session.execute(select(TaskRun.exception_traceback).where(TaskRun.run_id == run_id)).scalar()


def task_ids_like(session: Session, beginning: str, limit: int) -> list[str]:
    """Returns: The ids of tasks that begin with a text, in their order; case counts. It reads every run's id."""
    query = select(TaskRun.task_id).where(_begins_with(beginning)).distinct().order_by(TaskRun.task_id).limit(limit)
    return list(session.execute(query).scalars())


def artifacts_of(session: Session, run_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Artifact]]:
    """Returns: Run id -> artifacts by name; an empty list where there are none."""
    found: dict[uuid.UUID, list[Artifact]] = {run_id: [] for run_id in run_ids}
    query = select(Artifact).where(Artifact.run_id.in_(run_ids)).order_by(Artifact.name)
    for artifact in session.execute(query).scalars():
        found[artifact.run_id].append(artifact)
    return found


def find_artifact(session: Session, artifact_id: uuid.UUID) -> Artifact | None:
    """Returns: The artifact, or None."""
    return session.get(Artifact, artifact_id)


def _conditions(session: Session, wanted: RunFilter) -> list[ColumnElement[bool]]:
    fields: tuple[tuple[Any, Callable[[Any], ColumnElement[bool]]], ...] = (
        (wanted.actor_name, lambda name: TaskRun.actor_name == name),
        (wanted.queue_name, lambda name: TaskRun.queue_name == name),
        (wanted.status, lambda status: TaskRun.status == status),
        (wanted.task_id, partial(_has_task_id, session)),
        (wanted.started_since, lambda since: TaskRun.started_at >= _in_utc(since)),
        (wanted.started_before, lambda before: TaskRun.started_at < _in_utc(before)),
        (wanted.min_duration_ms, lambda least: TaskRun.duration_ms >= float(min(least, _MAX_DURATION_MS))),
        (wanted.max_duration_ms, lambda most: TaskRun.duration_ms <= float(min(most, _MAX_DURATION_MS))),
        (wanted.min_peak_rss_bytes, lambda least: TaskRun.peak_rss_bytes >= min(least, _MAX_BYTES)),
        (wanted.capture_id, lambda capture_id: TaskRun.capture_id == capture_id),
    )
    return [condition(value) for value, condition in fields if value is not None]


def _has_task_id(session: Session, task_id: str) -> ColumnElement[bool]:
    exactly = TaskRun.task_key == task_key(task_id)
    # Ordered as the index of a task's runs is: without it PostgreSQL may read the whole table for a task of many runs.
    some = select(TaskRun.run_id).where(exactly).order_by(TaskRun.started_at, TaskRun.run_id).limit(1)
    if session.execute(some).first() is not None:
        return exactly
    return _begins_with(task_id)


def _begins_with(beginning: str) -> ColumnElement[bool]:
    prefix = clean_text(beginning)
    return func.substr(TaskRun.task_id, 1, len(prefix)) == prefix  # LIKE has wildcards, and SQLite's ignores case.


def _in_utc(moment: datetime) -> datetime:
    """Returns: The moment; the nearest there is in UTC where it has none."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return _LAST_MOMENT if moment.year > 1 else _FIRST_MOMENT
