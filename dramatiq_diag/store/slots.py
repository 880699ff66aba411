"""Counts the runs of captures by slots: no capture has more runs than it asks for, over all worker processes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, case, delete, select, update
from sqlalchemy.orm import Session

from ..policy.options import DiagnosticsRequest
from .clock import Clock
from .models import Capture, TaskRun
from .records import RunRecord

#: The captures that may be open at once.
MAX_OPEN = 100


@dataclass(frozen=True, kw_only=True)
class OpenCapture:
    """A capture that waits for runs, for a worker process."""

    capture_id: uuid.UUID
    actor_name: str
    diagnostics: DiagnosticsRequest
    closes_at: float
    "When its time is up, by the `time.monotonic` of this process."
    free_slots: int


def is_open(clock: Clock) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of a capture that waits for runs."""
    return Capture.ended_at.is_(None), Capture.expires_at > clock.now, Capture.claimed < Capture.run_limit


def open_captures(session: Session) -> list[OpenCapture]:
    """Returns: The captures that wait for runs, the oldest first."""
    clock = Clock(session)
    query = select(Capture, clock.now).where(*is_open(clock)).order_by(Capture.created_at, Capture.capture_id)
    asked_at = time.monotonic()
    return [
        OpenCapture(
            capture_id=capture.capture_id,
            actor_name=capture.actor_name,
            diagnostics=capture.diagnostics,
            closes_at=asked_at + (capture.expires_at - now).total_seconds(),
            free_slots=capture.run_limit - capture.claimed,
        )
        for capture, now in session.execute(query.limit(MAX_OPEN))
    ]


def claim_slots(session: Session, runs: Collection[RunRecord]) -> set[uuid.UUID]:
    """Claims a slot for each run that needs one. The transaction has written the rows of the runs before.

    The rows are then locked. So a run is counted once, also where a server commits a transaction of a process that was
    killed while another process publishes the same run.

    Parameters:
      session: The transaction.
      runs: The runs; those that need no slot are passed over.

    Returns:
      The ids of the runs that got none. No later claim of theirs succeeds either. The rows of those that have nothing
      without their capture are deleted.
    """
    claiming = {run.run_id: run for run in runs if run.needs_slot}
    if not claiming:
        return set()
    with_slot = select(TaskRun.run_id).where(TaskRun.run_id.in_(claiming), TaskRun.capture_id.is_not(None))
    for run_id in session.execute(with_slot).scalars():
        del claiming[run_id]
    lost: set[uuid.UUID] = set()
    # Sorted: two transactions that claim slots of the same captures in different orders would deadlock.
    for run in sorted(claiming.values(), key=lambda run: str(run.capture_id)):
        if run.capture_id is not None and _claim(session, run.capture_id):
            session.execute(update(TaskRun).where(TaskRun.run_id == run.run_id).values(capture_id=run.capture_id))
        else:
            lost.add(run.run_id)
    without_trace = [run_id for run_id in lost if not claiming[run_id].stays_without_slot]
    if without_trace:
        session.execute(delete(TaskRun).where(TaskRun.run_id.in_(without_trace)))
    return lost


def _claim(session: Session, capture_id: uuid.UUID) -> bool:
    """Claims a slot, and ends the capture with its last one. Returns: Whether one was free.

    A capture whose time is up still has slots for the runs that began before. No process begins further runs for it, as
    each knows by the database's clock when the time is up.
    """
    claimed = session.execute(
        update(Capture)
        .where(Capture.capture_id == capture_id, Capture.ended_at.is_(None), Capture.claimed < Capture.run_limit)
        .values(
            claimed=Capture.claimed + 1,
            ended_at=case((Capture.claimed + 1 >= Capture.run_limit, Clock(session).now)),
        )
        .returning(Capture.claimed)
    )
    return claimed.first() is not None
