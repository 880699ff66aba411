"""Writes and reads cursors: the last run of a page as an opaque text, after which the list goes on."""

from __future__ import annotations

import base64
import binascii
import enum
import math
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Float
from sqlalchemy.orm import InstrumentedAttribute

from .models import TaskRun

#: The end of a page: the figure that the list is sorted by, and the run's id.
Position = tuple[datetime | float | int, uuid.UUID]

#: The most that a column can hold.
MAX_BYTES = 2**63 - 1


class Sort(enum.StrEnum):
    """The order of a list of runs."""

    NEWEST = "newest"
    SLOWEST = "slowest"
    "By duration; runs that have none are left out."
    MEMORY = "memory"
    "By peak RSS; runs that have none are left out. The same holds for those that follow."
    QUEUE_WAIT = "queue_wait"
    CPU = "cpu"
    RUN_QUEUE = "run_queue"
    GC = "gc"
    TOUCHED = "touched"


#: The column that each list is sorted by, largest first.
FIGURES: dict[Sort, InstrumentedAttribute[Any]] = {
    Sort.NEWEST: TaskRun.started_at,
    Sort.SLOWEST: TaskRun.duration_ms,
    Sort.MEMORY: TaskRun.peak_rss_bytes,
    Sort.QUEUE_WAIT: TaskRun.queue_wait_ms,
    Sort.CPU: TaskRun.cpu_ms,
    Sort.RUN_QUEUE: TaskRun.run_queue_ms,
    Sort.GC: TaskRun.gc_ms,
    Sort.TOUCHED: TaskRun.touched_bytes,
}

#: The orders by a number of milliseconds, which PostgreSQL could store as NaN or infinite.
BY_DURATION = frozenset(sort for sort, figure in FIGURES.items() if isinstance(figure.type, Float))


def write_cursor(sort: Sort, run: TaskRun) -> str:
    """Returns: The cursor of the page after this run."""
    return _encode(sort, (getattr(run, FIGURES[sort].key), run.run_id))


def read_cursor(sort: Sort, cursor: str) -> Position:
    """Reads a cursor of a list with the same order.

    Raises:
      ValueError: When it is not what `write_cursor` gave.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        given, figure, run_id = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split(" ")
        position = _figure(sort, figure), uuid.UUID(run_id)
        if given != sort or _encode(sort, position) != cursor:  # Each position has one text.
            raise ValueError("the cursor is of another list, or was tampered with")
    except (ValueError, OverflowError, binascii.Error) as error:
        raise ValueError("the cursor is not one that a list of runs gave") from error
    return position


def _encode(sort: Sort, position: Position) -> str:
    figure, run_id = position
    text = figure.isoformat() if isinstance(figure, datetime) else repr(figure)
    return base64.urlsafe_b64encode(f"{sort} {text} {run_id}".encode()).decode().rstrip("=")


def _figure(sort: Sort, text: str) -> datetime | float | int:
    if sort is Sort.NEWEST:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("the cursor has no time zone")
        return moment.astimezone(UTC)
    if sort in BY_DURATION:
        duration_ms = float(text)
        if not math.isfinite(duration_ms):
            raise ValueError("the cursor has no finite duration")
        return duration_ms
    size_bytes = int(text)
    if abs(size_bytes) > MAX_BYTES:
        raise ValueError("the cursor is beyond any size")
    return size_bytes
