"""Makes the conditions of a list of runs, and decides which of their indexes the database may use."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, and_, func, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..statuses import RunStatus
from .cursors import MAX_BYTES, Sort
from .database import dialect_of
from .models import TaskRun
from .stuck_runs import is_stuck
from .values import clean_text, task_key

#: The most that a column can hold.
_MAX_DURATION_MS = sys.float_info.max

#: To sort this number of runs takes about as long as to find a page of them among the newest of 10,000,000.
_FEW = 10_000

#: The limits of a list that have an index; and order of a list -> the limits whose index is in that order.
_LIMITED = ("duration", "peak", "time", "status", "queue")
_ORDERED_BY = {Sort.SLOWEST: ("duration",), Sort.MEMORY: ("peak",)}

#: The characters of a task id that PostgreSQL's index of the beginnings has.
_INDEXED_BEGINNING = 64


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """The conditions of a list of runs; a field that is None sets none."""

    actor_name: str | None = None
    queue_name: str | None = None
    status: str | None = None
    task_id: str | None = None
    "A task id; if no run has it, the beginning of task ids. Case-sensitive."
    started_since: datetime | None = None
    "Aware, and included."
    started_before: datetime | None = None
    "Aware, and not included."
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    min_peak_rss_bytes: int | None = None
    capture_id: uuid.UUID | None = None
    "Only runs that this capture asked for."
    trace_id: str | None = None
    "Only runs of this trace."
    is_stuck: bool | None = None
    "Only runs that are stuck; False leaves them out."


def conditions_of(session: Session, wanted: RunFilter, sort: Sort) -> tuple[list[ColumnElement[bool]], bool]:
    """Returns: The conditions of a list in an order, and whether they leave few runs, which are to be sorted then."""
    few = _few_by(session, wanted, sort)
    return all_conditions(session, wanted, _indexed(session, few, sort)), few is not None


def all_conditions(
    session: Session, wanted: RunFilter, indexed: Collection[str] = _LIMITED
) -> list[ColumnElement[bool]]:
    """Returns: The conditions of a list; see `_limits` for *indexed*."""
    fields: tuple[tuple[Any, Callable[[Any], ColumnElement[bool]]], ...] = (
        (wanted.actor_name, lambda name: TaskRun.actor_name == name),
        (wanted.task_id, partial(_has_task_id, session)),
        (wanted.capture_id, lambda capture_id: TaskRun.capture_id == capture_id),
        (wanted.trace_id, lambda trace_id: TaskRun.trace_id == trace_id),
        (wanted.is_stuck, lambda stuck: is_stuck() if stuck else TaskRun.is_stuck.is_not(True)),
    )
    found = [condition(value) for value, condition in fields if value is not None]
    return found + [condition for limit in _limits(wanted, indexed).values() for condition in limit]


def _limits(wanted: RunFilter, indexed: Collection[str]) -> dict[str, list[ColumnElement[bool]]]:
    """Returns: Name -> the conditions of the duration, the peak, the time, the status and the queue.

    Those that are not *indexed* are conditions of an expression, for which the databases have no index.
    """

    def column(name: str, plain: InstrumentedAttribute[Any]) -> Any:
        return plain if name in indexed else func.coalesce(plain, plain)

    duration, peak = column("duration", TaskRun.duration_ms), column("peak", TaskRun.peak_rss_bytes)
    started_at, status = column("time", TaskRun.started_at), column("status", TaskRun.status)
    queue_name = column("queue", TaskRun.queue_name)
    fields: tuple[tuple[str, Any, Callable[[Any], ColumnElement[bool]]], ...] = (
        ("duration", wanted.min_duration_ms, lambda least: duration >= float(min(least, _MAX_DURATION_MS))),
        ("duration", wanted.max_duration_ms, lambda most: duration <= float(min(most, _MAX_DURATION_MS))),
        ("peak", wanted.min_peak_rss_bytes, lambda least: peak >= min(least, MAX_BYTES)),
        ("time", wanted.started_since, lambda since: started_at >= _in_utc(since)),
        ("time", wanted.started_before, lambda before: started_at < _in_utc(before)),
        ("status", wanted.status, partial(_has_status, status)),
        ("queue", wanted.queue_name, lambda name: queue_name == name),
    )
    found: dict[str, list[ColumnElement[bool]]] = {name: [] for name in _LIMITED}
    for name, value, condition in fields:
        if value is not None:
            found[name].append(condition(value))
    return found


def _few_by(session: Session, wanted: RunFilter, sort: Sort) -> str | None:
    """Returns: A limit that alone leaves few runs, or few of the wanted actor; None if none does.

    The databases guess: PostgreSQL expected 56,000 of 10,000,000 runs where 179 had such a peak, and read 2,500,000.
    """
    of_actor = [] if wanted.actor_name is None else [TaskRun.actor_name == wanted.actor_name]
    limits = _limits(wanted, _LIMITED)
    names = ["duration", "peak"]
    if sort is not Sort.NEWEST:  # In that order the others have indexes.
        names += ["time"] if wanted.status == RunStatus.SUCCEEDED else ["time", "status"]
    for name in names:
        if not limits[name]:
            continue
        some = select(TaskRun.run_id).where(*of_actor, *limits[name]).limit(_FEW + 1).subquery()
        if session.execute(select(func.count()).select_from(some)).scalar_one() <= _FEW:
            return name
    return None


def _indexed(session: Session, few: str | None, sort: Sort) -> Collection[str]:
    """Returns: The limits whose indexes the database may use.

    SQLite has no statistics, and expects any limit to leave few runs. So it may use only the limit that does. If none
    does, it may use the index of the list's order, and those that are in the order of time.
    """
    if dialect_of(session) != "sqlite":
        return _LIMITED
    if few is not None:
        return (few,)
    return ("time", "status", "queue", *_ORDERED_BY.get(sort, ()))


def _has_status(column: Any, status: str) -> ColumnElement[bool]:
    """Returns: The condition; of most statuses in the words of the index of an actor's runs that did not succeed."""
    has_status: ColumnElement[bool] = column == status
    if status == RunStatus.SUCCEEDED:
        return has_status
    return and_(has_status, column != literal_column(f"'{RunStatus.SUCCEEDED}'"))


