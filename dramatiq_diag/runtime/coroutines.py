"""Which coroutine on Dramatiq's event loop is whose."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any

from dramatiq.asyncio import EventLoopThread

_Found = Callable[[Coroutine[Any, Any, Any]], None]


class CoroutineTracker:
    """Sees the coroutine that a worker thread hands to the event loop.

    Note:
      Context variables reach the coroutine but do not lead from a thread to it, and looking into the locals of the
      waiting frame would keep its future alive; so the event loop thread's `run_coroutine` gets a look-out in front.
    """

    def __init__(self) -> None:
        self._expected: dict[int, list[_Found]] = {}
        self._watched: EventLoopThread | None = None

    @property
    def thread_id(self) -> int | None:
        """The thread of the event loop, once there is one to watch."""
        return None if self._watched is None else self._watched.ident

    def on_next(self, loop_thread: EventLoopThread, found: _Found) -> None:
        """Calls *found*, besides those that were given before, with the next coroutine that this thread hands over."""
        if self._watched is not loop_thread:
            self._put_in_front(loop_thread)
        self._expected.setdefault(threading.get_ident(), []).append(found)

    def forget(self) -> None:
        """Expects nothing of this thread any more."""
        self._expected.pop(threading.get_ident(), None)

    def close(self) -> None:
        """Takes the look-out away."""
        if self._watched is not None:
            vars(self._watched).pop("run_coroutine", None)
            self._watched = None

    def _put_in_front(self, loop_thread: EventLoopThread) -> None:
        original = type(loop_thread).run_coroutine

        def run_coroutine(coroutine: Any) -> Any:
            for found in self._expected.pop(threading.get_ident(), ()):
                found(coroutine)
            return original(loop_thread, coroutine)

        vars(loop_thread)["run_coroutine"] = run_coroutine
        self._watched = loop_thread
