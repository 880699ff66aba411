"""`resources`: records the CPU time, switches, I/O, files and threads of the process over time, as a table."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Annotated

import psutil
from pydantic import Field

from .base import Collector, CollectorSettings, Options, Recording, RunContext
from .interval import IntervalRecording

#: The columns. Counters start at 0 with the run; open files and threads are current values.
HEADER = (
    "elapsed_seconds,cpu_user_seconds,cpu_system_seconds,voluntary_context_switches,involuntary_context_switches,"
    "read_bytes,written_bytes,open_files,threads\n"
)

_Figure = float | None

#: Errors of psutil if the platform has no such figure, or does not disclose it.
_NO_FIGURE = (psutil.Error, NotImplementedError, AttributeError, OSError)


class ResourcesOptions(Options):
    """Options of `resources`."""

    interval: Annotated[float, Field(ge=0.01, le=86400)] | None = None
    "Seconds between samples; without it DRAMATIQ_DIAG_RESOURCES_INTERVAL."


class ResourcesCollector(Collector):
    """`resources`: CPU time, context switches, I/O, open files and threads, every `resources_interval` seconds.

    Note:
      The figures are those of the process, and include its other threads. A figure that the platform lacks is an empty
      cell.
    """

    name = "resources"
    artifact_name = "resources_profile"
    filename = "resources.csv"
    media_type = "text/csv"
    options_class = ResourcesOptions

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        # Made after the fork, as it holds the process id.
        self._process = psutil.Process()

    def record(self, run: RunContext) -> Recording:
        asked_s = run.options(self).interval
        return _ResourcesRecording(self, run, self.settings.resources_interval if asked_s is None else asked_s)

    def counters(self) -> list[_Figure]:
        """Returns: The figures that only grow: seconds of CPU time, switches, bytes."""
        # psutil reads switches from /proc/self/status, which has those of the first thread alone.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [
            usage.ru_utime,
            usage.ru_stime,
            usage.ru_nvcsw,
            usage.ru_nivcsw,
            *self._figures(lambda: self._process.io_counters()[2:4], 2),
        ]

    def gauges(self) -> list[_Figure]:
        """Returns: The current figures: open files, threads."""
        return [
            *self._figures(lambda: (self._process.num_fds(),), 1),
            *self._figures(lambda: (self._process.num_threads(),), 1),
        ]

    def _figures(self, read: Callable[[], tuple[float, ...]], count: int) -> list[_Figure]:
        try:
            return list(read())
        except _NO_FIGURE:
            return [None] * count


class _ResourcesRecording(IntervalRecording):
    collector: ResourcesCollector
    first: list[_Figure] | None = None

    def sample(self) -> None:
        counters = self.collector.counters()
        before = "" if self.first is not None else HEADER
        first = self.first = self.first or counters
        cells = [self.run.elapsed_s, *map(_since, first, counters), *self.collector.gauges()]
        self.run.append_text(self.collector, f"{before}{','.join(map(_cell, cells))}\n")


def _since(first: _Figure, now: _Figure) -> _Figure:
    return None if first is None or now is None else now - first


def _cell(figure: _Figure) -> str:
    if figure is None:
        return ""
    return f"{figure:.3f}" if isinstance(figure, float) else str(figure)
