"""Reads runs and artifacts: a list, a count, one run, and the runs related to it."""

from __future__ import annotations

import math
import sys
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, func, literal_column, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..statuses import RunStatus
from .attempts import Attempt, read_attempts, read_page
from .cursors import BY_DURATION, FIGURES, MAX_BYTES, read_cursor
from .cursors import Sort as Sort
from .models import Artifact, TaskRun
from .stuck_runs import is_stuck
from .values import clean_text, task_key

_NEWEST_FIRST = TaskRun.started_at.desc(), TaskRun.run_id.desc()

#: The most that a column can hold.
_MAX_DURATION_MS = sys.float_info.max

#: To sort this number of runs takes about as long as to find a page of them among the newest of 10,000,000.
_FEW = 10_000

#: The limits of a list that have indexes, and those whose index has an order of lists.
_LIMITED = ("duration", "peak", "time", "status", "queue")
_ORDERED_BY = {Sort.SLOWEST: ("duration",), Sort.MEMORY: ("peak",)}

#: The characters of a task id that PostgreSQL's index of the beginnings has.
_INDEXED_BEGINNING = 64

#: The most runs that are read of those that overlapped a run, and of those whose tasks a run sent.
_MAX_RELATED = 100


#: The most ids in one statement.
_BATCH_SIZE = 500


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


def list_runs(
    session: Session, wanted: RunFilter, limit: int, cursor: str | None = None, sort: Sort = Sort.NEWEST
) -> tuple[list[Attempt], str | None]:
    """Returns: Runs in an order, and the cursor of the next page or None. Runs without the order's figure are left out.

    Raises:
      ValueError: When the cursor is not one of ours for this order.
    """
    figure = FIGURES[sort]
    few = _few_by(session, wanted, sort)
    # With an expression as the order, only the matching runs are read and sorted, and not all of the first ones.
    order = figure if few is None else func.coalesce(figure, figure)
    conditions = _conditions(session, wanted, _indexed(session, few, sort))
    page = select(Attempt).where(*conditions).order_by(order.desc(), TaskRun.run_id.desc())
    if sort is not Sort.NEWEST:
        page = page.where(order.is_not(None))
    if cursor is None and sort in BY_DURATION:
        page = page.where(order < math.inf)  # PostgreSQL sorts NaN above all numbers.
    if cursor is not None:  # Beside that condition PostgreSQL would begin at the first run, and skip those before this.
        page = page.where(tuple_(order, TaskRun.run_id) < tuple_(*read_cursor(sort, cursor)))
    return read_page(session, page, limit, sort)


def count_runs(session: Session, wanted: RunFilter, limit: int) -> int:
    """Returns: How many runs there are; it counts up to *limit* only."""
    few = _few_by(session, wanted, Sort.NEWEST)
    found = select(TaskRun.run_id).where(*_conditions(session, wanted, _indexed(session, few, Sort.NEWEST)))
    newest = (found.order_by(*_NEWEST_FIRST) if few is None else found).limit(limit)
    return session.execute(select(func.count()).select_from(newest.subquery())).scalar_one()


def recent_figures(
    session: Session, actor_name: str, since: datetime | None, limit: int
) -> Sequence[Row[uuid.UUID, str, str, datetime, float | None, int | None]]:
    """Returns: The columns of an actor's newest runs that a chart shows. Whole runs would take twice as long."""
    columns = TaskRun.run_id, TaskRun.task_id, TaskRun.status, TaskRun.started_at, TaskRun.duration_ms
    wanted = _conditions(session, RunFilter(actor_name=actor_name, started_since=since))
    query = select(*columns, TaskRun.peak_rss_bytes).where(*wanted).order_by(*_NEWEST_FIRST)
    return session.execute(query.limit(limit)).all()


def find_run(session: Session, run_id: uuid.UUID) -> Attempt | None:
    return next(iter(read_attempts(session, select(Attempt).where(TaskRun.run_id == run_id))), None)


