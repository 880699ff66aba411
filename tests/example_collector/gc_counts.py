"""`gc-counts`: how often the garbage collector ran while a task ran, and what it found."""

from __future__ import annotations

import gc
from typing import Annotated

from pydantic import Field

from dramatiq_diag.collectors import Collector, Options, Recording, RunContext


class GcCountsOptions(Options):
    """What a request may say of `gc-counts`."""

    from_generation: Annotated[int, Field(ge=0, le=2)] = 0
    "The youngest generation that is counted."


class GcCountsCollector(Collector):
    """`gc-counts`: collections, and objects that were collected, by generation; the process's, as `gc` has it."""

    name = "gc-counts"
    artifact_name = "gc_counts"
    filename = "gc.csv"
    media_type = "text/csv"
    options_class = GcCountsOptions

    def record(self, run: RunContext) -> Recording:
        return _GcCountsRecording(self, run)


class _GcCountsRecording(Recording):
    runs_inline = True

    def __init__(self, collector: GcCountsCollector, run: RunContext) -> None:
        self.collector = collector
        self.run = run
        self.from_generation = run.options(collector).from_generation
        self.before = self.after = gc.get_stats()

    def start(self) -> None:
        self.before = gc.get_stats()

    def stop(self) -> None:
        self.after = gc.get_stats()

    def save(self) -> None:
        rows = ["generation,collections,collected_objects"]
        for generation, (old, new) in enumerate(zip(self.before, self.after, strict=True)):
            if generation < self.from_generation:
                continue
            counts = [new[key] - old[key] for key in ("collections", "collected")]
            rows.append(",".join(map(str, [generation, *counts])))
        self.run.entry.write_file(self.collector.artifact_name, "\n".join([*rows, ""]))
