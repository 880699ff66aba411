"""Finds the coroutine of each async run on Dramatiq's event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Hashable
from types import CoroutineType
from typing import Any

from dramatiq.asyncio import EventLoopThread

from .coroutine_steps import MeasuredCoroutine

_Found = Callable[[Coroutine[Any, Any, Any]], None]


class CoroutineTracker:
    """Sees the coroutine that a worker thread hands to the event loop: it wraps `run_coroutine` of the loop's thread.

    Note:
      Two other ways were rejected: context variables reach the coroutine but do not lead from a thread to it, and
      reading the locals of the waiting frame would keep its future alive.
    """

    def __init__(self) -> None:
        self.running: dict[int, Coroutine[Any, Any, Any]] = {}
        "Worker thread -> the coroutine that it has handed over and waits for."
        self.measured: dict[int, MeasuredCoroutine | None] = {}
        "Worker thread of which the next coroutine is to be measured -> that coroutine, once it is handed over."
        self.on_end: list[Callable[[int, tuple[Any, Hashable], MeasuredCoroutine], None]] = []
        """What is called at the end of a run on its worker thread, with that, the message and since when it was
        processed, and the measured coroutine, before that is forgotten."""
        self._expected: dict[int, list[_Found]] = {}
        self._watched: EventLoopThread | None = None
        self._wrapper: Any = None
        self._earlier: Any = None
        "The wrapper of another tracker that was there before; None where there was none."

    @property
    def thread_id(self) -> int | None:
        """The id of the event loop's thread; None before the first `watch`."""
        return None if self._watched is None else self._watched.ident

    @property
    def native_id(self) -> int | None:
        """The id that the kernel gave that thread."""
        return None if self._watched is None else self._watched.native_id

    def watch(self, loop_thread: EventLoopThread) -> None:
        """Sees the coroutines that are handed to this event loop from now on."""
        if self._watched is not loop_thread:
            self._wrap(loop_thread)

    def on_next(self, loop_thread: EventLoopThread, found: _Found) -> None:
        """Calls *found* with the next coroutine that this thread hands over; earlier functions are called as well."""
        self.watch(loop_thread)
        self._expected.setdefault(threading.get_ident(), []).append(found)

    def forget(self) -> None:
        """Cancels the calls of this thread."""
        self._expected.pop(threading.get_ident(), None)

    def close(self) -> None:
        """Removes the wrapper. One that another tracker has wrapped again stays, and only forwards."""
        if self._watched is not None:
            attributes = vars(self._watched)
            if attributes.get("run_coroutine") is self._wrapper:
                del attributes["run_coroutine"]
                if self._earlier is not None:
                    attributes["run_coroutine"] = self._earlier
            self._watched = None

    def _wrap(self, loop_thread: EventLoopThread) -> None:
        self._earlier = vars(loop_thread).get("run_coroutine")
        original = loop_thread.run_coroutine

        def run_coroutine(coroutine: Any) -> Any:
            if self._watched is None:
                return original(coroutine)
            thread_id = threading.get_ident()
            for found in self._expected.pop(thread_id, ()):
                found(coroutine)
            self.running[thread_id] = coroutine
            if thread_id in self.measured and type(coroutine) is CoroutineType:
                self.measured[thread_id] = coroutine = MeasuredCoroutine(coroutine)
            try:
                return original(coroutine)
            finally:
                self.running.pop(thread_id, None)

        self._watched = loop_thread
        vars(loop_thread)["run_coroutine"] = self._wrapper = run_coroutine
