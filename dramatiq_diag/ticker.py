"""One thread per process for everything that happens at intervals while tasks run."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from .logs import get_logger


class Timer:
    """A repeated call, once it is added to a `Ticker`; errors are logged once, then it is cancelled.

    Parameters:
      interval_s: Seconds between calls; when a call comes late the next keeps to the grid.
      call: Must be short, as all timers share the thread.
    """

    def __init__(self, interval_s: float, call: Callable[[], None]) -> None:
        self.interval_s = interval_s
        self.call = call
        self.due = 0.0
        self.cancelled = False

    def cancel(self) -> None:
        """Ends the calls; one that is under way is not waited for."""
        self.cancelled = True

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Ticker:
    """Calls timers on one thread, which begins with the first timer."""

    def __init__(self) -> None:
        self.logger = get_logger(__name__, type(self))
        self._timers: list[Timer] = []
        self._changed = threading.Condition(threading.Lock())
        self._thread: threading.Thread | None = None
        self._stopped = False

    def add(self, timer: Timer) -> None:
        """Calls the timer after each of its intervals, from now until it is cancelled."""
        timer.due = time.monotonic() + timer.interval_s
        with self._changed:
            heapq.heappush(self._timers, timer)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dramatiq_diag.ticker", daemon=True)
                self._thread.start()
            elif self._timers[0] is timer:
                self._changed.notify()

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join()

    def _run(self) -> None:
        while (timer := self._next()) is not None:
            try:
                timer.call()
            except Exception:
                timer.cancel()
                self.logger.warning("A timer failed and was ended.", exc_info=True)

    def _next(self) -> Timer | None:
        """Waits for the next timer. Returns: The timer, already put in for its next turn; None at the end."""
        with self._changed:
            while not self._stopped:
                if not self._timers:
                    self._changed.wait()
                    continue
                timer = self._timers[0]
                if timer.cancelled:
                    heapq.heappop(self._timers)
                    continue
                now = time.monotonic()
                if timer.due > now:
                    self._changed.wait(timer.due - now)
                    continue
                missed = int((now - timer.due) / timer.interval_s)
                timer.due += (missed + 1) * timer.interval_s
                heapq.heapreplace(self._timers, timer)
                return timer
            return None
