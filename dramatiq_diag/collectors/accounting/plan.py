"""Plans the moments at which the C library reads the calls of threads."""

from __future__ import annotations

import random
from collections.abc import Collection

from ...runtime.timed_calls import TimedCalls

#: By how much the interval grows when all planned samples had passed before this thread had the GIL again, and what is
#: left of that after each turn. Where eight threads compete for the GIL it waits for eight switch intervals of 5 ms.
#: Samples that always began with its turn would see the same threads wait, and the same ones compute, each time.
_GROWS, _SHRINKS = 1.5, 0.99


class Plan:
    """The moments ahead: one in each interval, at a random place in it."""

    def __init__(self) -> None:
        self._uniform = random.Random().uniform  # noqa: S311 - no secret depends on it.
        self._until_s = 0.0
        "The end of the last planned interval, by `time.perf_counter`."
        self._stretch = 1.0
        "By how much an interval is longer than it has to be."

    def fill(self, planned: TimedCalls, native_ids: Collection[int], interval_s: float, now_s: float) -> None:
        """Plans as many moments as there is room for.

        Parameters:
          planned: Reads the calls.
          native_ids: The threads whose calls are read.
          interval_s: Seconds from one moment to the next on average, at least.
          now_s: The time by `time.perf_counter`.
        """
        ran_dry = 0.0 < self._until_s < now_s
        self._stretch = self._stretch * _GROWS if ran_dry else max(self._stretch * _SHRINKS, 1.0)
        for _ in range(planned.free):
            from_s = max(self._until_s, now_s)  # Nothing is planned for the past.
            self._until_s = from_s + interval_s * self._stretch
            planned.plan(self._uniform(from_s, self._until_s), self._until_s, native_ids)
