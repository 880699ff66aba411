"""A task that lasts a day costs the worker no more than one that lasts a minute, but for its entry."""

from __future__ import annotations

import gc
import os
import sys
import tracemalloc
from typing import Any

from dramatiq_diag.runtime.memory_state import MemoryStateReader
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.text import MIB
from dramatiq_diag.worker.tuning import Tuning
from support.simulation import Simulation, simulated

DAY_S = 24 * 3600
#: Timers that are due more often are called that often: what a look leaves behind does not depend on it.
_STEP_S = 1.0
#: For so many seconds each byte is traced.
_TRACED_S = 6 * 3600
#: The mean size of what Python keeps for an object, for what is counted instead of traced.
_BLOCK_BYTES = 64


def counts_of(simulation: Simulation) -> dict[str, int]:
    """Returns: How many there are of what may pile up."""
    process = simulation.process
    return {
        "timers": len(simulation.ticker),
        "runs": len(process.runs),
        "unsaved": len(process.unsaved),
        "messages": len(process.messages),
        "waiting": process.saver.waiting,
        "descriptors": len(os.listdir("/proc/self/fd")) - len(process.spool.ready),
    }


def allocated_blocks(simulation: Simulation) -> int:
    """Returns: How many objects there are, by Python's own allocator; asking costs nothing while the time passes."""
    simulation.flush()
    gc.collect()
    return sys.getallocatedblocks()


def pass_days(simulation: Simulation, seconds: float, others: int) -> None:
    """Lets the time pass, during which so many other tasks run for a moment beside those that run."""
    long, actor = simulation.process.runs.popitem(), simulation.actor(f"other{others}")
    for number in range(others):
        simulation.process.runs[-1] = long[1]  # As if it ran on another thread.
        simulation.process.messages[-1] = simulation.process.messages.get(-1) or (actor.message(number), (0.0, 0.0))
        run = simulation.begin(actor)
        simulation.pass_time(1.0, _STEP_S)
        simulation.end(run)
        simulation.pass_time(seconds / others - 1.0, _STEP_S)
    simulation.process.runs[long[0]] = long[1]
    simulation.process.runs.pop(-1, None)


def test_a_task_of_a_day_beside_a_hundred_others_stays_small(settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "logs"], triggers="after 48h: stacks; rss>1000GiB: stacks")
    state: Any = MemoryStateReader(
        RssReader()
    ).read()  # Reading these anew each second of a day would take most of the test.
    monkeypatch.setattr(MemoryStateReader, "read", lambda _: state)
    monkeypatch.setattr(RssReader, "rss_bytes", lambda _: state.rss_bytes)

    # The contact lives by the real time, a minute for this day: what it makes once in its first minutes is no growth.
    with simulated(given, Tuning(attention_s=3600.0)) as simulation:
        long = simulation.begin(simulation.actor("long"))
        # Given an hour, after which all that is made once is there
        pass_days(simulation, 3600, 5)
        blocks_before, before = allocated_blocks(simulation), counts_of(simulation)
        # When six hours pass while each byte is traced, which takes twice the time, and then the rest of the day
        tracemalloc.start()
        try:
            pass_days(simulation, _TRACED_S, 27)
            simulation.flush()
            gc.collect()
            grown_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        pass_days(simulation, DAY_S - 3600 - _TRACED_S, 68)
        blocks_after, after = allocated_blocks(simulation), counts_of(simulation)
        files = given.spool.glob(f"*/{long.run_id}.*")
        entry_bytes = sum(file.stat().st_size for file in files)
        simulation.end(long)
        simulation.flush()

    assert after == before
    assert grown_bytes < MIB * _TRACED_S / DAY_S
    assert blocks_after - blocks_before < MIB / _BLOCK_BYTES
    assert entry_bytes < 4 * MIB
    (run,) = stored(given).runs(long.task_id)
    assert run.duration_ms > (DAY_S - 10) * 1000
    assert len(stored(given).data(long.task_id, "memory_profile").splitlines()) > DAY_S / 2
