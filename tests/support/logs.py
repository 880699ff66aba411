"""What a handler of the application sees, and what a log of a run has."""

from __future__ import annotations

import logging
import time

from support.store import Stored


class Kept(logging.Handler):
    """Keeps what a handler of the application sees."""

    def __init__(self, level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


def is_rare(count: int, began_s: float) -> bool:
    """Returns: Whether a warning that is logged once a minute came so often since a moment by `time.monotonic`."""
    return 1 <= count <= 1 + (time.monotonic() - began_s) // 60


def messages_of(log: str) -> list[str]:
    """Returns: The first line of each record, without time, level and logger."""
    return [line.partition(": ")[2] for line in log.splitlines() if not line.startswith((" ", "#"))]


class Hostile:
    """Breaks whatever makes text of it."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error

    __repr__ = __str__


def lines_of(store: Stored, task_id: str) -> list[str]:
    return store.data(task_id, "task_logs").decode().splitlines()
