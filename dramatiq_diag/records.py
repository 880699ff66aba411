"""Questions to the rows: which runs, which attempt, which artifact."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Select, and_, func, or_, select, tuple_
from sqlalchemy.orm import Session, aliased

from .models import Artifact, RunStatus, TaskRun


@dataclass(frozen=True, kw_only=True)
class RankedRun:
    """A run, and which attempt at its task it is."""

    run: TaskRun
    attempt: int
    "The rank of the run among the task's runs by start, from 1."


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """Which runs to list; None leaves a field open."""

    actor_name: str | None = None
    queue_name: str | None = None
    status: str | None = None


def task_key(task_id: str) -> str:
    """Returns: A digest of the task id, 32 characters: any string is a task id, and an index entry has a limit.

    It is the digest of the text as it is kept, so that the href that is made from that text finds the task as well.
    """
    return hashlib.sha256(clean_text(task_id).encode()).hexdigest()[:32]


def clean_text(value: str, limit: int | None = None) -> str:
    """Returns: The text without what PostgreSQL or UTF-8 cannot hold, cut at *limit* characters."""
    text = value.encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd")
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "\u2026"


def list_runs(
    session: Session, wanted: RunFilter, limit: int, cursor: str | None = None
) -> tuple[list[RankedRun], str | None]:
    """Lists runs, newest first.

    Returns:
      At most *limit* runs, and the cursor of the next page or None.

    Raises:
      ValueError: When the cursor is not one of ours.
    """
    query = _ranked().order_by(TaskRun.started_at.desc(), TaskRun.run_id.desc()).limit(limit + 1)
    for column, value in (
        (TaskRun.actor_name, wanted.actor_name),
        (TaskRun.queue_name, wanted.queue_name),
        (TaskRun.status, wanted.status),
    ):
        if value is not None:
            query = query.where(column == clean_text(value))
    if cursor is not None:
        query = query.where(tuple_(TaskRun.started_at, TaskRun.run_id) < tuple_(*_read_cursor(cursor)))
    runs = _run(session, query)
    if len(runs) <= limit:
        return runs, None
    return runs[:limit], _write_cursor(runs[limit - 1].run)


def runs_of_task(session: Session, task_id: str) -> list[RankedRun]:
    """Returns: The runs of a task, first attempt first; empty for an unknown task."""
    query = select(TaskRun).where(TaskRun.task_key == task_key(task_id)).order_by(TaskRun.started_at, TaskRun.run_id)
    runs = session.execute(query).scalars().all()
    return [RankedRun(run=run, attempt=rank) for rank, run in enumerate(runs, 1)]


def choose_run(runs: Sequence[RankedRun], attempt: int | None = None) -> RankedRun | None:
    """Returns: The run of that attempt; without one the latest ended, or the running one if none has ended."""
    if attempt is not None:
        return next((run for run in runs if run.attempt == attempt), None)
    ended = [run for run in runs if run.run.status != RunStatus.RUNNING]
    latest = ended or runs
    return latest[-1] if latest else None


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


def _ranked() -> Select[TaskRun, int]:
    earlier = aliased(TaskRun)
    attempt = (
        select(func.count())
        .where(
            earlier.task_key == TaskRun.task_key,
            or_(
                earlier.started_at < TaskRun.started_at,
                and_(earlier.started_at == TaskRun.started_at, earlier.run_id <= TaskRun.run_id),
            ),
        )
        .correlate(TaskRun)
        .scalar_subquery()
    )
    return select(TaskRun, attempt)


def _run(session: Session, query: Select[TaskRun, int]) -> list[RankedRun]:
    return [RankedRun(run=run, attempt=attempt) for run, attempt in session.execute(query)]


def _write_cursor(run: TaskRun) -> str:
    return base64.urlsafe_b64encode(f"{run.started_at.isoformat()} {run.run_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, run_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
        started_at = datetime.fromisoformat(moment)
        if started_at.tzinfo is None:
            raise ValueError("the cursor has no time zone")
        return started_at.astimezone(UTC), uuid.UUID(run_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        raise ValueError("the cursor is not one that a list of runs gave") from error
