"""Calls functions at intervals, on one thread per process."""

from __future__ import annotations

import heapq
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from .loggers import get_logger

#: The most added timers that wait until the thread wakes up by itself; with more of them it is woken.
_MAX_ADDED = 1000

#: Cancelled timers are removed only when there are more timers than this.
_MIN_PURGED = 256


class Timer:
    """A repeated call by a `Ticker`. After an error it goes on, as the next call may succeed; the first is logged.

    Parameters:
      interval_s: Seconds between calls. A late call does not move the later ones.
      call: Must be short, as all timers share the thread.
    """

    __slots__ = ("call", "due", "has_failed", "interval_s")

    def __init__(self, interval_s: float, call: Callable[[], None]) -> None:
        self.interval_s = interval_s
        self.call: Callable[[], None] | None = call
        "None once it is cancelled: the timer may be due much later, and must not keep its run alive until then."
        self.due = 0.0
        self.has_failed = False

    def cancel(self) -> None:
        """Ends the calls, without waiting for one that is under way."""
        self.call = None

    @property
    def cancelled(self) -> bool:
        """Whether the calls have ended."""
        return self.call is None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Ticker:
    """Calls timers on one thread.

    The threads of tasks add and cancel timers, so this takes no lock there; see `runtime.interrupts`.

    Parameters:
      clock: Gives the time in seconds; it must not go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.logger = get_logger(__name__, type(self))
        self._clock = clock
        self._timers: list[Timer] = []
        "A heap, which only the ticker's thread touches."
        self._purge_at = _MIN_PURGED
        self._added: deque[Timer] = deque()
        self._soon: deque[Callable[[], object]] = deque()
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._sleeps_until = -math.inf
        "The time at which the thread wakes up by itself. It looks at added timers before it sleeps."
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.ticker", daemon=True)

    def __len__(self) -> int:
        return len(self._timers) + len(self._added)

    def start(self) -> None:
        """Starts the thread. Not for threads of tasks: `Thread.start` waits for an event, which has a condition."""
        self._thread.start()

    def add(self, timer: Timer) -> None:
        """Calls the timer at its intervals, until it is cancelled."""
        timer.due = self._clock() + timer.interval_s
        self._added.append(timer)
        if timer.due < self._sleeps_until or len(self._added) > _MAX_ADDED:
            self._wakes.put(None)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Makes a call on the ticker's thread, once; at once if this is that thread."""
        if threading.get_ident() == self._thread.ident:
            call()
            return
        self._soon.append(call)
        self._wakes.put(None)

    def stop(self, timeout_s: float | None = None) -> None:
        """Ends the thread, and waits for it; for so long at most, as a timer may wait for a disk."""
        self._stopped = True
        self._wakes.put(None)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def turn(self) -> bool:
        """Calls the next timer if it is due. Returns: True if another one may be due; False if none is."""
        while self._soon:
            self._call_once(self._soon.popleft())
        self._take_in()
        now = self._clock()
        if not self._timers or self._timers[0].due > now:
            return False
        timer = self._timers[0]
        call = timer.call
        if call is None:
            heapq.heappop(self._timers)
            return True
        missed = int((now - timer.due) / timer.interval_s)
        timer.due += (missed + 1) * timer.interval_s
        heapq.heapreplace(self._timers, timer)
        try:
            call()
        except BaseException:  # As of a task that has patched a function of the standard library.
            if not timer.has_failed:
                timer.has_failed = True
                self.logger.warning("A timer failed and goes on; it logs no further failure.", exc_info=True)
        return True

    def _call_once(self, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException:
            self.logger.warning("A call on the ticker's thread failed.", exc_info=True)

    def _take_in(self) -> None:
        """Moves added timers into the heap, and removes cancelled ones when half of the heap may be cancelled."""
        while self._added:
            timer = self._added.popleft()
            if not timer.cancelled:
                heapq.heappush(self._timers, timer)
        if len(self._timers) > self._purge_at:
            self._timers = [timer for timer in self._timers if not timer.cancelled]
            heapq.heapify(self._timers)
            self._purge_at = max(2 * len(self._timers), _MIN_PURGED)

    def _run(self) -> None:
        while not self._stopped:
            if not self.turn():
                self._sleep()

    def _sleep(self) -> None:
        """Waits until a timer is due, or one is added that is due before that."""
        self._sleeps_until = self._timers[0].due if self._timers else math.inf
        # A timer that is added from here on is compared with `_sleeps_until`.
        if not self._added and not self._soon:
            timeout_s = None if self._sleeps_until == math.inf else max(self._sleeps_until - self._clock(), 0.0)
            with suppress(queue.Empty):
                self._wakes.get(timeout=timeout_s)
        self._sleeps_until = -math.inf
