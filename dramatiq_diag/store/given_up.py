"""Ends the rows of runs whose worker process was not heard of for a day: nobody knows how they ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from ..statuses import RunStatus
from .counters import count_given_up
from .models import TaskRun, Worker, checked_per_row
from .workers import KEPT_S

#: What the run says of its end. If what the worker left is published later, that takes its place.
REASON = (
    "Nothing was heard of its worker process for a day, and nothing of this run was published: how it ended is not "
    "known. The spool with what it left may be gone, as with a pod that was removed. If it is still on the disk of "
    "that host, `dramatiq-diag recover` publishes it there."
)


def is_given_up(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of runs that began more than a day ago, and whose worker was not heard of since then.

    A worker of a version that did not name itself in its runs is not known; its runs go on until the retention.
    """
    before = now - timedelta(seconds=KEPT_S)
    heard_of = select(Worker.worker_id).where(Worker.worker_id == TaskRun.worker_id, Worker.seen_at > before)
    return (
        TaskRun.status == RunStatus.RUNNING,
        TaskRun.started_at < before,
        TaskRun.worker_id.is_not(None),
        ~heard_of.exists(),
    )


def give_up(session: Session, run_ids: Sequence[uuid.UUID], now: datetime) -> int:
    """Ends the rows of runs that still meet the conditions. Returns: Their number."""
    end = (
        update(TaskRun)
        .where(TaskRun.run_id.in_(run_ids), checked_per_row(*is_given_up(now)))
        .values(status=RunStatus.INTERRUPTED, is_stuck=None, given_up_at=now, death_reason=REASON)
        .returning(TaskRun.actor_name, TaskRun.queue_name)
        .execution_options(synchronize_session=False)
    )
    ended = session.execute(end).all()
    count_given_up(session, ((actor_name, queue_name) for actor_name, queue_name in ended))
    return len(ended)
