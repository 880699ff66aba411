"""Takes the reports of a task until they are as a test wants them."""

from __future__ import annotations

from typing import Any

from dramatiq_diag.runtime.thread_report import ThreadReport, ThreadReports

from . import eventually


class Reports:
    """Takes reports of a task until one of them is as wanted."""

    def __init__(self, thread_id: int, coroutine: Any = None, loop: Any = None) -> None:
        self._arguments = (thread_id, coroutine, None if loop is None else loop.ident)
        self.reports = ThreadReports()

    def take(self) -> list[ThreadReport]:
        return self.reports.take(*self._arguments)

    def until(self, condition: Any) -> Any:
        """Returns: The reports of the first look whose first report fulfils the condition."""

        def look():
            found = self.take()
            return found if found and condition(found[0]) else None

        return eventually(look, "the task is as wanted")


def functions(report: ThreadReport) -> list[str]:
    """Returns: The names of the functions of a report, the innermost first."""
    return [frame.function.rpartition(".")[2] for frame in report.frames]
