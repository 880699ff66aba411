"""The one owner of the interpreter's profile hook: memray takes it on all threads, pyinstrument's profiler on its own.

memray anywhere in the process silences a profiler for good, and a profiler outside a Tracker breaks the Tracker; so
profilers share the hook among themselves, and a Tracker has it alone.
"""

from __future__ import annotations

import threading

#: What a capture names the task's thread where it was begun on another one, which is its main thread then.
TASK_THREAD = "dramatiq_diag.task"


class ProfileHook:
    """Who uses the hook; a worker process has one."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
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
        with self._changed:
            self._changed.wait_for(lambda: self._tracked_task is None and not self._profiled, wait_s)
            if self._tracked_task is not None:
                return f"The process's one memray Tracker was held by task {self._tracked_task}."
            if self._profiled:
                holder = next(iter(self._profiled.values()))
                return f"The interpreter's profile hook was held by pyinstrument's own profiler, for task {holder}."
            self._tracker, self._tracked_task = tracker, task_id
            return None

    def release(self, tracker: object) -> None:
        """Gives the hook back after a Tracker; does nothing where it was not taken."""
        with self._changed:
            if self._tracker is tracker:
                self._tracker = self._tracked_task = None
                self._changed.notify_all()

    def share(self, task_id: str) -> str | None:
        """Takes this thread's hook for a profiler. Returns: None when it is taken; otherwise why not."""
        with self._changed:
            if self._tracked_task is not None:
                return f"memray held the interpreter's profile hook, for task {self._tracked_task}."
            self._profiled[threading.get_ident()] = task_id
            return None

    def unshare(self) -> None:
        """Gives this thread's hook back after a profiler."""
        with self._changed:
            self._profiled.pop(threading.get_ident(), None)
            self._changed.notify_all()
