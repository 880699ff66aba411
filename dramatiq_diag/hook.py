"""The one owner of the interpreter's profile hook: memray takes it on all threads, pyinstrument's profiler on its own.

memray anywhere in the process silences a profiler for good, and a profiler outside a Tracker breaks the Tracker; so
profilers share the hook among themselves, and a Tracker has it alone.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextlib import suppress

#: What a capture names the task's thread where it was begun on another one, which is its main thread then.
TASK_THREAD = "dramatiq_diag.task"


class ProfileHook:
    """Who uses the hook; a worker process has one.

    The threads of tasks use it, so there is a plain lock and no `threading.Condition`: that keeps its lock for ever
    where an interrupt of Dramatiq's strikes in its Python code.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[queue.SimpleQueue[None]] = deque()
        "One for each thread that waits; whoever frees the hook puts something into all of them."
        self._tracker: object = None
        self._tracked_task: str | None = None
        self._profiled: dict[int, str] = {}

    def take(self, tracker: object, task_id: str, wait_s: float) -> str | None:
        """Takes the hook for a Tracker, on all threads.

        Parameters:
          tracker: Who takes it, and will release it.
          task_id: The task that is tracked.
          wait_s: Seconds to wait for the present holder at most.

        Returns:
          None when it is taken; otherwise why not, naming the task that holds it.
        """
        give_up_at = time.monotonic() + wait_s
        while True:
            refusal = self._try_to_take(tracker, task_id)
            left_s = give_up_at - time.monotonic()
            if refusal is None or left_s <= 0:
                return refusal
            freed: queue.SimpleQueue[None] = queue.SimpleQueue()
            self._waiting.append(freed)
            if self._tracked_task is None and not self._profiled:  # It was freed just before, and nobody was told.
                continue
            with suppress(queue.Empty):
                freed.get(timeout=left_s)

    def _try_to_take(self, tracker: object, task_id: str) -> str | None:
        with self._lock:
            if self._tracked_task is not None:
                return f"The process's one memray Tracker was held by task {self._tracked_task}."
            if self._profiled:
                holder = next(iter(self._profiled.values()))
                return f"The interpreter's profile hook was held by pyinstrument's own profiler, for task {holder}."
            self._tracker, self._tracked_task = tracker, task_id
            return None

    def release(self, tracker: object) -> None:
        """Gives the hook back after a Tracker; does nothing where it was not taken."""
        with self._lock:
            if self._tracker is tracker:
                self._tracker = self._tracked_task = None
        self._wake()

    def share(self, task_id: str) -> str | None:
        """Takes this thread's hook for a profiler. Returns: None when it is taken; otherwise why not."""
        with self._lock:
            if self._tracked_task is not None:
                return f"memray held the interpreter's profile hook, for task {self._tracked_task}."
            self._profiled[threading.get_ident()] = task_id
            return None

    def unshare(self) -> None:
        """Gives this thread's hook back after a profiler."""
        with self._lock:
            self._profiled.pop(threading.get_ident(), None)
        self._wake()

    def _wake(self) -> None:
        """Lets all that wait try again; those that gave up are forgotten on the way."""
        while self._waiting:
            try:
                waiting = self._waiting.popleft()
            except IndexError:  # Another thread wakes them as well.
                return
            waiting.put(None)
