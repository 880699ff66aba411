"""One thread per process for everything that happens at intervals while tasks run."""

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

#: Timers that were added and that the thread has not seen yet; with more it is woken.
_MAX_ADDED = 1000

#: From this many timers on, those that were cancelled are looked for.
_MIN_PURGED = 256


class Timer:
    """A repeated call, once it is added to a `Ticker`; errors are logged once, then it is cancelled.

    Parameters:
      interval_s: Seconds between calls; when a call comes late the next keeps to the grid.
      call: Must be short, as all timers share the thread.
    """

    __slots__ = ("call", "due", "interval_s")

    def __init__(self, interval_s: float, call: Callable[[], None]) -> None:
        self.interval_s = interval_s
        self.call: Callable[[], None] | None = call
        "None once it is cancelled: a timer may be due much later, and must not keep its run until then."
        self.due = 0.0

    def cancel(self) -> None:
        """Ends the calls; one that is under way is not waited for."""
        self.call = None

    @property
    def cancelled(self) -> bool:
        """Whether it is not called any more."""
        return self.call is None

    def __lt__(self, other: Timer) -> bool:
        return self.due < other.due


class Ticker:
    """Calls timers on one thread.

    The threads of tasks add timers and cancel them. An interrupt of Dramatiq's may strike there after any call, and
    `threading.Condition` then keeps its lock for ever. So they take no lock here: a `deque` and a `SimpleQueue` do each
    step in C.

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
        "When the thread wakes up by itself; it looks at what was added before it sleeps."
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.ticker", daemon=True)

    def __len__(self) -> int:
        return len(self._timers) + len(self._added)

    def start(self) -> None:
        """Starts the thread. Not for threads of tasks: `Thread.start` waits for an event, which has a condition."""
        self._thread.start()

    def add(self, timer: Timer) -> None:
        """Calls the timer after each of its intervals, from now until it is cancelled."""
        timer.due = self._clock() + timer.interval_s
        self._added.append(timer)
        if timer.due < self._sleeps_until or len(self._added) > _MAX_ADDED:
            self._wakes.put(None)

    def call_soon(self, call: Callable[[], object]) -> None:
        """Makes a call on the ticker's thread, once; right here where this is that thread."""
        if threading.get_ident() == self._thread.ident:
            call()
            return
        self._soon.append(call)
        self._wakes.put(None)

    def stop(self) -> None:
        """Ends the thread and waits for it."""
        self._stopped = True
        self._wakes.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def turn(self) -> bool:
        """Calls the next timer if it is due. Returns: Whether there may be another one that is due."""
        while self._soon:
            self._guarded(self._soon.popleft())
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
        if not self._guarded(call):
            timer.cancel()
        return True

    def _guarded(self, call: Callable[[], object]) -> bool:
        """Returns: Whether the call did not raise."""
        try:
            call()
        except Exception:
            self.logger.warning("A timer failed and was ended.", exc_info=True)
            return False
        return True

    def _take_in(self) -> None:
        """Moves what was added into the heap; once half of the heap may be cancelled timers, removes those."""
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
        if (
            not self._added and not self._soon
        ):  # What is added from here on is compared with the moment that was just set.
            timeout_s = None if self._sleeps_until == math.inf else max(self._sleeps_until - self._clock(), 0.0)
            with suppress(queue.Empty):
                self._wakes.get(timeout=timeout_s)
        self._sleeps_until = -math.inf
