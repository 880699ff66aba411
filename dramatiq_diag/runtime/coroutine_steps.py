"""Measures the CPU time and the duration of a coroutine's own steps on the thread of the event loop."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from time import perf_counter, thread_time
from typing import Any


class MeasuredCoroutine(Coroutine[Any, Any, Any]):
    """Stands before a coroutine and forwards each step to it.

    Parameters:
      coroutine: The coroutine.

    Note:
      What it awaits runs within its steps, so that is counted. A task that it creates has steps of its own.
    """

    __slots__ = ("coroutine", "cpu_s", "steps_s", "waits_since_s", "waits_until_s")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.cpu_s = 0.0
        "The CPU time of the steps so far, in seconds."
        self.steps_s = 0.0
        "How long they took, in seconds."
        self.waits_since_s = 0.0
        "When the last one ended, by `time.perf_counter`; 0 before that."
        self.waits_until_s: float | None = None
        "When the first one began after this was set to None."

    def send(self, value: Any) -> Any:
        began_s, began_cpu_s = perf_counter(), thread_time()
        if self.waits_until_s is None:
            self.waits_until_s = began_s
        try:
            return self.coroutine.send(value)
        finally:
            self.cpu_s += thread_time() - began_cpu_s
            self.waits_since_s = ended_s = perf_counter()
            self.steps_s += ended_s - began_s

    def throw(self, *exception: Any) -> Any:
        began_s, began_cpu_s = perf_counter(), thread_time()
        if self.waits_until_s is None:
            self.waits_until_s = began_s
        try:
            return self.coroutine.throw(*exception)
        finally:
            self.cpu_s += thread_time() - began_cpu_s
            self.waits_since_s = ended_s = perf_counter()
            self.steps_s += ended_s - began_s

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
