"""Measures the CPU time of all tasks that the process executes, and for how long they kept the event loop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import cache
from time import perf_counter
from typing import Any, NamedTuple

from typing_extensions import TypedDict

from ...runtime.coroutine_steps import MeasuredCoroutine
from ...runtime.thread_state import cpu_s
from .account import Task

#: The most tasks that have ended and are remembered, and the most that one run lists.
_MAX_TASKS = 5000
MAX_LISTED = 50

#: Smaller times are not listed, in seconds: that a task began or ended takes as long.
_LEAST_S = 0.0005

#: Shorter times for which a coroutine kept the event loop are charged at a later look, in seconds.
_LEAST_KEPT_S = 0.0001


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


class _EndedCoroutine(NamedTuple):
    """A coroutine that has ended since the last look."""

    task: Task
    used: Used
    "All that it has used."
    measured: MeasuredCoroutine


class _Ended(NamedTuple):
    """Tasks that have ended, in the order in which that was seen, the oldest of them forgotten."""

    forgotten: int
    tasks: list[tuple[Task, Used]]
    "It only grows."

    @property
    def number(self) -> int:
        """How many there were, with those that are forgotten."""
        return self.forgotten + len(self.tasks)


class Mark(NamedTuple):
    """A moment from which on it is asked what the tasks used."""

    used: Mapping[Task, Used]
    "What those had used that the process executed then."
    ended: int
    "How many had ended."


class NeighbourDocument(TypedDict):
    """Another task of the process."""

    task_id: str
    actor_name: str
    cpu_ms: float
    loop_ms: float | None
    "For how long it kept the event loop while the run waited for that; None unless both are coroutines."


class Neighbours:
    """Adds up the CPU time of each task: that of its thread, or of the steps of its coroutine.

    It also knows for how long each coroutine kept the event loop, with CPU time or without it.

    Parameters:
      messages: Thread id -> the message that is processed on it, and since when.
      measured: Thread id -> the coroutine of its async actor.
      native_ids: Gives the ids of the threads in the kernel, by their ids in Python.
      loop_cpu_s: Gives the CPU time of the event loop's thread, in seconds; None where it is not known.
      cpu_of: Gives the CPU time of a thread by its id in the kernel, in seconds; None if it has ended.
    """

    def __init__(
        self,
        messages: Mapping[int, tuple[Any, Hashable]],
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
        self._known: dict[Task, Used] = {}
        "What those have used that were processed at the last look. Each look replaces it."
        self._ended = _Ended(0, [])
        self._coroutines_ended: list[_EndedCoroutine] = []
        self._steps: dict[MeasuredCoroutine, float] = {}
        "How long the steps took of each coroutine up to the last call of `kept`, which replaces it; in seconds."

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
        self._steps = {}
        self._ended = _Ended(self._ended.number, [])

    def note_end(self, thread_id: int, processed: tuple[Any, Hashable], measured: MeasuredCoroutine) -> None:
        """Notes what the coroutine of a thread has used that has ended.

        Parameters:
          thread_id: The thread, which calls this.
          processed: The message that was processed on it, and since when; it is no longer among the messages.
          measured: The coroutine.
        """
        if self._is_looking and len(self._coroutines_ended) < _MAX_TASKS:
            message, since = processed
            used = Used(measured.cpu_s, str(message.message_id), str(message.actor_name), is_async=True)
            self._coroutines_ended.append(_EndedCoroutine((thread_id, since), used, measured))

    def kept(self) -> dict[Task, float]:
        """Returns: For how long coroutines kept the event loop since the last call, in seconds.

        It is called by the thread that looks, at each of its looks at coroutines.
        """
        found, self._steps = self._kept()
        return found

    def kept_since(self) -> dict[Task, float]:
        """Returns: The same, without an effect on what `kept` gives. Any thread may ask."""
        return self._kept()[0]

    def _kept(self) -> tuple[dict[Task, float], dict[MeasuredCoroutine, float]]:
        known, now_s = self._steps, perf_counter()
        found, steps = {}, {}
        for measured, task in self._coroutines().items():
            steps[measured] = known.get(measured, 0.0)
            steps_s = measured.steps_until(now_s, lambda: None).steps_s
            if (kept_s := steps_s - steps[measured]) >= _LEAST_KEPT_S:
                found[task], steps[measured] = kept_s, steps_s
        return found, steps

    def _coroutines(self) -> dict[MeasuredCoroutine, Task]:
        """Returns: The coroutines that there are, and those that have ended since the last look."""
        found = {ended.measured: ended.task for ended in tuple(self._coroutines_ended)}
        for thread_id, measured in tuple(self._measured.items()):
            processed = self._messages.get(thread_id)
            # Otherwise the thread may have its next task by now.
            if measured is not None and processed is not None and self._measured.get(thread_id) is measured:
                found[measured] = thread_id, processed[1]
        return found

    def mark(self) -> Mark:
        """Returns: What tasks have used up to now. Any thread may ask."""
        return Mark(self._now(self._clock), self._ended.number)  # In this order: one may end in between.

    def listed(self, mark: Mark, own: int, kept: Mapping[Task, float] | None = None) -> list[NeighbourDocument]:
        """Returns: The other tasks that used the CPU since then, or kept the event loop. Any thread may ask.

        The one that kept the loop for the longest time comes first, and then the one that used most.

        Parameters:
          mark: What `mark` gave at the beginning.
          own: The thread of the run itself, whose tasks are left out.
          kept: For how long each kept the event loop while the run waited for that, in seconds; None for a run that is
            no coroutine.
        """
        now, ended = self._now(self._clock), self._ended  # In this order, too.
        after = dict(ended.tasks[max(mark.ended - ended.forgotten, 0) :]) | now
        spent = {task: used.since(mark.used.get(task)) for task, used in after.items() if task[0] != own}
        loop = {task: kept.get(task, 0.0) for task in spent if after[task].is_async} if kept is not None else {}
        most = sorted(
            (task for task in spent if max(spent[task], loop.get(task, 0.0)) >= _LEAST_S),
            key=lambda task: (-loop.get(task, 0.0), -spent[task]),
        )
        return [
            {
                "task_id": after[task].task_id,
                "actor_name": after[task].actor_name,
                "cpu_ms": round(max(spent[task], 0.0) * 1000, 3),
                "loop_ms": round(loop[task] * 1000, 3) if task in loop else None,
            }
            for task in most[:MAX_LISTED]
        ]

    def _now(self, clock: Callable[[int], float]) -> dict[Task, Used]:
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
        return found | {ended.task: ended.used for ended in tuple(self._coroutines_ended)}

    def _used(
        self, task: Task, processed: tuple[Any, Hashable], earlier: Used | None, clock: Callable[[int], float]
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


def bounded(listed: Sequence[NeighbourDocument], loop_wait_ms: float) -> list[NeighbourDocument]:
    """Returns: The neighbours of a run that together kept the event loop no longer than the run waited for it.

    Who kept the loop is counted from look to look; for how long the run waited is known better.
    """
    whole_ms = sum(other["loop_ms"] or 0.0 for other in listed)
    share = min(loop_wait_ms / whole_ms, 1.0) if whole_ms else 1.0
    found: list[NeighbourDocument] = [
        {**other, "loop_ms": None if other["loop_ms"] is None else round(other["loop_ms"] * share, 3)}
        for other in listed
    ]
    return [other for other in found if max(other["cpu_ms"], other["loop_ms"] or 0.0) >= _LEAST_S * 1000]


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
