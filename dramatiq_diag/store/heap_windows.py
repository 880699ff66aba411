"""Keeps the windows of the live memory of worker processes, and reads the newest ones."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Row, delete, select
from sqlalchemy.orm import Session

from .clock import Clock
from .database import dialect_of, upserting_insert
from .models import HeapWindow

#: The most windows that are read for one answer.
MAX_READ = 20_000


@dataclass(frozen=True, kw_only=True)
class HeapWindowRecord:
    """A window as its process has it; see `models.HeapWindow`."""

    window_id: uuid.UUID
    worker_id: uuid.UUID
    number: int
    started_at: datetime
    ended_at: datetime
    runs: dict[str, int]
    looks: int
    small_bytes: int
    in_use_bytes: int
    free_bytes: int
    rss_bytes: int | None


def add_windows(session: Session, windows: Sequence[HeapWindowRecord]) -> None:
    """Stores windows. One that is stored already stays as it is."""
    insert = upserting_insert(dialect_of(session), HeapWindow)
    session.connection().execute(insert.on_conflict_do_nothing(), [asdict(window) for window in windows])


def newest_windows(
    session: Session, since: datetime | None = None, limit: int = MAX_READ
) -> Sequence[Row[uuid.UUID, int, datetime, dict[str, int], int, int, int, int | None]]:
    """Reads the newest windows, with the columns that leaks are found by.

    Returns:
      `worker_id`, `number`, `ended_at`, `runs`, `small_bytes`, `in_use_bytes`, `free_bytes` and `rss_bytes`, the newest
      window first.
    """
    query = select(
        HeapWindow.worker_id,
        HeapWindow.number,
        HeapWindow.ended_at,
        HeapWindow.runs,
        HeapWindow.small_bytes,
        HeapWindow.in_use_bytes,
        HeapWindow.free_bytes,
        HeapWindow.rss_bytes,
    )
    if since is not None:
        query = query.where(HeapWindow.ended_at >= since)
    return session.execute(query.order_by(HeapWindow.ended_at.desc()).limit(limit)).all()


def delete_windows(session: Session, kept_s: float, limit: int) -> int:
    """Deletes the oldest of the windows that ended *kept_s* seconds ago or earlier. Returns: Their number."""
    before = Clock(session).after(-kept_s)
    oldest = select(HeapWindow.window_id).where(HeapWindow.ended_at < before).order_by(HeapWindow.ended_at)
    remove = delete(HeapWindow).where(HeapWindow.window_id.in_(oldest.limit(limit)))
    return session.connection().execute(remove).rowcount
