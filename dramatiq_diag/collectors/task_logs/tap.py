"""What stands in front of `logging` while the records of runs are collected.

A handler on the root logger would change what others see: `logging.basicConfig` does nothing once there is one, and
`logging.lastResort` falls silent; and it sees nothing of loggers that do not propagate. A lower level of a logger would
reach all its handlers and all threads. So three methods of `logging.Logger` get a look-out in front, which does nothing
for anyone but a run.
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

#: The log of the run that this code works for: a coroutine has the context of the worker thread that handed it over.
_CURRENT: ContextVar[RunLog | None] = ContextVar("dramatiq_diag_log", default=None)

_Method = Callable[..., Any]

#: Where a function that stands in front keeps what it stands in front of.
_BEFORE = "dramatiq_diag_before"


class RunLog:
    """Takes the records of one run.

    Parameters:
      tap: What sees the records.
      write: Is given each record, on the thread that logged it.
    """

    def __init__(self, tap: LogTap, write: Callable[[logging.LogRecord], None]) -> None:
        self.tap = tap
        self.write = write
        self.thread_id = threading.get_ident()
        self.stopped = False
        self._asked: set[tuple[int, int, int]] = set()
        "Thread, logger and level of records that were asked about: what is made in between may log, on any thread."

    def start(self) -> None:
        """Takes what this thread, and what has its context, logs from now on."""
        self.tap.join(self)
        _CURRENT.set(self)

    def stop(self) -> None:
        """Takes nothing any more, whatever still has the context; worker threads go on with theirs."""
        self.stopped = True
        self.tap.leave(self)
        if _CURRENT.get() is self:
            _CURRENT.set(None)

    def ask(self, logger: logging.Logger, level: int) -> bool:
        """Returns: Whether this run alone wants a record that the logger's level leaves out."""
        if level < logging.DEBUG or logger.disabled or logger.manager.disable >= level:
            return False
        self._asked.add((threading.get_ident(), id(logger), level))
        return True

    def asked(self, logger: logging.Logger, level: int) -> bool:
        """Returns: Whether the record that is being logged is one that this thread asked about."""
        question = (threading.get_ident(), id(logger), level)
        if question not in self._asked:
            return False
        self._asked.discard(question)
        return True


class LogTap:
    """Shows records to the logs of runs; in front of `logging` from the first run on, until it is closed.

    Parameters:
      debug: Whether its runs have the records from DEBUG on that the loggers' levels leave out.

    Note:
      It stays in front between runs: a class whose methods change all the time is one that Python stops caching.
    """

    def __init__(self, *, debug: bool) -> None:
        self.debug = debug
        self._running: dict[int, RunLog] = {}
        "Thread id -> the log of the run on it: a function may leave the context that it was called in."
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._ours: dict[str, _Method] = {}
        "Name of a method -> what is in front of it."

    def join(self, log: RunLog) -> None:
        """Begins to show records to a log."""
        with self._lock:
            self._put_in_front()
            self._running[log.thread_id] = log

    def leave(self, log: RunLog) -> None:
        """Ends it; that log may have left before."""
        with self._lock:
            if self._running.get(log.thread_id) is log:
                del self._running[log.thread_id]

    def close(self) -> None:
        """Goes away, also from behind another tap; where somebody else stands in front it stays, and does nothing."""
        with self._lock:
            self._running.clear()
            for name, ours in self._ours.items():
                _take_away(name, ours)
            self._ours.clear()

    def current(self) -> RunLog | None:
        """Returns: The log of the run that this code works for."""
        if not self._running:
            return None
        log = _CURRENT.get()
        if log is None or log.tap is not self or log.stopped:
            log = self._running.get(threading.get_ident())
        # A process that a task forks has a copy of its context, and may be without the thread that holds a lock.
        return log if log is not None and os.getpid() == self._pid else None

    def _put_in_front(self) -> None:
        """Does what is left of it: an interrupt of Dramatiq's may have cut it short."""
        makers = {"callHandlers": self._call_handlers}
        if self.debug:
            makers |= {"_log": self._log, "isEnabledFor": self._is_enabled_for}
        for name in [name for name in makers if name not in self._ours]:
            before = [getattr(logging.Logger, name)]
            ours = _as_of_logging(makers[name](before))
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
        """Returns: Whether the logger itself does, whatever the run wants."""
        ours = self._ours.get("isEnabledFor")
        return ours is None or bool(vars(ours)[_BEFORE][0](logger, level))

    def _log(self, before: list[_Method]) -> _Method:
        """Keeps what a run alone wants from everybody else: no record is made of it but the run's own.

        What such a call raises is kept from the task as well: it would have done nothing.
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


def _take_away(name: str, ours: _Method) -> None:
    """Takes a function away from in front of `logging`, or from behind others of ours."""
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


def _as_of_logging(method: _Method) -> _Method:
    """Lets its frames count as `logging`'s own: who looks for the caller's frame passes those over, and no others."""
    assert isinstance(method, FunctionType)
    method.__code__ = method.__code__.replace(co_filename=logging.getLogger.__code__.co_filename)
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
    """Returns: A record that no handler ever sees; None where the logger's own filters leave it out."""
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
