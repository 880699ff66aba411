"""Finds the coroutine of each async run on Dramatiq's event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

from dramatiq.asyncio import EventLoopThread

_Found = Callable[[Coroutine[Any, Any, Any]], None]


class CoroutineTracker:
    """Sees the coroutine that a worker thread hands to the event loop: it wraps `run_coroutine` of the loop's thread.

    Note:
      Context variables reach the coroutine but do not lead from a thread to it, and reading the locals of the waiting
      frame would keep its future alive.
    """

    def __init__(self) -> None:
        self._expected: dict[int, list[_Found]] = {}
        self._watched: EventLoopThread | None = None

    @property
    def thread_id(self) -> int | None:
        """The id of the event loop's thread; None before the first `on_next`."""
        return None if self._watched is None else self._watched.ident

    def on_next(self, loop_thread: EventLoopThread, found: _Found) -> None:
        """Calls *found* with the next coroutine that this thread hands over; earlier functions are called as well."""
        if self._watched is not loop_thread:
            self._wrap(loop_thread)
        self._expected.setdefault(threading.get_ident(), []).append(found)

    def forget(self) -> None:
        """Cancels the calls of this thread."""
        self._expected.pop(threading.get_ident(), None)

    def close(self) -> None:
        """Removes the wrapper."""
        if self._watched is not None:
            vars(self._watched).pop("run_coroutine", None)
            self._watched = None

    def _wrap(self, loop_thread: EventLoopThread) -> None:
        original = type(loop_thread).run_coroutine

        def run_coroutine(coroutine: Any) -> Any:
            for found in self._expected.pop(threading.get_ident(), ()):
                found(coroutine)
            return original(loop_thread, coroutine)

        vars(loop_thread)["run_coroutine"] = run_coroutine
        self._watched = loop_thread
