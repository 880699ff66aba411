"""Takes the stacks of the process for an answer about one of its tasks."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..collectors.services import Services
from ..documents.fields import timestamp
from ..runtime.thread_report import ThreadReport, ThreadReports
from .executions import Execution


def take_reports(services: Services, reports: ThreadReports, thread_id: int) -> list[ThreadReport]:
    """Returns: What all threads do, that of a task first, or the coroutine that it waits for."""
    coroutines = services.coroutines
    return reports.take(thread_id, coroutines.running.get(thread_id), coroutines.thread_id)


def stacks_of(
    services: Services, reports: ThreadReports, execution: Execution, stall: str | None = None
) -> dict[str, Any]:
    """Returns: The stacks of all threads, those of the task first, and what each waits for.

    Parameters:
      stall: A sentence about C code that has just kept the GIL, for the note.
    """
    taken = take_reports(services, reports, execution.thread_id)
    return {
        "run_id": None if execution.run is None else str(execution.run.run_id),
        "taken_at": timestamp(datetime.now(UTC)),
        "note": " ".join(filter(None, (stall, reports.missing))) or None,
        "threads": [asdict(report) for report in taken],
    }
