"""`resources`: what the process used over time, as a table."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Annotated

import psutil
from pydantic import Field

from .base import Collector, CollectorSettings, Options, Recording, RunContext
from .interval import IntervalRecording

#: The columns; those of what is counted begin at nought with the run, open files and threads are as they stand.
HEADER = (
    "elapsed_seconds,cpu_user_seconds,cpu_system_seconds,voluntary_context_switches,involuntary_context_switches,"
    "read_bytes,written_bytes,open_files,threads\n"
)

_Figure = float | None

#: What psutil raises where the platform has no such figure, or does not tell it.
_NO_FIGURE = (psutil.Error, NotImplementedError, AttributeError, OSError)


class ResourcesOptions(Options):
    """What a request may say of `resources`."""

    interval: Annotated[float, Field(ge=0.01, le=86400)] | None = None
    "Seconds between looks; without it DRAMATIQ_DIAG_RESOURCES_INTERVAL."


class ResourcesCollector(Collector):
    """`resources`: processor time, context switches, I/O, open files and threads, every `resources_interval` seconds.

    Note:
      They are the process's: what its other threads do meanwhile is in them. A figure that the platform does not have
      is an empty cell.
    """

    name = "resources"
    artifact_name = "resources_profile"
    filename = "resources.csv"
    media_type = "text/csv"
    options_class = ResourcesOptions

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        # The process asks for its own figures, so this is made after the fork.
        self._process = psutil.Process()

    def record(self, run: RunContext) -> Recording:
        asked_s = run.options(self).interval
        return _ResourcesRecording(self, run, self.settings.resources_interval if asked_s is None else asked_s)

    def counted(self) -> list[_Figure]:
        """Returns: What only grows: seconds of CPU time, switches, bytes."""
        # psutil has its switches from /proc/self/status, where those of the first thread stand alone.
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [
            usage.ru_utime,
            usage.ru_stime,
            usage.ru_nvcsw,
            usage.ru_nivcsw,
            *self._figures(lambda: self._process.io_counters()[2:4], 2),
        ]

    def standing(self) -> list[_Figure]:
        """Returns: What there is at the moment: open files, threads."""
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
        counted = self.collector.counted()
        before = "" if self.first is not None else HEADER
        first = self.first = self.first or counted
        cells = [self.run.elapsed_s, *map(_since, first, counted), *self.collector.standing()]
        self.run.append_text(self.collector, f"{before}{','.join(map(_cell, cells))}\n")


def _since(first: _Figure, now: _Figure) -> _Figure:
    return None if first is None or now is None else now - first


def _cell(figure: _Figure) -> str:
    if figure is None:
        return ""
    return f"{figure:.3f}" if isinstance(figure, float) else str(figure)
