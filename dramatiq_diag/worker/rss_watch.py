"""Reads the RSS of the process many times a second while tasks are diagnosed, so that few peaks are missed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial

from ..collectors.services import Services
from ..errors import GUARDED
from ..runtime.ticker import Timer
from .late_start import LOOK_INTERVAL_S
from .run import Run

#: Seconds between looks. A look costs about 15 us and serves all runs.
RSS_INTERVAL_S = 0.05

#: After so many looks without a run the timer ends, until the next run: a process that executes one short task after
#: the other keeps its timer.
_IDLE_LOOKS = 20


class RssWatch:
    """Has one timer for all runs of a process, and none while nothing is diagnosed.

    Parameters:
      services: The ticker, the clock and the RSS reader of the process.
      runs: Thread id -> the diagnosed run on it.
      look_further: Called with the runs every `LOOK_INTERVAL_S` seconds, on the ticker's thread.
    """

    def __init__(
        self, services: Services, runs: Mapping[int, Run], look_further: Callable[[tuple[Run, ...]], None]
    ) -> None:
        self._services = services
        self._runs = runs
        self._look_further = look_further
        self._lock = threading.Lock()
        self._timer: Timer | None = None
        self._idle_looks = 0
        self._note_state_at = 0.0

    def wake(self) -> None:
        """Adds the timer if there is none. Runs on a task's thread, after its run was registered."""
        if self._timer is None:
            self._begin()

    def _begin(self) -> None:
        with self._lock:
            if self._timer is None:
                self._idle_looks = 0
                self._note_state_at = self._services.clock() + LOOK_INTERVAL_S
                timer = Timer(RSS_INTERVAL_S, _nothing)
                timer.call = partial(self._look, timer)
                # If an interrupt strikes between these two, the timer ends itself and the next run adds another.
                self._services.ticker.add(timer)
                self._timer = timer

    # The rest runs on the ticker's thread.

    def _look(self, timer: Timer) -> None:
        with self._lock:
            is_ours = timer is self._timer
        runs = tuple(self._runs.values())
        self._idle_looks = 0 if runs else self._idle_looks + 1
        if not is_ours or self._idle_looks > _IDLE_LOOKS:
            self._end(timer)
        elif runs:
            self._show(runs)

    def _end(self, timer: Timer) -> None:
        timer.cancel()
        with self._lock:
            if self._timer is timer:
                self._timer = None
        if self._runs:  # A run that began just now saw the timer and added none.
            self.wake()

    def _show(self, runs: tuple[Run, ...]) -> None:
        try:
            rss_bytes = self._services.rss.rss_bytes()
            for run in runs:
                run.look(rss_bytes)
        except GUARDED as error:  # As when a task uses up all descriptors: the next look may succeed.
            self._services.warn_once(("rss", type(error)), error, "The RSS could not be looked at.")
        if (now := self._services.clock()) >= self._note_state_at:
            self._note_state_at = now + LOOK_INTERVAL_S
            self._look_further(runs)


def _nothing() -> None:
    """Is replaced by a call that needs the timer itself."""
