"""Makes loggers that raise nothing, and whose tracebacks are safe beside running tasks."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from typing import Any

from dramatiq.logging import get_logger as _get_logger

from ..errors import GUARDED
from .tracebacks import take_traceback, traceback_text


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that raises nothing: handlers and filters are the application's, and may fail as its network does.

    An error of a handler would end the thread that logs, most likely while the store is out of reach as well.
    """

    is_told = False
    "Whether it was printed that messages cannot be logged."

    def log(self, level: int, msg: object, *args: object, **options: Any) -> None:
        """Logs a message. An error of the application's logging is printed once in a process."""
        try:
            super().log(level, msg, *args, **{"stacklevel": 2} | options)  # Above this function.
        except Exception as error:  # noqa: BLE001 - whatever a handler raises.
            if not Log.is_told and sys.stderr is not None:
                Log.is_told = True
                told = f"dramatiq_diag: a message of {self.name} could not be logged: {type(error).__name__}: {error}\n"
                with suppress(OSError, ValueError):  # It is closed, or takes nothing.
                    sys.stderr.write(told)


def get_logger(module: str, name: type[Any] | str | None = None) -> Log:
    """Returns: Dramatiq's logger for a module or a class, with tracebacks formatted by `tracebacks`.

    Python's own text has carets below the lines, for which it parses each line into a syntax tree. In some releases a
    task that does the same on another thread fails then (python/cpython#106905).
    """
    logger: logging.Logger = _get_logger(module, name)
    if _add_text not in logger.filters:
        logger.addFilter(_add_text)
    return Log(logger)


def _add_text(record: logging.LogRecord) -> bool:
    """Sets the text of the traceback, which a formatter then does not make itself."""
    error = record.exc_info[1] if record.exc_info else None
    if error is not None and not record.exc_text:
        try:
            record.exc_text = traceback_text(take_traceback(error)).rstrip("\n")
        except GUARDED as failure:
            record.exc_text = f"{type(error).__name__}; its traceback could not be made: {type(failure).__name__}"
    return True


class RareWarning:
    """Logs a warning at most once in *interval_s* seconds, as of a store that is out of reach; others are left out."""

    def __init__(self, logger: Log, interval_s: float = 60.0) -> None:
        self._logger = logger
        self._interval_s = interval_s
        self._not_before = 0.0

    def __call__(self, text: str, *arguments: object) -> None:
        now = time.monotonic()
        if now >= self._not_before:
            self._not_before = now + self._interval_s
            self._logger.warning(text, *arguments)
