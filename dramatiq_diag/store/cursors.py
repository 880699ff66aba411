"""Writes and reads cursors: the last run of a page as an opaque text, after which the list goes on."""

from __future__ import annotations

import base64
import binascii
import enum
import math
import uuid
from datetime import UTC, datetime

from .models import TaskRun

#: The end of a page: the figure that the list is sorted by, and the run's id.
Position = tuple[datetime | float | int, uuid.UUID]

_MAX_BYTES = 2**63 - 1


class Sort(enum.StrEnum):
    """The order of a list of runs."""

    NEWEST = "newest"
    SLOWEST = "slowest"
    "By duration; runs that have none are left out."
    MEMORY = "memory"
    "By peak RSS; runs that have none are left out."


def write_cursor(sort: Sort, run: TaskRun) -> str:
    """Returns: The cursor of the page after this run."""
    figure = {Sort.NEWEST: run.started_at, Sort.SLOWEST: run.duration_ms, Sort.MEMORY: run.peak_rss_bytes}[sort]
    assert figure is not None
    return _encode(sort, (figure, run.run_id))


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
    if sort is Sort.SLOWEST:
        duration_ms = float(text)
        if not math.isfinite(duration_ms):
            raise ValueError("the cursor has no finite duration")
        return duration_ms
    peak_rss_bytes = int(text)
    if abs(peak_rss_bytes) > _MAX_BYTES:
        raise ValueError("the cursor is beyond any size")
    return peak_rss_bytes
