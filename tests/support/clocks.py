"""Time as a test wants it: seconds that it sets, and CPU time that it spends."""

from __future__ import annotations

import time


class Clock:
    """A clock that a test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def burn(cpu_s: float) -> None:
    """Uses CPU time: where a thread has to wait for a processor, all parts of a task last longer in proportion."""
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        pass
