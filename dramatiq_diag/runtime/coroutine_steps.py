"""Measures the CPU time and the duration of a coroutine's own steps on the thread of the event loop."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
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

    __slots__ = ("began_s", "coroutine", "cpu_s", "ended_s", "steps_s", "waits_since_s", "waits_until_s")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.cpu_s = 0.0
        "The CPU time of the steps so far, in seconds."
        self.steps_s = 0.0
        "How long they took, in seconds."
        self.began_s: float | None = None
        "When the first one began, by `time.perf_counter`."
        self.ended_s: float | None = None
        "When the one ended that was the last."
        self.waits_since_s = 0.0
        "When the latest one ended; 0 before that."
        self.waits_until_s: float | None = None
        "When the first one began after this was set to None."

    @property
    def steps(self) -> CoroutineSteps:
        """What its steps took up to now."""
        return CoroutineSteps(self.cpu_s, self.steps_s, self.began_s, self.ended_s)

    def send(self, value: Any) -> Any:
        began_s, began_cpu_s, is_last = self._begin(), thread_time(), True
        try:
            yielded = self.coroutine.send(value)
            is_last = False
            return yielded
        finally:
            self._end(began_s, began_cpu_s, is_last=is_last)

    def throw(self, *exception: Any) -> Any:
        began_s, began_cpu_s, is_last = self._begin(), thread_time(), True
        try:
            yielded = self.coroutine.throw(*exception)
            is_last = False
            return yielded
        finally:
            self._end(began_s, began_cpu_s, is_last=is_last)

    def _begin(self) -> float:
        """Returns: When a step began, which is now."""
        began_s = perf_counter()
        if self.waits_until_s is None:
            self.waits_until_s = began_s
        if self.began_s is None:
            self.began_s = began_s
        return began_s

    def _end(self, began_s: float, began_cpu_s: float, *, is_last: bool) -> None:
        self.cpu_s += thread_time() - began_cpu_s
        self.waits_since_s = ended_s = perf_counter()
        self.steps_s += ended_s - began_s
        if is_last:
            self.ended_s = ended_s

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