def _has_task_id(session: Session, task_id: str) -> ColumnElement[bool]:
    exactly = TaskRun.task_key == task_key(task_id)
    # Ordered as the index of a task's runs is: without it PostgreSQL may read the whole table for a task of many runs.
    some = select(TaskRun.run_id).where(exactly).order_by(TaskRun.started_at, TaskRun.run_id).limit(1)
    if session.execute(some).first() is not None:
        return exactly
    return begins_with(session, task_id)


def begins_with(session: Session, beginning: str) -> ColumnElement[bool]:
    """Returns: The condition that a task id begins with a text; case-sensitive."""
    prefix = clean_text(beginning)
    begins = func.substr(TaskRun.task_id, 1, len(prefix)) == prefix  # LIKE has wildcards, and SQLite's ignores case.
    if dialect_of(session) != "postgresql":
        return begins
    indexed = func.substr(TaskRun.task_id, literal_column("1"), literal_column(str(_INDEXED_BEGINNING)))
    begins_indexed = indexed.startswith(prefix[:_INDEXED_BEGINNING], autoescape=True)
    # Where the index has all of it, the other condition would have PostgreSQL expect too few runs.
    return begins_indexed if len(prefix) <= _INDEXED_BEGINNING else and_(begins_indexed, begins)


def _in_utc(moment: datetime) -> datetime:
    """Returns: The moment in UTC; the first or the last possible one if it is beyond that."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if moment.year > 1 else datetime.min.replace(tzinfo=UTC)
