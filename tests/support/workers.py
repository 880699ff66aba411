"""Worker processes, as their reports stand in a store."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.models import Worker
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.workers import ExecutedTask, find_execution, note_worker
from support.records import worker_report


def report(store: Store, *tasks: ExecutedTask, seen_s_ago: float = 0.0, **changes: Any) -> uuid.UUID:
    """Writes the report of a process. Returns: The id of the process."""
    made = worker_report(tasks=list(tasks), **changes)
    with store.session() as session:
        note_worker(session, made)
        if seen_s_ago:
            move_report(session, made.worker_id, seen_s_ago)
    return made.worker_id


def is_executed(store: Store, task_id: str) -> bool:
    """Returns: Whether a live process has reported that it executes the task."""
    with store.session() as session:
        return find_execution(session, task_id) is not None


def move_report(session: Session, worker_id: uuid.UUID, seen_s_ago: float) -> None:
    """Moves the last report of a process to a time in the past, by the clock of the database."""
    seen_at = Clock(session).after(-seen_s_ago)
    session.execute(update(Worker).where(Worker.worker_id == worker_id).values(seen_at=seen_at))
