"""Decides which measurement has the interpreter's profile hook.

memray sets it on all threads, pyinstrument's profiler on its own. memray anywhere in the process silences a profiler
for good, and a profiler outside a Tracker breaks the Tracker. So profilers share the hook, and a Tracker has it alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from .frames import Look
from .loggers import get_logger

#: The name of the task's thread in an allocation profile whose Tracker was started on another thread.
TASK_THREAD = "dramatiq_diag.task"

#: The name of the event loop's thread in the allocation profile of an async actor.
LOOP_THREAD = "dramatiq_diag.loop"

#: Why a measurement ends, or does not begin, beside an interrupt; see `ProfileHook.interrupting`.
_STALLS = (
    "on CPython 3.11 a profile function stops all threads of the process while an interrupt (a time limit, an abort, "
    "a shutdown) has been raised and its thread, in a blocking call, has not received it"
)

#: Seconds between attempts of a task that waits for the hook. A longer sleep would hold back the task's time limit.
_POLL_S = 0.02

#: Seconds that an interrupt waits at most for a measurement that is just being started.
_SETTLE_TIMEOUT_S = 1.0

#: The id of a thread's innermost frame, and the line that it is at.
Position = tuple[int, int | None]


class Holder(Protocol):
    """A measurement that uses the hook."""

    settled: bool
    "Whether its start has ended: the profile function is set, or never will be."

    def end_early(self, reason: str) -> None:
        """Ends the measurement, from any thread; its artifact is partial for that reason."""


class ProfileHook:
    """Knows which measurements use the hook; a worker process has one."""

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self._lock = threading.Lock()
        self._tracker: tuple[Holder, str] | None = None
        "The measurement that has the hook alone, and its task."
        self._profiled: dict[int, tuple[Holder, str]] = {}
        "Thread id -> the measurement that has that thread's hook, and its task."
        self._undelivered: dict[int, Position | None] = {}
        """Thread id -> where the thread was when an interrupt was raised in it; None until that is known.

        Filled on CPython 3.11 alone.
        """

    def acquire_exclusive(self, tracker: Holder, task_id: str, wait_s: float) -> str | None:
        """Takes the hook for a Tracker, on all threads.

        Parameters:
          tracker: The measurement; it calls `release`.
          task_id: The task that is tracked.
          wait_s: Seconds to wait for the present holder at most.

        Returns:
          None when the hook is taken; otherwise the reason, which names the task that holds it.
        """
        give_up_at = time.monotonic() + wait_s
        while (reason := self._take(tracker, task_id)) is not None:
            left_s = give_up_at - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(_POLL_S, left_s))
        return reason

    def _take(self, tracker: Holder, task_id: str) -> str | None:
        with self._lock:
            if self._tracker is not None:
                return f"The process's one memray Tracker was held by task {self._tracker[1]}."
            if self._profiled:
                _, holder = next(iter(self._profiled.values()))
                return f"The interpreter's profile hook was held by pyinstrument's own profiler, for task {holder}."
            reason = self._reason_against_start()
            if reason is None:
                self._tracker = tracker, task_id
            return reason

    def release(self, tracker: Holder) -> None:
        """Gives the hook back after a Tracker; does nothing if this one does not have it."""
        with self._lock:
            if self._tracker is not None and self._tracker[0] is tracker:
                self._tracker = None

    def acquire_shared(self, profiler: Holder, task_id: str) -> str | None:
        """Takes this thread's hook for a profiler. Returns: None when it is taken; otherwise the reason."""
        with self._lock:
            if self._tracker is not None:
                return f"memray held the interpreter's profile hook, for task {self._tracker[1]}."
            reason = self._reason_against_start()
            if reason is None:
                self._profiled[threading.get_ident()] = profiler, task_id
            return reason

    def release_shared(self) -> None:
        """Gives this thread's hook back after a profiler."""
        with self._lock:
            self._profiled.pop(threading.get_ident(), None)

    def reason_against_start(self) -> str | None:
        """Returns: Why no profile function may be set now; None when one may be set."""
        with self._lock:
            return self._reason_against_start()

    def _reason_against_start(self) -> str | None:
        own_id = threading.get_ident()
        for thread_id, position in tuple(self._undelivered.items()):
            # A thread that has moved on has received its interrupt. So has this thread, as it came here.
            if thread_id == own_id or (position is not None and position != _position(thread_id)):
                del self._undelivered[thread_id]
        return f"It was not started: {_STALLS}." if self._undelivered else None

    @contextmanager
    def interrupting(self, thread_id: int) -> Iterator[None]:
        """Ends the measurements that use the hook, then lets an interrupt be raised in a thread; for CPython 3.11.

        There, with a profile function set, each function entry is repeated while any thread has an asynchronous
        exception to receive. That thread receives it a few instructions late, possibly within the `__exit__` of a
        `threading.Condition`, whose lock then stays held.

        The hook is not given to anyone until the thread has received the interrupt.
        """
        with self._lock:
            self._undelivered[thread_id] = None
            holders = [holder for holder, _ in (*self._profiled.values(), *filter(None, [self._tracker]))]
        for holder in holders:
            self._end_early(holder)
        try:
            yield
        finally:
            with self._lock:
                position = _position(thread_id)
                if position is None:
                    self._undelivered.pop(thread_id, None)
                else:
                    self._undelivered[thread_id] = position

    def _end_early(self, holder: Holder) -> None:
        give_up_at = time.monotonic() + _SETTLE_TIMEOUT_S
        while not holder.settled and time.monotonic() < give_up_at:
            time.sleep(0.001)
        if not holder.settled:  # It asks for `reason_against_start` before it begins.
            return
        try:
            holder.end_early(f"It was ended before an interrupt was raised: {_STALLS}.")
        except Exception:
            self.logger.warning("A measurement could not be ended before an interrupt.", exc_info=True)


def _position(thread_id: int) -> Position | None:
    """Returns: Where a thread is, for comparison; None where it has ended."""
    look = Look()
    frame_ids, places = look.thread_frame_ids(thread_id), look.thread(thread_id)
    look.take()
    return (frame_ids[0], places[0][1]) if frame_ids else None
