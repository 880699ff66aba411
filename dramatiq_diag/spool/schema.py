"""What a run writes into its entry at its start and at its end; `bundle.py` reads it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, TypedDict
from uuid import UUID

from ..collectors.base import Collector
from ..errors import GUARDED
from ..statuses import RunStatus

#: How many ids of overlapping tasks a run keeps, and where each is cut off, in characters.
MAX_OVERLAPPED = 100
MAX_ID_LENGTH = 200


class RunIdentity(TypedDict):
    """What identifies a run, known from its start."""

    run_id: UUID
    task_id: str
    actor_name: str
    queue_name: str
    hostname: str
    pid: int
    parent_run_id: UUID | None
    capture_id: UUID | None
    without_capture: list[str] | None


class EndedRun(Protocol):
    """A run that has ended."""

    started_at_s: float

    @property
    def finished_at_s(self) -> float: ...
    @property
    def duration_ms(self) -> float: ...
    @property
    def collection_ms(self) -> float: ...
    @property
    def peak_rss_bytes(self) -> int | None: ...
    @property
    def overlapped(self) -> Iterable[str]: ...


def cut_id(task_id: str) -> str:
    """Returns: The id of a task as overlapping runs keep it: a long one ends with an ellipsis."""
    return task_id if len(task_id) <= MAX_ID_LENGTH else f"{task_id[: MAX_ID_LENGTH - 1]}…"


def start_record(identity: RunIdentity, started_at_s: float, declared: Iterable[Collector]) -> dict[str, Any]:
    """Returns: The first record of a run.

    Parameters:
      identity: What identifies the run.
      started_at_s: Its start, in seconds since the epoch.
      declared: The collectors whose artifacts the run is to have.
    """
    return {
        **{name: value for name, value in identity.items() if value is not None},
        "started_at": started_at_s,
        "artifacts": [
            {
                "name": collector.artifact_name,
                "filename": collector.filename,
                "media_type": collector.media_type,
                "stored_as": collector.stored_as,
            }
            for collector in declared
        ],
    }


def end_record(run: EndedRun, status: RunStatus, exception: BaseException | None) -> dict[str, Any]:
    """Returns: The last record of a run. It repeats the start: the first record is older than the call of the actor."""
    return {
        "status": status,
        "started_at": run.started_at_s,
        "finished_at": run.finished_at_s,
        "duration_ms": round(run.duration_ms, 3),
        "collection_ms": round(run.collection_ms, 3),
        "peak_rss_bytes": run.peak_rss_bytes,
        "exception_type": None if exception is None else type(exception).__qualname__,
        "exception_message": None if exception is None else text_of(exception),
        "overlapped_task_ids": list(run.overlapped),
    }


def text_of(error: BaseException) -> str:
    """Returns: The text of an exception, whose `__str__` may itself raise."""
    try:
        return str(error)[:2000]
    except GUARDED as broken:
        return f"<its text could not be made: {type(broken).__name__}>"
