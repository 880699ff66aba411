"""Wraps methods of `logging.Logger` while the records of runs are collected.

A handler on the root logger would change the application: `logging.basicConfig` does nothing once there is a handler,
and `logging.lastResort` falls silent. It would also miss loggers that do not propagate. A lower level of a logger would
affect all its handlers and all threads. So three methods of `logging.Logger` are wrapped; the wrappers only forward,
unless a run logs.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextvars import ContextVar
from types import FunctionType
from typing import Any

from ...errors import GUARDED

#: The log of the run that the current code belongs to. A coroutine has the context of the thread that handed it over.
_CURRENT: ContextVar[RunLog | None] = ContextVar("dramatiq_diag_log", default=None)

_Method = Callable[..., Any]

#: The attribute in which a wrapper keeps a list with the function that it wraps.
_BEFORE = "dramatiq_diag_before"

#: An entry of a table of lines, as CPython's Objects/locations.md describes it: eight instructions of two bytes that
#: are at the same line as those before.
_SAME_LINE, _SAME_LINE_BYTES = bytes([0x80 | 13 << 3 | 7, 0]), 16


def _ignore(_: logging.LogRecord) -> None:
    """Takes the records of a log that has ended."""


class RunLog:
    """Takes the records of one run.

    Parameters:
      tap: The tap that sees the records.
      write: Called with each record, on the thread that logged it.
      thread_id: The thread of the run; by default the one that makes this.
    """

    def __init__(self, tap: LogTap, write: Callable[[logging.LogRecord], None], thread_id: int | None = None) -> None:
        self.tap = tap
        self.write = write
        self.thread_id = threading.get_ident() if thread_id is None else thread_id
        self.stopped = False
        self._asked: set[tuple[int, int, int]] = set()
        "Thread, logger and level of the records that `isEnabledFor` was asked about, and that are not logged yet."

    def start(self) -> None:
        """Begins to take the records of the thread, and of code with its context if this is that thread."""
        self.tap.join(self)
        if threading.get_ident() == self.thread_id:
            _CURRENT.set(self)

    def stop(self) -> None:
        """Ends it, also for code that still has the context."""
        self.stopped = True
        self.tap.leave(self)
        if _CURRENT.get() is self:
            _CURRENT.set(None)
        self.write = _ignore  # The other one belongs to what has this log: a cycle would wait for a full collection.

    def ask(self, logger: logging.Logger, level: int) -> bool:
        """Returns: True if the run wants a record that the logger's level excludes; False if nobody wants it."""
        if level < logging.DEBUG or logger.disabled or logger.manager.disable >= level:
            return False
        self._asked.add((threading.get_ident(), id(logger), level))
        return True

    def asked(self, logger: logging.Logger, level: int) -> bool:
        """Returns: Whether this thread asked for the record that is being logged, by `ask`."""
        question = (threading.get_ident(), id(logger), level)
        if question not in self._asked:
            return False
        self._asked.discard(question)
        return True


