"""What is to be logged on the threads of tasks; it is logged on another thread."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Hashable
from typing import Any


class TaskLog:
    """Takes what a task's thread has to say.

    `logging` takes its locks in Python code. An interrupt of Dramatiq's that strikes there leaves a lock held for ever,
    and whatever logs after that hangs. So the threads of tasks put what they have to say into a queue, which is written
    in C.

    Parameters:
      logger: Logs it in the end.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._said: queue.SimpleQueue[tuple[int, str, tuple[Any, ...], BaseException | None]] = queue.SimpleQueue()
        self._warned: set[Hashable] = set()

    def say(self, level: int, text: str, *values: Any, error: BaseException | None = None) -> None:
        """Has a message logged soon."""
        self._said.put((level, text, values, error))

    def warn(self, text: str, *values: Any) -> None:
        """Has a warning logged soon."""
        self.say(logging.WARNING, text, *values)

    def warn_once(self, key: Hashable, error: BaseException, text: str, *values: Any) -> None:
        """Has a warning logged, with the error's traceback, the first time; after that at debug level."""
        level = logging.DEBUG if key in self._warned else logging.WARNING
        self._warned.add(key)
        self.say(level, text, *values, error=error)

    def write(self) -> None:
        """Logs what was said. Not for the threads of tasks."""
        while True:
            try:
                level, text, values, error = self._said.get_nowait()
            except queue.Empty:
                return
            self._logger.log(level, text, *values, exc_info=error)


#: Logs a warning: a text, and the values in it.
Warn = Callable[..., None]
