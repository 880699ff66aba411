"""Measures the CPU time and the duration of a coroutine's own steps on the thread of the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from time import perf_counter, thread_time
from typing import Any, NamedTuple


class CoroutineSteps(NamedTuple):
    """What the steps of a coroutine took up to a moment. The times are those of `time.perf_counter`."""

    cpu_s: float
    "The CPU time of its steps, in seconds."
    steps_s: float
    "How long they took, in seconds."
    began_s: float | None
    "When its first step began; None before that."
    ended_s: float | None
    "When its last step ended; None before that."

    def outside_s(self, from_s: float, until_s: float) -> float:
        """Returns: How much of a time was before the first step or after the last one, in seconds."""
        before_s = (until_s if self.began_s is None else min(self.began_s, until_s)) - from_s
        after_s = 0.0 if self.ended_s is None else until_s - max(self.ended_s, from_s)
        return max(before_s, 0.0) + max(after_s, 0.0)


class MeasuredCoroutine(Coroutine[Any, Any, Any]):
    """Stands before a coroutine and forwards each step to it.

    Parameters:
      coroutine: The coroutine.

    Note:
      What it awaits runs within its steps, so that is counted. A task that it creates has steps of its own.
    """

    __slots__ = ("_counted", "began_s", "coroutine", "ended_s", "waits_since_s", "waits_until_s")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self._counted: tuple[float, float, tuple[float, float] | None] = (0.0, 0.0, None)
        """The CPU time and the duration of the steps that are over, in seconds; and both clocks at the beginning of the
        step that is under way. Other threads read all of it at once."""
        self.began_s: float | None = None
        "When the first step began, by `time.perf_counter`."
        self.ended_s: float | None = None
        "When the step ended that was the last."
        self.waits_since_s = 0.0
        "When the latest step ended; 0 before that."
        self.waits_until_s: float | None = None
        "When the first one began after this was set to None."

    @property
    def cpu_s(self) -> float:
        """The CPU time of the steps that are over, in seconds."""
        return self._counted[0]

    @property
    def steps_s(self) -> float:
        """How long they took, in seconds."""
        return self._counted[1]

    @property
    def steps(self) -> CoroutineSteps:
        """What the steps took that are over."""
        cpu_s, steps_s, _ = self._counted
        return CoroutineSteps(cpu_s, steps_s, self.began_s, self.ended_s)

    def steps_until(self, now_s: float, thread_cpu_s: Callable[[], float | None]) -> CoroutineSteps:
        """Returns: What the steps took up to now, also the one that is under way. Any thread may ask.

        Parameters:
          now_s: The time.
          thread_cpu_s: Gives the CPU time of the event loop's thread, in seconds; None where it is not known.
        """
        cpu_s, steps_s, step = counted = self._counted
        if step is not None:
            thread_s = thread_cpu_s()
            if self._counted is not counted:  # It went on meanwhile.
                cpu_s, steps_s, _ = self._counted
            else:
                cpu_s += 0.0 if thread_s is None else max(thread_s - step[1], 0.0)
                steps_s += max(now_s - step[0], 0.0)
        return CoroutineSteps(cpu_s, steps_s, self.began_s, self.ended_s)

    def send(self, value: Any) -> Any:
        step, is_last = self._begin(), True
        try:
            yielded = self.coroutine.send(value)
            is_last = False
            return yielded
        finally:
            self._end(step, is_last=is_last)

    def throw(self, *exception: Any) -> Any:
        step, is_last = self._begin(), True
        try:
            yielded = self.coroutine.throw(*exception)
            is_last = False
            return yielded
        finally:
            self._end(step, is_last=is_last)

    def _begin(self) -> tuple[float, float]:
        """Returns: The time and the thread's CPU time at the beginning of a step, which is now."""
        began_s = perf_counter()
        if self.waits_until_s is None:
            self.waits_until_s = began_s
        if self.began_s is None:
            self.began_s = began_s
        cpu_s, steps_s, _ = self._counted
        step = began_s, thread_time()
        self._counted = cpu_s, steps_s, step
        return step

    def _end(self, step: tuple[float, float], *, is_last: bool) -> None:
        spent_s = thread_time() - step[1]
        self.waits_since_s = ended_s = perf_counter()
        cpu_s, steps_s, _ = self._counted
        self._counted = cpu_s + spent_s, steps_s + ended_s - step[0], None
        self.ended_s = ended_s if is_last else None

    def close(self) -> None:
        self.coroutine.close()

    def __next__(self) -> Any:
        return self.send(None)

    def __iter__(self) -> MeasuredCoroutine:
        return self

    def __await__(self) -> Generator[Any, Any, Any]:
        return self

    def __getattr__(self, name: str) -> Any:
        """Returns: What the coroutine has besides, as `cr_frame`, for code that looks at what is awaited."""
        return getattr(self.coroutine, name)