class LogTap:
    """Passes records to the logs of runs. The methods are wrapped from the first run on, until it is closed.

    Parameters:
      debug: Whether its runs get all records from DEBUG on, whatever the levels of the loggers.

    Note:
      The wrappers stay between runs: Python stops caching the methods of a class that changes all the time.
    """

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self._running: dict[int, RunLog] = {}
        "Thread id -> the log of the run on it, as a function may leave its context."
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._ours: dict[str, _Method] = {}
        "Name of a method -> our wrapper of it."

    def join(self, log: RunLog) -> None:
        """Begins to pass records to a log."""
        with self._lock:
            self._wrap_methods()
            self._running[log.thread_id] = log

    def has_log_of(self, thread_id: int) -> bool:
        """Returns: Whether the records of a thread go to a log."""
        return thread_id in self._running

    def leave(self, log: RunLog) -> None:
        """Ends `join`; may be called again."""
        with self._lock:
            if self._running.get(log.thread_id) is log:
                del self._running[log.thread_id]

    def close(self) -> None:
        """Removes our wrappers. One that third-party code has wrapped again stays in place and only forwards."""
        with self._lock:
            self._running.clear()
            for name, ours in self._ours.items():
                _unwrap(name, ours)
            self._ours.clear()

    def current(self) -> RunLog | None:
        """Returns: The log of the run that the current code belongs to; None if there is none."""
        if not self._running:
            return None
        log = _CURRENT.get()
        if log is None or log.tap is not self or log.stopped:
            log = self._running.get(threading.get_ident())
        # A forked process has a copy of the context, but may lack the thread that holds a lock.
        return log if log is not None and os.getpid() == self._pid else None

    def _wrap_methods(self) -> None:
        """Wraps the methods that are not wrapped yet: an interrupt may have cut this short before."""
        makers = {"callHandlers": self._call_handlers}
        if self.debug:
            makers |= {"_log": self._log, "isEnabledFor": self._is_enabled_for}
        for name in [name for name in makers if name not in self._ours]:
            before = [getattr(logging.Logger, name)]
            ours = _as_part_of_logging(makers[name](before), name)
            vars(ours)[_BEFORE] = before
            self._ours[name] = ours
            setattr(logging.Logger, name, ours)

    def _call_handlers(self, before: list[_Method]) -> _Method:
        def callHandlers(self_: logging.Logger, record: logging.LogRecord) -> None:  # noqa: N802 - as `logging` has it.
            log = self.current()
            if log is not None:
                log.write(record)
            before[0](self_, record)

        return callHandlers

    def _is_enabled_for(self, before: list[_Method]) -> _Method:
        def isEnabledFor(self_: logging.Logger, level: int) -> bool:  # noqa: N802 - as `logging` has it.
            if before[0](self_, level):
                return True
            log = self.current()
            return log is not None and log.ask(self_, level)

        return isEnabledFor

    def _lets_through(self, logger: logging.Logger, level: int) -> bool:
        """Returns: Whether the logger's own level includes a record."""
        ours = self._ours.get("isEnabledFor")
        return ours is None or bool(vars(ours)[_BEFORE][0](logger, level))

    def _log(self, before: list[_Method]) -> _Method:
        """Makes the records that only a run wants for the run alone.

        The task sees no error of such a call either: without the run it would have done nothing.
        """

        def _log(self_: logging.Logger, level: int, msg: object, args: Any, *more: Any, **options: Any) -> None:
            log = self.current()
            if log is None or not log.asked(self_, level) or self._lets_through(self_, level):
                before[0](self_, level, msg, args, *more, **options)
                return
            try:
                record = _record(self_, level, msg, args, *more, **options)
            except GUARDED:
                record = logging.LogRecord(self_.name, level, "", 0, "<a call that cannot be logged>", (), None)
            if record is not None:
                log.write(record)

        return _log


def _unwrap(name: str, ours: _Method) -> None:
    """Removes a wrapper from `logging.Logger`, or from within other wrappers of ours."""
    behind = vars(ours)[_BEFORE][0]
    front = vars(logging.Logger)[name]
    if front is ours:
        setattr(logging.Logger, name, behind)
        return
    while (before := getattr(front, _BEFORE, None)) is not None:
        if before[0] is ours:
            before[0] = behind
            return
        front = before[0]


def _as_part_of_logging(method: _Method, name: str) -> _Method:
    """Makes `logging` skip the frames of a wrapper when it looks for the caller: it skips those of its own file.

    In stacks and profiles all of the wrapper stands at the first line of the method that it wraps. A line of this
    module would be one of something else in that file.
    """
    assert isinstance(method, FunctionType)
    original, code = getattr(logging.Logger, name), method.__code__
    method.__code__ = code.replace(
        co_filename=logging.getLogger.__code__.co_filename,
        co_qualname=f"Logger.{name}",
        co_firstlineno=original.__code__.co_firstlineno if isinstance(original, FunctionType) else 1,
        co_linetable=_SAME_LINE * -(-len(code.co_code) // _SAME_LINE_BYTES),
    )
    return method


def _record(
    logger: logging.Logger,
    level: int,
    msg: object,
    args: Any,
    exc_info: Any = None,
    extra: Any = None,
    *_: Any,
    **__: Any,
) -> logging.LogRecord | None:
    """Returns: A record that no handler ever sees; None if the logger's own filters exclude it."""
    if isinstance(exc_info, BaseException):
        exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
    elif exc_info and not isinstance(exc_info, tuple):
        exc_info = sys.exc_info()
    record = logging.LogRecord(logger.name, level, "", 0, msg, args, exc_info or None)
    vars(record).update({name: value for name, value in (extra or {}).items() if name not in vars(record)})
    if not logger.filters:
        return record
    kept: Any = logger.filter(record)  # From Python 3.12 on a filter may give another record.
    return kept if isinstance(kept, logging.LogRecord) else record if kept else None
