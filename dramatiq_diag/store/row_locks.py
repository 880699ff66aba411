"""Locks rows of runs before a statement that decides about them by what other tables have."""

from __future__ import annotations

import uuid
from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.orm import Session

from .database import dialect_of
from .models import TaskRun


def lock_runs(session: Session, run_ids: Collection[uuid.UUID]) -> None:
    """Locks the rows of runs, until the transaction ends.

    In PostgreSQL a statement sees the other tables as they were when it began. If it has to wait for a row that a
    publication has locked, it decides by artifacts and workers from before the wait. A statement that begins after this
    lock sees them all. SQLite has one writer at a time.
    """
    if dialect_of(session) == "postgresql":
        # In one order: two transactions that do this at once would deadlock otherwise.
        locked = select(TaskRun.run_id).where(TaskRun.run_id.in_(run_ids)).order_by(TaskRun.run_id).with_for_update()
        session.execute(locked).all()
