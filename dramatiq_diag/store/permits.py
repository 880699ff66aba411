"""The permits of captures: who may capture which run, exact over all worker processes of a database."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from ..policy.options import DiagnosticsRequest
from .clock import Clock
from .models import Capture, CapturePermit

#: Seconds after which a permit that its process neither used nor renewed is free again.
LEASE_S = 60.0

#: Captures that a process looks at; as many as may be open at once.
MAX_OPEN = 100


@dataclass(frozen=True, kw_only=True)
class OpenCapture:
    """A capture that waits for runs, as a worker process sees it."""

    capture_id: uuid.UUID
    actor_name: str
    diagnostics: DiagnosticsRequest
    closes_at: float
    "When its time is up, by the `time.monotonic` of this process."
    has_free_permit: bool
    wanted_s: float | None
    "Seconds since a process last had a run for it and no permit; None where that never was."


def is_open(clock: Clock) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of a capture that still waits for runs."""
    unused = exists().where(CapturePermit.capture_id == Capture.capture_id, CapturePermit.run_id.is_(None))
    return Capture.ended_at.is_(None), Capture.expires_at > clock.now, unused


def open_captures(session: Session) -> list[OpenCapture]:
    """Returns: The captures that wait for runs, the oldest first."""
    clock = Clock(session)
    free = exists().where(CapturePermit.capture_id == Capture.capture_id, *_is_free(CapturePermit, clock))
    query = select(Capture, free, clock.now).where(*is_open(clock)).order_by(Capture.created_at, Capture.capture_id)
    asked_at = time.monotonic()
    return [
        OpenCapture(
            capture_id=capture.capture_id,
            actor_name=capture.actor_name,
            diagnostics=capture.diagnostics,
            closes_at=asked_at + (capture.expires_at - now).total_seconds(),
            has_free_permit=has_free_permit,
            wanted_s=None if capture.wanted_at is None else (now - capture.wanted_at).total_seconds(),
        )
        for capture, has_free_permit, now in session.execute(query.limit(MAX_OPEN))
    ]


def claim(session: Session, capture_id: uuid.UUID, holder: uuid.UUID) -> int | None:
    """Takes a free permit for a process, for the time of the lease. Returns: Its number, or None where none is free."""
    clock = Clock(session)
    permit = aliased(CapturePermit)  # Not the table that is updated, which a subquery would refer to.
    free = (
        select(permit.number)
        .where(
            permit.capture_id == capture_id,
            *_is_free(permit, clock),
            exists().where(Capture.capture_id == capture_id, *is_open(clock)[:2]),
        )
        .order_by(permit.number)
        .limit(1)
        .with_for_update(skip_locked=True)  # Of those who ask at once, each gets another; SQLite has one writer.
    )
    claimed = (
        update(CapturePermit)
        .where(CapturePermit.capture_id == capture_id, CapturePermit.number == free.scalar_subquery())
        .values(holder=holder, held_until=clock.after(LEASE_S))
        .returning(CapturePermit.number)
        .execution_options(synchronize_session=False)
    )
    return session.execute(claimed).scalar_one_or_none()


def renew(session: Session, capture_id: uuid.UUID, number: int, holder: uuid.UUID) -> bool:
    """Starts the lease of an unused permit anew. Returns: Whether it was still the process's."""
    return _change(session, capture_id, number, holder, {"held_until": Clock(session).after(LEASE_S)})


def give_back(session: Session, capture_id: uuid.UUID, number: int, holder: uuid.UUID) -> bool:
    """Frees an unused permit. Returns: Whether it was still the process's."""
    return _change(session, capture_id, number, holder, {"holder": None, "held_until": None})


def use(session: Session, capture_id: uuid.UUID, number: int, holder: uuid.UUID, run_id: uuid.UUID) -> bool:
    """Notes the run that a permit went to, and ends the capture with its last one. Repeating does no harm.

    Returns:
      Whether the permit was still the process's, or is noted for that run already.
    """
    # Of those who use the last permits at once, one waits here for the other, and then sees what that one used.
    session.execute(select(Capture.capture_id).where(Capture.capture_id == capture_id).with_for_update())
    used = _change(session, capture_id, number, holder, {"run_id": run_id}, used_for=run_id)
    end_if_complete(session, capture_id)
    return used


def end_if_complete(session: Session, capture_id: uuid.UUID) -> None:
    """Ends a capture of which every permit is used."""
    unused = exists().where(CapturePermit.capture_id == capture_id, CapturePermit.run_id.is_(None))
    session.execute(
        update(Capture)
        .where(Capture.capture_id == capture_id, Capture.ended_at.is_(None), ~unused)
        .values(ended_at=Clock(session).now)
        .execution_options(synchronize_session=False)
    )


def want(session: Session, capture_id: uuid.UUID) -> None:
    """Says that a process has runs for a capture, and no permit; those that have no run for it then let theirs go."""
    session.execute(
        update(Capture)
        .where(Capture.capture_id == capture_id)
        .values(wanted_at=Clock(session).now)
        .execution_options(synchronize_session=False)
    )


def _is_free(permit: type[CapturePermit], clock: Clock) -> tuple[ColumnElement[bool], ...]:
    return permit.run_id.is_(None), permit.held_until.is_(None) | (permit.held_until <= clock.now)


def _change(
    session: Session,
    capture_id: uuid.UUID,
    number: int,
    holder: uuid.UUID,
    values: Mapping[str, Any],
    *,
    used_for: uuid.UUID | None = None,
) -> bool:
    """Changes a permit that the process holds, unused or used for that run. Returns: Whether there was one."""
    own = (
        CapturePermit.capture_id == capture_id,
        CapturePermit.number == number,
        CapturePermit.holder == holder,
        or_(CapturePermit.run_id.is_(None), CapturePermit.run_id == used_for),
    )
    changed = session.execute(
        update(CapturePermit)
        .where(*own)
        .values(dict(values))
        .returning(CapturePermit.number)
        .execution_options(synchronize_session=False)
    )
    return changed.first() is not None
