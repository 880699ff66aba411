"""Runs the thread of a sampler: it samples while there is something to sample, and sleeps otherwise."""

from __future__ import annotations

import queue
import threading
import time
from typing import Generic, Protocol, TypeVar

from .wakeup import wake_promptly


class Sampled(Protocol):
    """What is sampled for one run."""

    last_s: float
    "When the sampling began, by `time.perf_counter`; the sampler moves it on."


T = TypeVar("T", bound=Sampled)


class SamplingThread(Generic[T]):
    """A daemon thread for all that a sampler samples. The threads of tasks add and remove; see `runtime.interrupts`.

    Parameters:
      name: The last part of the thread's name.
    """

    def __init__(self, name: str) -> None:
        self.sampled: frozenset[T] = frozenset()
        "What is sampled now."
        self._lock = threading.Lock()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_idle = False
        "Whether it waits for something to sample."
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name=f"dramatiq_diag.{name}", daemon=True)

    @property
    def is_wanted(self) -> bool:
        """Whether there is something to sample."""
        return bool(self.sampled) and not self._stopped

    def start(self) -> None:
        """Starts the thread. Not for threads of tasks: `Thread.start` waits for an event, which has a condition."""
        self._thread.start()

    def add(self, sampled: T) -> None:
        """Begins to sample something."""
        sampled.last_s = time.perf_counter()
        with self._lock:
            self.sampled |= {sampled}
        if self.is_idle:
            self._wakes.put(None)

    def remove(self, sampled: T) -> None:
        """Ends the sampling of something; may be called again."""
        with self._lock:
            self.sampled -= {sampled}

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stopped = True
        self._wakes.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def sample_all(self) -> None:
        """Samples until `is_wanted` is False. It raises nothing."""
        raise NotImplementedError

    def _run(self) -> None:
        wake_promptly()
        while self._wait():
            self.sample_all()

    def _wait(self) -> bool:
        """Returns: True when there is something to sample; False at the end."""
        self.is_idle = True
        while not self.sampled and not self._stopped:  # `add` sees from here on that it is idle.
            self._wakes.get()
        self.is_idle = False
        return not self._stopped
