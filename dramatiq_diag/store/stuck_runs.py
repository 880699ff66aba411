"""Marks the rows of runs that last much longer than usual, and counts them."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.orm import Session

from ..statuses import RunStatus
from .models import TaskRun


def is_stuck() -> ColumnElement[bool]:
    """Returns: The condition of runs that are stuck. Only running ones are, which an index finds."""
    return and_(TaskRun.status == RunStatus.RUNNING, TaskRun.is_stuck.is_(True))


def mark_stuck(session: Session, run_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    """Marks running runs as stuck; publishing a run takes its mark away.

    Returns:
      The ids of those that are marked now: a run without a row yet is not among them.
    """
    running = TaskRun.run_id.in_(run_ids), TaskRun.status == RunStatus.RUNNING
    marked = update(TaskRun).where(*running).values(is_stuck=True).returning(TaskRun.run_id)
    return set(session.execute(marked).scalars())


def stuck_counts(session: Session) -> dict[str, int]:
    """Returns: Actor -> how many of its runs are stuck; actors without any are left out."""
    query = select(TaskRun.actor_name, func.count().label("count_")).where(is_stuck()).group_by(TaskRun.actor_name)
    return {row.actor_name: row.count_ for row in session.execute(query)}
