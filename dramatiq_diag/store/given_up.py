"""Ends the rows of old runs that nobody executes any more: it is not known how they ended."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from ..statuses import RunStatus
from .counting import count_given_up
from .models import TaskRun, Worker, checked_per_row
from .row_locks import lock_runs
from .workers import KEPT_S, fully_reported

#: What the run of a silent worker says of its end. If what the worker left is published later, that takes its place.
REASON = (
    "Nothing was heard of its worker process for a day, and nothing of this run was published: how it ended is not "
    "known. The spool with what it left may be gone, as with a pod that was removed. If it is still on the disk of "
    "that host, `dramatiq-diag recover` publishes it there."
)

#: The same of a run whose worker lives.
REASON_NOT_EXECUTED = (
    "Its worker process lives and does not execute it any more, and nothing was published that says how it ended: the "
    "row may have been removed after its end, and have come back with an attachment."
)

#: The most running runs that are looked at.
_MOST_LOOKED_AT = 10_000


def is_given_up(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of runs that began more than a day ago, and whose worker was not heard of since then.

    A worker of a version that did not name itself in its runs is not known; its runs go on until the retention.
    """
    before = now - timedelta(seconds=KEPT_S)
    heard_of = select(Worker.worker_id).where(Worker.worker_id == TaskRun.worker_id, Worker.seen_at > before)
    return *_goes_on_since(before), ~heard_of.exists()


def _goes_on_since(before: datetime) -> tuple[ColumnElement[bool], ...]:
    return TaskRun.status == RunStatus.RUNNING, TaskRun.started_at < before, TaskRun.worker_id.is_not(None)


def not_executed(session: Session, now: datetime) -> list[uuid.UUID]:
    """Finds runs that began more than a day ago, and that their living worker does not report among its tasks.

    A condition on the reports, which are JSON, would differ between the databases.

    Returns:
      Their ids, those of the oldest first.
    """
    before = now - timedelta(seconds=KEPT_S)
    long_ones = select(TaskRun.run_id, TaskRun.task_key, TaskRun.worker_id).where(*_goes_on_since(before))
    order = TaskRun.started_at, TaskRun.run_id
    runs = session.execute(long_ones.order_by(*order).limit(_MOST_LOOKED_AT)).all()
    reported = fully_reported(session, {run.worker_id for run in runs}) if runs else {}
    executed = {key: {task[key] for tasks in reported.values() for task in tasks} for key in ("run_id", "task_key")}
    return [
        run.run_id
        for run in runs
        if run.worker_id in reported
        and str(run.run_id) not in executed["run_id"]
        and run.task_key not in executed["task_key"]  # It may execute the task, and not know yet that this is its run.
    ]


def give_up_silent(session: Session, run_ids: Sequence[uuid.UUID], now: datetime) -> None:
    """Ends the rows of runs that still meet the conditions of `is_given_up`."""
    _give_up(session, run_ids, is_given_up(now), now, REASON)


def give_up_not_executed(session: Session, run_ids: Sequence[uuid.UUID], now: datetime) -> None:
    """Ends the rows of runs that `not_executed` has found, and that have not ended since."""
    _give_up(session, run_ids, (TaskRun.status == RunStatus.RUNNING,), now, REASON_NOT_EXECUTED)


def _give_up(
    session: Session,
    run_ids: Sequence[uuid.UUID],
    conditions: tuple[ColumnElement[bool], ...],
    now: datetime,
    reason: str,
) -> None:
    lock_runs(session, run_ids)  # Their workers may be heard of while it waits for a row.
    end = (
        update(TaskRun)
        .where(TaskRun.run_id.in_(run_ids), checked_per_row(*conditions))
        .values(status=RunStatus.INTERRUPTED, is_stuck=None, given_up_at=now, death_reason=reason)
        .returning(TaskRun.actor_name, TaskRun.queue_name)
    )
    count_given_up(session, [(run.actor_name, run.queue_name) for run in session.execute(end)])
