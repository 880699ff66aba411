"""Takes samples at the start of a run, at intervals, and at its end."""

from __future__ import annotations

import threading

from ..runtime.ticker import Timer
from .base import Collector, Recording, RunContext


class IntervalRecording(Recording):
    """Calls `sample` on the task's thread at start and end, and on the ticker's in between; never two at once.

    Parameters:
      collector: The collector.
      run: The run.
      interval_s: Seconds between samples.
    """

    runs_inline = True

    def __init__(self, collector: Collector, run: RunContext, interval_s: float) -> None:
        self.collector = collector
        self.run = run
        self._timer = Timer(interval_s, self._tick)
        self._lock = threading.Lock()
        self._stopped = False

    def sample(self) -> None:
        """Takes a sample, at `run.elapsed_s`."""
        raise NotImplementedError

    def start(self) -> None:
        self.sample()
        self.collector.services.ticker.add(self._timer)

    def stop(self) -> None:
        self._timer.cancel()
        with self._lock:
            if not self._stopped:
                self.sample()
            self._stopped = True

    def end_early(self, reason: str) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        with self._lock:
            if self._stopped:
                return
            try:
                self.sample()
            except OSError as error:  # As when a task uses up all descriptors: the next sample may succeed.
                key = "sample", self.collector.name, type(error)
                warning = "A sample of the collector %r could not be taken."
                self.collector.services.warn_once(key, error, warning, self.collector.name)