def find_runs(session: Session, run_ids: Sequence[uuid.UUID]) -> list[Attempt]:
    """Returns: The runs of these ids that are stored, in no order."""
    batches = (run_ids[at : at + _BATCH_SIZE] for at in range(0, len(run_ids), _BATCH_SIZE))
    queries = (select(Attempt).where(Attempt.run_id.in_(batch)) for batch in batches)
    return [run for query in queries for run in read_attempts(session, query)]


def overlapping_runs(session: Session, run: TaskRun) -> list[Attempt]:
    """Returns: The diagnosed runs of the same process that overlapped it in time, by start; at most 100."""
    keys = {task_key(task_id) for task_id in run.overlapped_task_ids[:_MAX_RELATED]}
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
    return read_attempts(session, others.order_by(TaskRun.started_at, TaskRun.run_id).limit(_MAX_RELATED))


def parent_of(session: Session, run: TaskRun) -> Attempt | None:
    """Returns: The run that sent the task of this one, or None where it has none, or the row of that run is gone."""
    return None if run.parent_run_id is None else find_run(session, run.parent_run_id)


def children_of(session: Session, run_id: uuid.UUID) -> list[Attempt]:
    """Returns: The diagnosed runs of the tasks that a run sent, by start; at most 100."""
    return read_attempts(session, _children(), {"parent": run_id})


@cache
def _children() -> Select[Attempt]:
    sent = select(Attempt).where(TaskRun.parent_run_id == bindparam("parent"))
    return sent.order_by(TaskRun.started_at, TaskRun.run_id).limit(_MAX_RELATED)


def traceback_of(session: Session, run: TaskRun) -> str | None:
    """Returns: The traceback of a run; rows are read without theirs, as one may have 64 KiB."""
    if run.exception_type is None:
        return None
    return session.execute(select(TaskRun.exception_traceback).where(TaskRun.run_id == run.run_id)).scalar()


def task_ids_like(session: Session, beginning: str, limit: int) -> list[str]:
    """Returns: The task ids that begin with a text, sorted; case-sensitive. In SQLite it reads the ids of all runs."""
    query = (
        select(TaskRun.task_id)
        .where(_begins_with(session, beginning))
        .distinct()
        .order_by(TaskRun.task_id)
        .limit(limit)
    )
    return list(session.execute(query).scalars())


def artifacts_of(session: Session, run_ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Artifact]]:
    """Returns: Run id -> artifacts by name, without those of attachments; an empty list where there are none."""
    found: dict[uuid.UUID, list[Artifact]] = {run_id: [] for run_id in run_ids}
    for artifact in session.execute(_artifacts(), {"run_ids": run_ids}).scalars():
        found[artifact.run_id].append(artifact)
    return found


@cache
def _artifacts() -> Select[Artifact]:
    own = Artifact.run_id.in_(bindparam("run_ids", expanding=True)), Artifact.attachment_id.is_(None)
    return select(Artifact).where(*own).order_by(Artifact.name)


def all_artifacts_of(session: Session, run_id: uuid.UUID) -> list[Artifact]:
    """Returns: The artifacts of a run, also those of its attachments."""
    query = select(Artifact).where(Artifact.run_id == run_id).order_by(Artifact.name, Artifact.artifact_id)
    return list(session.execute(query).scalars())


def find_artifact(session: Session, artifact_id: uuid.UUID) -> Artifact | None:
    return session.get(Artifact, artifact_id)


def _conditions(session: Session, wanted: RunFilter, indexed: Collection[str] = _LIMITED) -> list[ColumnElement[bool]]:
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
    """Returns: Which of the limits leaves few runs, of the actor if one is wanted, as its index has it; None if none.

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

    SQLite has no statistics: it would take any limit for one that leaves few runs. So it may use the one that does, or,
    if there is none, that of the order and those whose indexes have the order of the time.
    """
    if session.get_bind().dialect.name != "sqlite":
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
    return _begins_with(session, task_id)


def _begins_with(session: Session, beginning: str) -> ColumnElement[bool]:
    prefix = clean_text(beginning)
    begins = func.substr(TaskRun.task_id, 1, len(prefix)) == prefix  # LIKE has wildcards, and SQLite's ignores case.
    if session.get_bind().dialect.name != "postgresql":
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
