"""Finds the thread of the event loop for collectors that follow async actors."""

from __future__ import annotations

from dramatiq.asyncio import EventLoopThread, get_event_loop_thread

from ..errors import SkippedError


def event_loop_thread() -> EventLoopThread:
    """Returns: The thread that runs coroutines.

    Raises:
      SkippedError: When the broker has no event loop.
    """
    thread = get_event_loop_thread()
    if thread is None:
        raise SkippedError("The actor is async, and there is no event loop: AsyncIO is not among the middleware.")
    return thread
