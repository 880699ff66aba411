"""Finds the last report of the worker process of a task, and says in words what is known of one that is silent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from .clock import Clock
from .models import Worker
from .workers import ExecutedTask, last_execution

#: A process reports itself every 5 s; one that has not for so many seconds is silent.
SILENT_S = 8.0


@dataclass(frozen=True, kw_only=True)
class LastReport:
    """The last report of a process that executes a task, or did when it was last heard of."""

    worker: Worker
    task: ExecutedTask
    now: datetime
    "By the database's clock."

    @property
    def heard_s_ago(self) -> float:
        """Seconds since the report."""
        return (self.now - self.worker.seen_at).total_seconds()

    @property
    def text(self) -> str:
        """What is known of the process where it does not answer."""
        heard = (
            f"The worker process {self.worker.pid} on {self.worker.hostname} was last heard of {self.heard_s_ago:.0f} "
            f"s ago; then it had executed the task for {self.task['age_s']:.0f} s."
        )
        if self.heard_s_ago <= SILENT_S:
            return f"{heard} It reports itself every 5 s, so it may only be busy; ask again."
        return (
            f"{heard} It reports itself every 5 s, so it has been silent since: C code keeps its GIL, as a regular "
            "expression can for minutes; or it is frozen, was killed, or does not reach the database. On its host, "
            f"`ps -o state,time -p {self.worker.pid}` tells whether it computes: R, and a time that grows. If it was C "
            "code, that is said in the answers and the artifacts after it."
        )


def last_report(session: Session, task_id: str) -> LastReport | None:
    """Finds the last report of a task, by a process that lives or was lost within an hour.

    Returns:
      The report; of several the one of the execution that began last. None where there is none.
    """
    found = last_execution(session, task_id)
    return None if found is None else LastReport(worker=found[0], task=found[1], now=Clock(session).read())
