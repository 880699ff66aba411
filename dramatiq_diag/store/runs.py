"""Reads runs and artifacts: a list, a count, one run, and the runs related to it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from datetime import datetime
from functools import cache

from sqlalchemy import Row, Select, bindparam, func, or_, select, tuple_
from sqlalchemy.orm import Session

from .attempts import Attempt, read_attempts, read_page
from .cursors import BY_DURATION, FIGURES, read_cursor
from .cursors import Sort as Sort
from .models import Artifact, TaskRun
from .run_filter import RunFilter as RunFilter
from .run_filter import all_conditions, begins_with, conditions_of
from .values import task_key

_NEWEST_FIRST = TaskRun.started_at.desc(), TaskRun.run_id.desc()

#: The most runs that are read of those that overlapped a run, and of those whose tasks a run sent.
_MAX_RELATED = 100

#: The most ids in one statement.
_BATCH_SIZE = 500


def list_runs(
    session: Session, wanted: RunFilter, limit: int, cursor: str | None = None, sort: Sort = Sort.NEWEST
) -> tuple[list[Attempt], str | None]:
    """Returns: Runs in an order, and the cursor of the next page or None. Runs without the order's figure are left out.

    Raises:
      ValueError: When the cursor is not one of ours for this order.
    """
    figure = FIGURES[sort]
    conditions, are_few = conditions_of(session, wanted, sort)
    # With an expression as the order, only the matching runs are read and sorted, and not all of the first ones.
    order = func.coalesce(figure, figure) if are_few else figure
    page = select(Attempt).where(*conditions).order_by(order.desc(), TaskRun.run_id.desc())
    if sort is not Sort.NEWEST:
        page = page.where(order.is_not(None))
    if cursor is None and sort in BY_DURATION:
        page = page.where(order < math.inf)  # PostgreSQL sorts NaN above all numbers.
    if cursor is not None:  # With both conditions PostgreSQL would read from the first run on, up to the cursor.
        page = page.where(tuple_(order, TaskRun.run_id) < tuple_(*read_cursor(sort, cursor)))
    return read_page(session, page, limit, sort)


def count_runs(session: Session, wanted: RunFilter, limit: int) -> int:
    """Returns: How many runs there are; it counts up to *limit* only."""
    conditions, are_few = conditions_of(session, wanted, Sort.NEWEST)
    found = select(TaskRun.run_id).where(*conditions)
    newest = (found if are_few else found.order_by(*_NEWEST_FIRST)).limit(limit)
    return session.execute(select(func.count()).select_from(newest.subquery())).scalar_one()


def recent_figures(
    session: Session, actor_name: str, since: datetime | None, limit: int
) -> Sequence[Row[uuid.UUID, str, str, datetime, float | None, int | None]]:
    """Returns: The columns of an actor's newest runs that a chart shows. Whole runs would take twice as long."""
    columns = TaskRun.run_id, TaskRun.task_id, TaskRun.status, TaskRun.started_at, TaskRun.duration_ms
    wanted = all_conditions(session, RunFilter(actor_name=actor_name, started_since=since))
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
        select(TaskRun.task_id).where(begins_with(session, beginning)).distinct().order_by(TaskRun.task_id).limit(limit)
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
