"""Estimates which of the threads that are seen in the GIL's futex really waited for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Mapping

from ...runtime.thread_state import cpu_s
from .calls import GIL

#: A thread that used the CPU for a smaller part of the time did not have the GIL, most likely.
_LEAST_SHARE = 0.02


class GilChances:
    """The CPU times of the threads of late, and what follows from them.

    The thread that asks has the GIL at that moment, so one of the others had it before. The more of the CPU time a
    thread used of late, the more likely it was that one.
    """

    def __init__(self) -> None:
        self._clocks: dict[int, float] = {}
        "Native id of a thread -> its CPU time at the last reading."
        self._used: dict[int, float] = {}
        "Native id of a thread, but for the one that asks -> the CPU time that it used between the last two readings."

    def read_clocks(self, native_ids: set[int]) -> None:
        """Reads the CPU times of threads."""
        before, self._clocks = self._clocks, {each: cpu_s(each) or 0.0 for each in native_ids}
        self._used = {each: max(now_s - before.get(each, now_s), 0.0) for each, now_s in self._clocks.items()}
        self._used.pop(threading.get_native_id(), None)

    def of(self, keys: Mapping[int, Hashable], key_of: Callable[[int], Hashable]) -> dict[int, float]:
        """Returns: Native id of each thread that is seen in the GIL's futex -> the chance that it really waited.

        Parameters:
          keys: Native id of each thread that was looked at -> the key of its call; see `Calls`.
          key_of: Looks at another thread, and returns the key of its call.
        """
        asking = [native_id for native_id, key in keys.items() if key == GIL]
        if not asking:
            return {}
        least_s = _LEAST_SHARE * sum(self._used.values())
        busy = [each for each, used_s in self._used.items() if used_s > least_s and each not in keys]
        asking += [each for each in busy if key_of(each) == GIL]
        if len(asking) == 1:  # Either it had the GIL, or it waits for this thread; or the one that had it blocks now.
            return {asking[0]: float(self._used[asking[0]] <= least_s and bool(busy))}
        whole_s = sum(self._used.get(native_id, 0.0) for native_id in asking)
        return {each: 1.0 - self._used.get(each, 0.0) / whole_s if whole_s > 0 else 1.0 for each in asking}
