"""Measures the CPU time of all tasks that the process executes, diagnosed or not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from ...runtime.coroutine_steps import MeasuredCoroutine
from ...runtime.thread_state import cpu_s

#: The most tasks that are remembered at once, and the most that one run lists.
_MAX_TASKS = 5000
MAX_LISTED = 50

#: Smaller CPU times are not listed, in seconds: that a task began or ended takes as long.
_LEAST_S = 0.0005

#: The thread of a task, and when it began to process it.
_Task = tuple[int, float]


class Used(NamedTuple):
    """What a task has used so far."""

    cpu_s: float
    task_id: str
    actor_name: str


#: What each task has used.
AllUsed = Mapping[_Task, Used]


class NeighbourDocument(TypedDict):
    """Another task of the process."""

    task_id: str
    actor_name: str
    cpu_ms: float


class Neighbours:
    """Adds up the CPU time of each task's thread and coroutine.

    Parameters:
      messages: Thread id -> the message that is processed on it, and since when.
      measured: Thread id -> the coroutine of its async actor.
      native_ids: Gives the ids of the threads in the kernel, by their ids in Python.
      cpu_of: Gives the CPU time of a thread by its id in the kernel, in seconds; None if it has ended.
    """

    def __init__(
        self,
        messages: Mapping[int, tuple[Any, float]],
        measured: Mapping[int, MeasuredCoroutine | None],
        native_ids: Callable[[], Mapping[int, int]],
        cpu_of: Callable[[int], float | None] = cpu_s,
    ) -> None:
        self._messages = messages
        self._measured = measured
        self._native_ids = native_ids
        self._cpu_of = cpu_of
        self._clocks: dict[int, float] = {}
        "Thread id -> its CPU time, with that of its coroutine, at the last look."
        self._tasks: dict[int, _Task] = {}
        "Thread id -> the task that it processed at the last look."
        self._used: dict[_Task, Used] = {}

    def begin(self) -> None:
        """Charges nothing that was used up to now. Runs on the thread that looks, before its first look."""
        self._tasks = {}
        self._clocks = {thread_id: self._clock(thread_id) for thread_id in tuple(self._native_ids())}

    def look(self) -> None:
        """Charges the CPU time since the last look. Runs on one thread alone."""
        clock = cache(self._clock)
        self._used.update(self._now(clock))
        for thread_id in tuple(self._native_ids()):
            self._clocks[thread_id] = clock(thread_id)
        self._tasks = {thread_id: (thread_id, since) for thread_id, (_, since) in tuple(self._messages.items())}
        if len(self._used) > _MAX_TASKS:
            self.forget()

    def rest(self) -> None:
        """Ends the looks: what is used from now on is charged to no task."""
        self._tasks, self._clocks = {}, {}
        self.forget()

    def forget(self) -> None:
        """Forgets the tasks that have ended."""
        present = {(thread_id, since) for thread_id, (_, since) in tuple(self._messages.items())}
        for task in [task for task in self._used if task not in present]:
            del self._used[task]

    def used(self) -> AllUsed:
        """Returns: What each task has used up to now. Any thread may ask."""
        return self._used.copy() | self._now(self._clock)

    @staticmethod
    def listed(before: AllUsed, after: AllUsed, own: int) -> list[NeighbourDocument]:
        """Returns: The other tasks that used the CPU in between, the one that used most first.

        Parameters:
          before: What `used` gave at the beginning.
          after: What it gave at the end.
          own: The thread of the run itself, whose tasks are left out.
        """
        nothing = Used(0.0, "", "")
        spent = {task: used.cpu_s - before.get(task, nothing).cpu_s for task, used in after.items() if task[0] != own}
        most = sorted((task for task in spent if spent[task] >= _LEAST_S), key=lambda task: -spent[task])
        return [
            {
                "task_id": after[task].task_id,
                "actor_name": after[task].actor_name,
                "cpu_ms": round(spent[task] * 1000, 3),
            }
            for task in most[:MAX_LISTED]
        ]

    def _now(self, clock: Callable[[int], float]) -> dict[_Task, Used]:
        found = {}
        for thread_id, (message, since) in tuple(self._messages.items()):
            task, clock_s = (thread_id, since), clock(thread_id)
            # Less than before: the coroutine is not measured any more.
            spent_s = max(clock_s - self._clocks.get(thread_id, clock_s), 0.0)
            earlier = self._used.get(task)
            used_s = spent_s + (0.0 if earlier is None else earlier.cpu_s)
            # Not the message itself, whose arguments may be large.
            found[task] = Used(used_s, str(message.message_id), str(message.actor_name))
        return found | self._ended(clock)

    def _ended(self, clock: Callable[[int], float]) -> dict[_Task, Used]:
        """Returns: What tasks have used that have ended since the last look, if their threads had no other one."""
        found = {}
        for thread_id, task in self._tasks.items():
            if thread_id not in self._messages and (earlier := self._used.get(task)) is not None:
                clock_s = clock(thread_id)
                spent_s = max(clock_s - self._clocks.get(thread_id, clock_s), 0.0)
                found[task] = earlier._replace(cpu_s=earlier.cpu_s + spent_s)
        return found

    def _clock(self, thread_id: int) -> float:
        measured = self._measured.get(thread_id)
        steps_s = 0.0 if measured is None else measured.cpu_s
        native_id = self._native_ids().get(thread_id)
        return steps_s + (0.0 if native_id is None else self._cpu_of(native_id) or 0.0)


class NativeIds:
    """Knows the kernel's ids of the threads of Python; it asks again when there are others."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}

    def __call__(self) -> dict[int, int]:
        """Returns: Thread id -> its id in the kernel, as of the last `refresh`."""
        return self._known

    def refresh(self) -> None:
        """Reads them. Not for threads of tasks."""
        threads = threading.enumerate()
        self._known = {thread.ident: thread.native_id for thread in threads if thread.ident and thread.native_id}
