"""A task that lasts a day costs the worker no more than one that lasts a minute, but for its entry."""

from __future__ import annotations

import gc
import os
import tracemalloc
from typing import Any

from simulation import Simulation, simulated

from dramatiq_diag.vitals import VitalsReader

DAY_S = 24 * 3600
#: Timers that are due more often are called that often: what a look leaves behind does not depend on it.
_STEP_S = 1.0
MEGABYTE = 1024 * 1024


def counts_of(simulation: Simulation) -> dict[str, int]:
    """Returns: How many there are of what may pile up."""
    process = simulation.process
    return {
        "timers": len(simulation.ticker),
        "runs": len(process.runs),
        "unsaved": len(process.unsaved),
        "messages": len(process._messages),
        "submitted": len(process.sealer._submitted),
        "descriptors": len(os.listdir("/proc/self/fd")) - len(process.spool._ready),
    }


def pass_days(simulation: Simulation, seconds: float, others: int) -> None:
    """Lets the time pass, during which so many other tasks run for a moment beside those that run."""
    long, actor = simulation.process.runs.popitem(), simulation.actor(f"other{others}")
    for number in range(others):
        simulation.process.runs[-1] = long[1]  # As if it ran on another thread.
        simulation.process._messages[-1] = simulation.process._messages.get(-1) or actor.message(number)
        run = simulation.begin(actor)
        simulation.pass_time(1.0, _STEP_S)
        simulation.end(run)
        simulation.pass_time(seconds / others - 1.0, _STEP_S)
    simulation.process.runs[long[0]] = long[1]
    simulation.process.runs.pop(-1, None)


def test_a_task_of_a_day_beside_a_hundred_others_stays_small(settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "logs"], triggers="after 48h: stacks; rss>1000GiB: stacks")
    state: Any = VitalsReader().read()  # Reading it anew each second of a day would take most of the test.
    monkeypatch.setattr(VitalsReader, "read", lambda _: state)

    with simulated(given) as simulation:
        long = simulation.begin(simulation.actor("long"))
        # Given an hour, after which all that is made once is there
        pass_days(simulation, 3600, 5)
        simulation.flush()
        gc.collect()
        before = counts_of(simulation)
        tracemalloc.start()
        try:
            # When the rest of the day passes
            pass_days(simulation, DAY_S - 3600, 95)
            simulation.flush()
            gc.collect()
            grown_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        after = counts_of(simulation)
        files = given.spool.glob(f"*/{long.run_id}.*")
        entry_bytes = sum(file.stat().st_size for file in files)
        simulation.end(long)
        simulation.flush()

    assert after == before
    assert grown_bytes < MEGABYTE
    assert entry_bytes < 4 * MEGABYTE
    (run,) = stored(given).runs(long.task_id)
    assert run.duration_ms > (DAY_S - 10) * 1000
    assert len(stored(given).data(long.task_id, "memory_profile").splitlines()) > DAY_S / 2
