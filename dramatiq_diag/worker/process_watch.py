"""Looks many times a second at the memory of the process and the triggers of its runs, while tasks are diagnosed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from ..collectors.services import Services
from ..errors import GUARDED
from ..runtime.memory_state import MemoryStateReader
from ..runtime.ticker import Timer
from ..spool.directory import Spool
from .gil_stalls import GilStalls
from .growth_watch import GrowthWatch
from .run import Run
from .tuning import Tuning

#: After so many looks without a run the timer ends, until the next run: a process that executes one short task after
#: the other keeps its timer.
_IDLE_LOOKS = 20

_NOT_NOTED = "It could not be noted which runs grow the process."


class ProcessWatch:
    """Has one timer for all runs of a process, and none while nothing is diagnosed.

    Parameters:
      runs: Thread id -> the diagnosed run on it.
      stalls: Looks whether C code kept the GIL.
    """

    def __init__(
        self, services: Services, spool: Spool, runs: Mapping[int, Run], stalls: GilStalls, tuning: Tuning
    ) -> None:
        self._services = services
        self._spool = spool
        self._runs = runs
        self._stalls = stalls
        self._tuning = tuning
        self._memory = MemoryStateReader(services.rss)
        self._growth = GrowthWatch(services, spool, self._memory, tuning)
        self._lock = threading.Lock()
        self._timer: Timer | None = None
        self._idle_looks = 0
        self._note_state_at = 0.0

    def wake(self) -> None:
        """Adds the timer if there is none. Runs on a task's thread, after its run was registered."""
        if self._timer is not None:
            return
        with self._lock:
            if self._timer is None:
                self._idle_looks = 0
                self._services.counters.gc_clock.start()
                self._note_state_at = self._services.clock() + self._tuning.state_s
                timer = Timer(self._tuning.rss_s, _nothing)
                timer.call = partial(self._look, timer)
                # If an interrupt strikes between these two, the timer ends itself and the next run adds another.
                self._services.ticker.add(timer)
                self._timer = timer

    # The rest runs on the ticker's thread.

    def _look(self, timer: Timer) -> None:
        # First: a thread that kept the GIL goes on when this one waits for something.
        self._guarded(lambda: self._stalls.look(self._current_runs()), "It is not known whether C code kept the GIL.")
        if is_busy := bool(self._runs):
            self._services.counters.gc_clock.tidy()
        with self._lock:
            is_ours = timer is self._timer
        self._idle_looks = 0 if is_busy else self._idle_looks + 1
        if not is_ours or self._idle_looks > _IDLE_LOOKS:
            self._end(timer)
        elif is_busy:
            if (now := self._services.clock()) >= self._note_state_at:
                self._note_state_at = now + self._tuning.state_s
                self._guarded(self._note_state, "The state of the process could not be noted.")
            self._guarded(self._look_at_rss, "The RSS could not be looked at.")

    def _current_runs(self) -> tuple[Run, ...]:
        """Returns: The runs of this moment; more may have begun while this thread waited for the GIL."""
        return tuple(self._runs.values())

    def _end(self, timer: Timer) -> None:
        timer.cancel()
        self._stalls.rest()
        self._growth.rest()
        with self._lock:
            if self._timer is timer:
                self._timer = None
                if not self._runs:  # One that begins from here on finds no timer, and starts the clock again.
                    self._services.counters.gc_clock.stop()
        if self._runs:  # A run that began just now saw the timer and added none.
            self.wake()

    def _guarded(self, step: Callable[[], None], warning: str) -> None:
        try:
            step()
        except GUARDED as error:  # As when a task uses up all descriptors: the next look may succeed.
            self._services.warn_once((warning, type(error)), error, warning)

    def _note_state(self) -> None:
        """Writes the memory state of the process, so that a sudden death can be explained."""
        state = self._memory.read()
        runs = self._current_runs()
        self._guarded(lambda: self._growth.note(runs, state), _NOT_NOTED)
        for run in runs:
            run.note_memory_state(state)
        self._spool.write_state(time.time(), state)

    def _look_at_rss(self) -> None:
        rss_bytes = self._services.rss.rss_bytes()
        runs = self._current_runs()
        self._guarded(lambda: self._growth.look(runs, rss_bytes), _NOT_NOTED)
        for run in runs:
            run.look(rss_bytes)
        for run in runs:
            if run.late is not None:
                run.late.look(rss_bytes)


def _nothing() -> None:
    """Is replaced by a call that needs the timer itself."""
