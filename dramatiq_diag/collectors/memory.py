"""`memory`: the RSS of the process over time, as a text that gnuplot plots."""

from __future__ import annotations

import time
from typing import Annotated

from pydantic import Field

from ..run import Run
from .base import Collector, Options, Recording
from .sampled import SampledRecording

HEADER = "# Seconds since task start\tTask Process Megabytes (MB)\n"

#: Bytes in a megabyte of the log, as Pulp's and most people's plots have it.
MEGABYTE = 1024 * 1024


class MemoryOptions(Options):
    """What a request may say of `memory`."""

    interval: Annotated[float, Field(ge=0.01, le=86400)] | None = None
    "Seconds between samples; without it DRAMATIQ_DIAG_MEMORY_INTERVAL."


class MemoryCollector(Collector):
    """`memory`: resident set size at the start, every `memory_interval` seconds and at the end.

    Note:
      RSS belongs to the process: what its other threads hold meanwhile is in it. A run's `overlapped_task_ids` tell.
    """

    name = "memory"
    artifact_name = "memory_profile"
    filename = "memory.datum"
    media_type = "text/plain"
    options_class = MemoryOptions

    def record(self, run: Run) -> Recording:
        asked_s = run.options(self).interval
        return _MemoryRecording(self, run, self.settings.memory_interval if asked_s is None else asked_s)


class _MemoryRecording(SampledRecording):
    peak_bytes = 0

    def sample(self) -> None:
        rss_bytes = self.collector.process.rss.rss_bytes()
        elapsed_s = time.perf_counter() - self.started
        before = "" if self.peak_bytes else HEADER
        self.peak_bytes = max(self.peak_bytes, rss_bytes)
        line = f"{before}{elapsed_s:.3f}\t{rss_bytes / MEGABYTE:.3f}\n"
        self.run.append_text(self.collector, line, peak_rss_bytes=self.peak_bytes)
