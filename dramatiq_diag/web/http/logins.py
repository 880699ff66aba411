"""Counts wrong API tokens by address, and limits how fast they can be tried."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

#: The wrong tokens that an address may send at once, and the seconds after which each of them is forgiven.
MAX_FAILURES = 20
REFILL_S = 3.0

#: The most addresses in memory; beyond that, the one that failed longest ago is dropped.
_MAX_ADDRESSES = 1000

#: The least seconds between two lines in the log.
_LOG_INTERVAL_S = 10.0


class FailedLogins:
    """Counts failures by address, within bounded memory and without blocking a thread.

    Parameters:
      clock: Gives seconds that only grow.

    Note:
      All requests through one proxy have the address of the proxy.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        # Address -> the time when all of its failures are forgiven. The last one to fail stands last.
        self._forgiven_at_s: dict[str, float] = {}
        self._logged_at_s = -math.inf
        self._unlogged = 0

    def wait_s(self, address: str) -> int:
        """Returns: The whole seconds after which this address may try again; 0 if it may do so now."""
        with self._lock:
            over_s = self._forgiven_at_s.get(address, 0.0) - self._clock() - (MAX_FAILURES - 1) * REFILL_S
        return max(math.ceil(over_s), 0)

    def add(self, address: str) -> int | None:
        """Counts a failure.

        Returns:
          None if it is too early for a line in the log; otherwise the number of failures without one since the last.
        """
        with self._lock:
            now_s = self._clock()
            self._forgiven_at_s[address] = max(self._forgiven_at_s.pop(address, now_s), now_s) + REFILL_S
            if len(self._forgiven_at_s) > _MAX_ADDRESSES:
                del self._forgiven_at_s[next(iter(self._forgiven_at_s))]
            if now_s - self._logged_at_s < _LOG_INTERVAL_S:
                self._unlogged += 1
                return None
            unlogged, self._unlogged, self._logged_at_s = self._unlogged, 0, now_s
            return unlogged
