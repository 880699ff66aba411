"""Adjusts the expiry of attached artifacts, whose run may still run, or be pinned, when they are published."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from .models import Artifact, TaskRun, is_live
from .records import RunRecord

_Row = dict[str, Any]


def unset_expiry_of_pinned(session: Session, rows: Iterable[_Row]) -> None:
    """Removes the expiry of new artifacts whose run is pinned.

    The transaction has written or locked the rows of the runs before; a pin that is just being made waits.
    """
    query = select(TaskRun.run_id, TaskRun.pinned_at).where(TaskRun.run_id.in_({row["run_id"] for row in rows}))
    pinned_at = {row.run_id: row.pinned_at for row in session.execute(query)}
    for row in rows:
        if pinned_at.get(row["run_id"]) is not None:
            row["expires_at"] = None


def protect_attached(session: Session, runs: Iterable[RunRecord], protection_s: float) -> None:
    """Lets the protection time of what was attached to a run begin with the end of the run."""
    for run in runs:
        if run.is_attached and run.finished_at is not None:
            until = run.finished_at + timedelta(seconds=protection_s)
            of_run = Artifact.run_id == run.run_id, Artifact.attachment_id.is_not(None), is_live(Artifact.status)
            session.execute(update(Artifact).where(*of_run, Artifact.expires_at < until).values(expires_at=until))
