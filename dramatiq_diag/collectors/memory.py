"""`memory`: records the RSS of the process over time, as a text that gnuplot plots."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ..text import MIB
from .base import Collector, Options, Recording, RunContext
from .interval import IntervalRecording

HEADER = "# Seconds since task start\tTask Process Megabytes (MB)\n"

#: The time of the first sample after the start. Until `EARLY_S` a sample is taken whenever the time has doubled.
FIRST_S = 0.05
EARLY_S = 2.0
#: A look that is early by so many seconds at most still counts.
_SLACK_S = 0.005

#: A look becomes a sample if its RSS differs from the last sample by this share of it, and by these bytes.
STEP_SHARE = 0.05
STEP_BYTES = 8 * MIB

#: The number of such samples that any log may have; beyond it there is at most one for each sample of the interval.
FREE_SAMPLES = 100


class MemoryOptions(Options):
    """Options of `memory`."""

    interval: Annotated[float, Field(ge=0.01, le=86400)] | None = None
    "Seconds between samples; without it DRAMATIQ_DIAG_MEMORY_INTERVAL."


class MemoryCollector(Collector):
    """`memory`: the RSS at the start, every `memory_interval` seconds, at the end, and when it changes much.

    Note:
      The RSS is that of the process, and includes the memory of its other threads; see `overlapped_task_ids` of a run.
    """

    name = "memory"
    artifact_name = "memory_profile"
    filename = "memory.datum"
    media_type = "text/plain"
    options_class = MemoryOptions

    def record(self, run: RunContext) -> Recording:
        asked_s = run.options(self).interval
        return _MemoryRecording(self, run, self.settings.memory_interval if asked_s is None else asked_s)


class _MemoryRecording(IntervalRecording):
    """Adds samples to those of the interval, from the looks that the run takes many times a second.

    One is added in the first seconds whenever the time since the start has doubled, for tasks that are killed early;
    and whenever the RSS is far from the last sample, for the peak, and for the last moment before a kill.
    """

    def __init__(self, collector: Collector, run: RunContext, interval_s: float) -> None:
        super().__init__(collector, run, interval_s)
        self._last_s = 0.0
        self._last_bytes = self._peak_bytes = 0
        self._unwritten: tuple[float, int] | None = None
        "Seconds and bytes of the largest look since the last sample, if it was larger than all samples."
        self._regular_count = self._more_count = 0

    def start(self) -> None:
        super().start()
        self.run.follow_rss(self._look)

    def sample(self) -> None:
        self._regular_count += 1
        # The run itself has just read the RSS at its start and at its end.
        rss_bytes = self.run.last_rss_bytes if self.run.is_executing else self.run.first_rss_bytes
        if rss_bytes is None:
            rss_bytes = self.collector.services.rss.rss_bytes()
        self._write(self.run.elapsed_s, rss_bytes)

    def _look(self, rss_bytes: int) -> None:
        with self._lock:
            if self._stopped:
                return
            elapsed_s = self.run.elapsed_s
            if self._is_worth_a_sample(elapsed_s, rss_bytes):
                self._more_count += 1
                self._write(elapsed_s, rss_bytes)
            elif rss_bytes > (self._peak_bytes if self._unwritten is None else self._unwritten[1]):
                self._unwritten = elapsed_s, rss_bytes

    def _is_worth_a_sample(self, elapsed_s: float, rss_bytes: int) -> bool:
        if elapsed_s < EARLY_S and elapsed_s + _SLACK_S >= max(FIRST_S, 2 * self._last_s):
            return True
        if rss_bytes - self._peak_bytes >= _step_of(self._peak_bytes):
            return True  # Each is a twentieth above the last one, so there are few.
        is_far = abs(rss_bytes - self._last_bytes) >= _step_of(self._last_bytes)
        return is_far and self._more_count < FREE_SAMPLES + self._regular_count

    def _write(self, elapsed_s: float, rss_bytes: int) -> None:
        text = "" if self._peak_bytes else HEADER
        peak_bytes = max(self._peak_bytes, rss_bytes)
        if self._unwritten is not None and self._unwritten[1] > peak_bytes:
            text += _line(*self._unwritten)
            peak_bytes = self._unwritten[1]
        is_higher, self._peak_bytes = peak_bytes > self._peak_bytes, peak_bytes
        self._unwritten, self._last_s, self._last_bytes = None, elapsed_s, rss_bytes
        self.run.append_text(
            self.collector, text + _line(elapsed_s, rss_bytes), peak_rss_bytes=peak_bytes if is_higher else None
        )


def _step_of(rss_bytes: int) -> float:
    """Returns: The difference to this RSS, in bytes, that is worth a sample."""
    return max(STEP_SHARE * rss_bytes, STEP_BYTES)


def _line(elapsed_s: float, rss_bytes: int) -> str:
    return f"{elapsed_s:.3f}\t{rss_bytes / MIB:.3f}\n"
