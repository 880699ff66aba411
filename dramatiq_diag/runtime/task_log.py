"""Logs messages of the threads of tasks, on another thread."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Hashable
from typing import Any

from .loggers import Log


class TaskLog:
    """Queues the log messages of tasks' threads: an interrupt in `logging` would leave its locks held.

    See `runtime.interrupts`.

    Parameters:
      logger: The logger that they go to.
    """

    def __init__(self, logger: Log) -> None:
        self._logger = logger
        self._queued: queue.SimpleQueue[tuple[int, str, tuple[Any, ...], BaseException | None]] = queue.SimpleQueue()
        self._warned: set[Hashable] = set()

    def say(self, level: int, text: str, *values: Any, error: BaseException | None = None) -> None:
        """Queues a message."""
        self._queued.put((level, text, values, error))

    def warn(self, text: str, *values: Any) -> None:
        """Queues a warning."""
        self.say(logging.WARNING, text, *values)

    def warn_once(self, key: Hashable, error: BaseException, text: str, *values: Any) -> None:
        """Queues a warning with the error's traceback; a debug message if the same *key* was warned of before."""
        level = logging.DEBUG if key in self._warned else logging.WARNING
        self._warned.add(key)
        self.say(level, text, *values, error=error)

    def write(self) -> None:
        """Logs the queued messages. Not for the threads of tasks."""
        while True:
            try:
                level, text, values, error = self._queued.get_nowait()
            except queue.Empty:
                return
            self._logger.log(level, text, *values, exc_info=error)


#: Logs a warning: a text, and the values in it.
Warn = Callable[..., None]
