"""What a run writes into its entry at its start and at its end; `bundle.py` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .errors import GUARDED
from .models import RunStatus

if TYPE_CHECKING:
    from .collectors.base import Collector
    from .run import Run

#: How many task ids a run remembers of those that ran beside it, and where each is cut off, in characters.
MAX_OVERLAPPED = 100
MAX_ID_LENGTH = 200


def cut_id(task_id: str) -> str:
    """Returns: A task's id as it is noted in the runs beside it; the end of a long one is left out, and that shows."""
    return task_id if len(task_id) <= MAX_ID_LENGTH else f"{task_id[: MAX_ID_LENGTH - 1]}…"


def start_record(run: Run, declared: Sequence[Collector]) -> dict[str, Any]:
    """Returns: What there is to be known of a run when it begins, with the artifacts that it is to have."""
    return {
        "run_id": run.run_id,
        "task_id": run.task_id,
        "actor_name": run.actor_name,
        "queue_name": run.queue_name,
        "started_at": run.started_at_s,
        "hostname": run.process.hostname,
        "pid": run.process.pid,
        **run.choice.links(),
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


def end_record(run: Run, status: RunStatus, exception: BaseException | None) -> dict[str, Any]:
    """Returns: How a run ended, and when it had begun: the first record was made before its collectors started."""
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
