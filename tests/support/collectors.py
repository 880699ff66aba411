"""What collectors promise, work for them, and what they leave."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import memray

#: Collector -> the key, the file and the media type of its artifact, and its stored format.
CONTRACT = {
    "memory": ("memory_profile", "memory.datum", "text/plain", None),
    "memray": ("memray_profile", "memray.bin", "application/octet-stream", None),
    "pyinstrument": ("pyinstrument_profile", "pyinstrument.html", "text/html", "pyinstrument.session.json"),
    "logs": ("task_logs", "task.log", "text/plain", None),
    "debug-logs": ("task_logs", "task.log", "text/plain", None),
    "accounting": ("time_accounting", "accounting.json", "application/json", None),
    "resources": ("resources_profile", "resources.csv", "text/csv", None),
}


def spin(seconds: float) -> int:
    """Keeps the processor busy in pure Python, and says so; what other processes take of it does not count."""
    count = 0
    logging.getLogger(__name__).warning("Spins.")
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        count += 1
    return count


def rows_in_spool(tasks: Any, artifact_name: str) -> int:
    """Returns: How many pieces of an artifact the run of this thread has written so far."""
    run = tasks.diagnostics.process.runs[threading.get_ident()]
    return sum(record.get("to") == artifact_name for record in run.entry.records())


# memory.


def rows_of(text: str) -> list[tuple[float, float]]:
    return [tuple(map(float, line.split("\t"))) for line in text.splitlines() if not line.startswith("#")]  # type: ignore[misc]


def parse_pages(seconds: float) -> None:
    spin(seconds)


def mixed_work() -> None:
    parse_pages(0.2)
    time.sleep(0.1)


def peak_of(path: Any) -> tuple[Any, dict[str, int], dict[int, int]]:
    """Returns: The metadata, function -> bytes held at the peak below it, thread -> bytes held at the peak."""
    by_function: dict[str, int] = {}
    by_thread: dict[int, int] = {}
    with memray.FileReader(path) as reader:
        for record in reader.get_high_watermark_allocation_records(merge_threads=False):
            by_thread[record.tid] = by_thread.get(record.tid, 0) + record.size
            for function in {frame[0] for frame in record.stack_trace()}:
                by_function[function] = by_function.get(function, 0) + record.size
        return reader.metadata, by_function, by_thread
