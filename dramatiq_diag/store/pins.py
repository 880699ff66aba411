"""Pins a run, or deletes its artifacts, as a person decides."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from ..errors import DiagnosticsError
from ..statuses import ArtifactStatus, RunStatus
from .clock import Clock
from .counting import count_removed
from .models import Artifact, TaskRun, is_live
from .store import Store


class RunNotFoundError(DiagnosticsError):
    """There is no such run: nothing was collected of it, or the cleanup has removed it."""


class RunIsRunningError(DiagnosticsError):
    """The run has not ended yet; try again when it has."""


class RunIsPinnedError(DiagnosticsError):
    """The run is pinned, and nothing of it was deleted; unpin it first."""


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A run after it was pinned or unpinned."""

    run_id: uuid.UUID
    pinned_at: datetime | None
    artifact_count: int
    "The number of its artifacts that can be downloaded."
    expires_at: datetime | None
    "When the cleanup may remove the first of them; None while the run is pinned, or has none."


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """The artifacts that a deletion removed; none the second time."""

    run_id: uuid.UUID
    artifact_count: int
    freed_bytes: int


def pin(store: Store, run_id: uuid.UUID) -> Pin:
    """Pins a run: the cleanup leaves its row and its artifacts alone until it is unpinned. Repeating does no harm.

    Raises:
      RunNotFoundError, RunIsRunningError: When there is nothing to pin.
      StoreError: When the store cannot be used.
    """
    with store.session() as session:
        pinned_at = _change(session, run_id, func.coalesce(TaskRun.pinned_at, Clock(session).now))
        session.execute(update(Artifact).where(*_live(run_id)).values(expires_at=None))
        return _pin(session, run_id, pinned_at)


def unpin(store: Store, run_id: uuid.UUID) -> Pin:
    """Ends a pin: its artifacts have their protection time again, from now. Repeating does no harm.

    Raises:
      RunNotFoundError, RunIsRunningError: When there is nothing to unpin.
      StoreError: When the store cannot be used.
    """
    with store.session() as session:
        expires_at = Clock(session).after(store.settings.orphan_protection_time)
        _change(session, run_id, None)
        unprotected = *_live(run_id), Artifact.expires_at.is_(None)
        session.execute(update(Artifact).where(*unprotected).values(expires_at=expires_at))
        return _pin(session, run_id, None)


def delete(store: Store, run_id: uuid.UUID) -> Deletion:
    """Deletes the artifacts of a run; its row stays until the retention, and says so. Repeating does no harm.

    Raises:
      RunNotFoundError, RunIsRunningError, RunIsPinnedError: When nothing may be deleted.
      StoreMismatchError: When blob root and database are not of one store; nothing was changed.
      StoreError: When the store cannot be used; where the files are out of reach, a second try or a cleanup ends it.
    """
    store.check_identity()
    reason = f"Deleted by hand at {store.now():%Y-%m-%d %H:%M:%S} UTC."
    with store.session() as session:
        if _change(session, run_id, TaskRun.pinned_at) is not None:
            raise RunIsPinnedError
        remove = (
            update(Artifact)
            .where(*_live(run_id))
            .values(status=ArtifactStatus.DELETED, reason=reason)
            .returning(Artifact.artifact_id)
        )
        gone = set(session.execute(remove).scalars())
        # With the names of an earlier try, whose process may have died before the files were gone.
        deleted = Artifact.run_id == run_id, Artifact.status == ArtifactStatus.DELETED
        session.execute(update(TaskRun).where(TaskRun.run_id == run_id).values(memory_curve=None))
        names = [name for name in session.execute(select(Artifact.blob_name).where(*deleted)).scalars() if name]
        count_removed(session, gone, ArtifactStatus.DELETED)
    freed_bytes = sum(store.blobs.size_bytes(name) or 0 for name in names)
    store.blobs.delete(names)
    store.cache.remove(entry.name for entry in store.cache.entries() if entry.source_id in gone)
    return Deletion(run_id=run_id, artifact_count=len(gone), freed_bytes=freed_bytes)


def _change(session: Session, run_id: uuid.UUID, pinned_at: object) -> datetime | None:
    """Writes to the row of an ended run. Other transactions that change the row wait until this one ends.

    Returns:
      When it was pinned, or None while it is not.
    """
    ended = update(TaskRun).where(TaskRun.run_id == run_id, TaskRun.status != RunStatus.RUNNING)
    changed = session.execute(ended.values(pinned_at=pinned_at).returning(TaskRun.pinned_at)).first()
    if changed is not None:
        moment: datetime | None = changed[0]
        return moment
    known = session.execute(select(TaskRun.run_id).where(TaskRun.run_id == run_id)).first()
    raise RunNotFoundError if known is None else RunIsRunningError


def _pin(session: Session, run_id: uuid.UUID, pinned_at: datetime | None) -> Pin:
    expiries = session.execute(select(Artifact.expires_at).where(*_live(run_id))).scalars().all()
    expires_at = min((moment for moment in expiries if moment is not None), default=None)
    return Pin(run_id=run_id, pinned_at=pinned_at, artifact_count=len(expiries), expires_at=expires_at)


def _live(run_id: uuid.UUID) -> tuple[ColumnElement[bool], ...]:
    return Artifact.run_id == run_id, is_live(Artifact.status)
