"""Measures the times of a run: when it was made, and when the actor's function was called and had returned."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class RunTimes:
    """The times of a run on its task's thread.

    Parameters:
      clock: Gives the time in seconds; it must not go back.
    """

    __slots__ = (
        "clock",
        "cpu_ended_s",
        "cpu_started_s",
        "ended",
        "is_executing",
        "made",
        "needs_cpu_time",
        "started",
        "started_at_s",
    )

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.made = clock()
        self.started_at_s = time.time()
        "When the function was called, in seconds since the epoch; before that, when the run was made."
        self.started = self.made
        "The same moment by `clock`."
        self.ended: float | None = None
        "When the function had returned, by `clock`; None before that."
        self.needs_cpu_time = False
        "Whether a recording needs the next two: to read the clock of a thread takes a system call."
        self.cpu_started_s = 0.0
        "The CPU time of the thread when the function was called; 0 before that."
        self.cpu_ended_s: float | None = None
        self.is_executing = False
        "Whether the function has been called. A collector that starts after that starts late, on another thread."

    def note_call(self) -> None:
        """Notes the call of the function, which comes next."""
        if self.needs_cpu_time:
            self.cpu_started_s = time.thread_time()
        self.started_at_s, self.started = time.time(), self.clock()
        self.is_executing = True

    @property
    def started_at(self) -> datetime:
        """When the function was called."""
        return datetime.fromtimestamp(self.started_at_s, UTC)

    @property
    def elapsed_s(self) -> float:
        """Seconds for which the function has been running, or ran; 0 before it is called."""
        if not self.is_executing:
            return 0.0
        return (self.clock() if self.ended is None else self.ended) - self.started
