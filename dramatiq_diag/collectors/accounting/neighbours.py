"""Measures the CPU time of all tasks that the process executes, diagnosed or not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from ...runtime.coroutine_steps import MeasuredCoroutine
from ...runtime.thread_state import cpu_s

#: The most tasks that have ended and are remembered, and the most that one run lists.
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
    is_async: bool = False
    "Whether it is what a measured coroutine has used. The thread that waits for it meanwhile is not counted."

    def since(self, earlier: Used | None) -> float:
        """Returns: The CPU time in between, in seconds."""
        return self.cpu_s - (earlier.cpu_s if earlier is not None and earlier.is_async == self.is_async else 0.0)


class _Ended(NamedTuple):
    """Tasks that have ended, in the order in which that was seen, the oldest of them forgotten."""

    forgotten: int
    tasks: list[tuple[_Task, Used]]
    "It only grows."

    @property
    def number(self) -> int:
        """How many there were, with those that are forgotten."""
        return self.forgotten + len(self.tasks)


class Mark(NamedTuple):
    """A moment from which on it is asked what the tasks used."""

    used: Mapping[_Task, Used]
    "What those had used that the process executed then."
    ended: int
    "How many had ended."


class NeighbourDocument(TypedDict):
    """Another task of the process."""

    task_id: str
    actor_name: str
    cpu_ms: float


class Neighbours:
    """Adds up the CPU time of each task: that of its thread, or of the steps of its coroutine.

    Parameters:
      messages: Thread id -> the message that is processed on it, and since when.
      measured: Thread id -> the coroutine of its async actor.
      native_ids: Gives the ids of the threads in the kernel, by their ids in Python.
      loop_cpu_s: Gives the CPU time of the event loop's thread, in seconds; None where it is not known.
      cpu_of: Gives the CPU time of a thread by its id in the kernel, in seconds; None if it has ended.
    """

    def __init__(
        self,
        messages: Mapping[int, tuple[Any, float]],
        measured: Mapping[int, MeasuredCoroutine | None],
        native_ids: Callable[[], Mapping[int, int]],
        loop_cpu_s: Callable[[], float | None] = lambda: None,
        cpu_of: Callable[[int], float | None] = cpu_s,
    ) -> None:
        self._messages = messages
        self._measured = measured
        self._native_ids = native_ids
        self._loop_cpu_s = loop_cpu_s
        self._cpu_of = cpu_of
        self._is_looking = False
        self._clocks: dict[int, float] = {}
        "Thread id -> its CPU time at the last look."
        self._known: dict[_Task, Used] = {}
        "What those have used that were processed at the last look. Each look replaces it."
        self._ended = _Ended(0, [])
        self._coroutines_ended: list[tuple[_Task, Used]] = []
        "Those of which the coroutine has ended since the last look, with all that they have used."

    def begin(self) -> None:
        """Charges no thread with what it used up to now. Runs on the thread that looks, before its first look."""
        present = {(thread_id, since) for thread_id, (_, since) in tuple(self._messages.items())}
        self._known = {task: used for task, used in self._known.items() if task in present}
        self._clocks = {thread_id: self._clock(thread_id) for thread_id in tuple(self._native_ids())}
        self._is_looking = True

    def look(self) -> None:
        """Charges the CPU time since the last look. Runs on one thread alone."""
        clock = cache(self._clock)
        noted = len(self._coroutines_ended)
        found = self._now(clock)
        present = {(thread_id, since) for thread_id, (_, since) in tuple(self._messages.items())}
        # In this order: what another thread reads in between, it finds twice.
        self._ended.tasks.extend((task, used) for task, used in found.items() if task not in present)
        self._known = {task: used for task, used in found.items() if task in present}
        del self._coroutines_ended[:noted]
        for thread_id in tuple(self._native_ids()):
            self._clocks[thread_id] = clock(thread_id)
        if len(self._ended.tasks) > 2 * _MAX_TASKS:
            self._ended = _Ended(self._ended.number - _MAX_TASKS, self._ended.tasks[-_MAX_TASKS:])

    def rest(self) -> None:
        """Ends the looks: what is used from now on is charged to no task."""
        self._is_looking = False
        self._clocks = {}
        self._coroutines_ended.clear()
        self._ended = _Ended(self._ended.number, [])

    def note_end(self, thread_id: int, processed: tuple[Any, float], measured: MeasuredCoroutine) -> None:
        """Notes what the coroutine of a thread has used that has ended.

        Parameters:
          thread_id: The thread, which calls this.
          processed: The message that was processed on it, and since when; it is no longer among the messages.
          measured: The coroutine.
        """
        if self._is_looking and len(self._coroutines_ended) < _MAX_TASKS:
            message, since = processed
            used = Used(measured.cpu_s, str(message.message_id), str(message.actor_name), is_async=True)
            self._coroutines_ended.append(((thread_id, since), used))

    def mark(self) -> Mark:
        """Returns: What tasks have used up to now. Any thread may ask."""
        return Mark(self._now(self._clock), self._ended.number)  # In this order: one may end in between.

    def listed(self, mark: Mark, own: int) -> list[NeighbourDocument]:
        """Returns: The other tasks that used the CPU since then, the one that used most first. Any thread may ask.

        Parameters:
          mark: What `mark` gave at the beginning.
          own: The thread of the run itself, whose tasks are left out.
        """
        now, ended = self._now(self._clock), self._ended  # In this order, too.
        after = dict(ended.tasks[max(mark.ended - ended.forgotten, 0) :]) | now
        spent = {task: used.since(mark.used.get(task)) for task, used in after.items() if task[0] != own}
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
        """Returns: What tasks have used that are processed now, or have ended since the last look."""
        known = self._known
        found = {}
        for thread_id, processed in tuple(self._messages.items()):
            task = thread_id, processed[1]
            found[task] = self._used(task, processed, known.get(task), clock)
        for task, earlier in known.items():
            if task not in found:
                # If its thread has another task, what it used since cannot be told from what that one did.
                is_followed = earlier.is_async or task[0] in self._messages
                more_s = 0.0 if is_followed else self._since_look(task[0], clock)
                found[task] = earlier._replace(cpu_s=earlier.cpu_s + more_s)
        return found | dict(tuple(self._coroutines_ended))

    def _used(
        self, task: _Task, processed: tuple[Any, float], earlier: Used | None, clock: Callable[[int], float]
    ) -> Used:
        thread_id, message = task[0], processed[0]
        # Not the message itself, whose arguments may be large.
        names = str(message.message_id), str(message.actor_name)
        is_async, measured = thread_id in self._measured, self._measured.get(thread_id)
        if measured is not None:
            steps = measured.steps_until(perf_counter(), self._loop_cpu_s)
            if self._messages.get(thread_id) is processed:  # Otherwise it may be that of the next one.
                return Used(steps.cpu_s, *names, is_async=True)
        if is_async or (earlier is not None and earlier.is_async):
            return Used(0.0, *names, is_async=True) if earlier is None else earlier
        used_s = self._since_look(thread_id, clock) + (0.0 if earlier is None else earlier.cpu_s)
        return Used(used_s, *names)

    def _since_look(self, thread_id: int, clock: Callable[[int], float]) -> float:
        clock_s = clock(thread_id)
        return max(clock_s - self._clocks.get(thread_id, clock_s), 0.0)

    def _clock(self, thread_id: int) -> float:
        native_id = self._native_ids().get(thread_id)
        return 0.0 if native_id is None else self._cpu_of(native_id) or 0.0


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
