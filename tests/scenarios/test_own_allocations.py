"""What our own threads hold while memray watches the process: it is in the report of the task, and must not matter."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

import dramatiq_diag
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually

#: What our threads may hold together at the peak of a tracked process, SQLAlchemy and json included.
BUDGET_BYTES = 2 * MIB

THREADS = 8
NEIGHBOURS = 16
_PACKAGE = str(Path(dramatiq_diag.__file__).parent)


def call_deep(depth: int, number: int) -> int:
    """Makes stacks that differ, for a profile with something in it."""
    return number if depth == 0 else call_deep(depth - 1, number * 7 % 1000) + len(str(number))


def held_by_our_threads(path: Path) -> tuple[int, int]:
    """Returns: The bytes that our threads hold at the peak of a capture, and those of the function `hold`."""
    memray = pytest.importorskip("memray")
    ours = held = 0
    with memray.FileReader(path) as reader:
        for record in reader.get_high_watermark_allocation_records(merge_threads=False):
            if record.allocator == memray.AllocatorType.MMAP:  # Python's arenas: what is in them is counted by itself.
                continue
            frames = record.stack_trace()
            if any(function == "hold" for function, _, _ in frames):
                held += record.size
            elif any(file.startswith(_PACKAGE) for _, file, _ in frames) and not any(
                file.endswith("dramatiq/worker.py") for _, file, _ in frames
            ):
                ours += record.size
    return ours, held


def test_our_threads_hold_little_while_a_process_is_tracked(bench, settings, stored):
    given = settings(
        task_diagnostics=["memory", "pyinstrument", "debug-logs", "resources"],
        task_diagnostics_on_request=["memray"],
    )
    log = logging.getLogger("test_own_allocations")
    log.propagate = False
    started, released = threading.Event(), threading.Event()

    def hold() -> None:
        kept = bytearray(30 * MIB)
        started.set()
        assert released.wait(PATIENCE_S)
        del kept

    def work(number: int) -> None:
        for line in range(20 if number else 500):
            log.debug("%d %s", line, "x" * 8000)
        for depth in range(20):
            call_deep(depth, number)
        if number % 5 == 1:
            raise ValueError("x" * 1000)

    with bench(given, threads=THREADS) as tasks:
        # Given a task that is tracked, in a process that has published before
        worker = tasks.actor(work)
        worker.send(1)
        tasks.finish()
        asked = ["memory", "pyinstrument", {"memray": {"trace_python_allocators": True}}]
        tracked = tasks.actor(hold, diagnostics=asked).send()
        assert started.wait(PATIENCE_S)
        # When others run beside it, with logs, profiles and tracebacks, and all of that is saved and published
        sealer = tasks.diagnostics.process.saver
        for number in range(NEIGHBOURS):
            worker.send(number)
        eventually(lambda: sealer.submitted == NEIGHBOURS + 1, "all neighbours have ended")
        assert tasks.diagnostics.flush(PATIENCE_S)
        released.set()
        tasks.finish()

    # Then the report of its peak has what it held, and next to nothing of ours
    ours_bytes, held_bytes = held_by_our_threads(stored(given).path(tracked.message_id, "memray_profile"))
    assert held_bytes >= 30 * MIB
    assert 0 < ours_bytes < BUDGET_BYTES
