"""The watch of a process: it ends when it is idle, and misses no run that begins while it looks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag.runtime.counters import Counters
from dramatiq_diag.spool.owner_state import read_left
from dramatiq_diag.worker.gil_stalls import GilStalls
from dramatiq_diag.worker.process_watch import _IDLE_LOOKS, ProcessWatch
from dramatiq_diag.worker.tuning import TUNING
from support.clocks import collect_here
from support.simulation import simulated
from support.tasks import rss_of_runs


class Stalls(GilStalls):
    """Does something in the middle of a look."""

    def __init__(self, services: Any, do: Callable[[], None]) -> None:
        super().__init__(services, is_on=False)
        self._do = do

    def look(self, runs: Any) -> None:
        self._do()


def test_what_a_run_is_counted_does_not_begin_anew_if_it_begins_while_the_watch_ends(settings: Any) -> None:
    with simulated(settings(task_diagnostics=["memory"])) as simulation:
        services = simulation.process.services
        runs, looks, counted_s = dict[int, Any](), list[int](), list[float]()

        # Given a run that begins in the last look, on a thread for which collections were counted before
        def begin() -> None:
            looks.append(1)
            collect_here()
            if len(looks) == _IDLE_LOOKS + 1:
                runs[1] = simulation.begin(simulation.actor())
                watch.wake()
                counted_s.append(Counters(*services.counters.own().read()).gc_s)

        watch = ProcessWatch(services, simulation.process.spool, runs, Stalls(services, begin), TUNING)
        watch.wake()
        for _ in range(2 * _IDLE_LOOKS):
            simulation.pass_time(TUNING.rss_s)
        counted_s.append(Counters(*services.counters.own().read()).gc_s)
        simulation.end(runs.pop(1))

    # Then the clock of the collections goes on
    assert len(looks) > _IDLE_LOOKS + 1
    assert 0 < counted_s[0] < counted_s[1]


def test_a_run_that_begins_while_the_memory_is_read_is_in_the_note(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with simulated(settings(task_diagnostics=["memory"])) as simulation:
        runs = [simulation.begin(simulation.actor())]

        # Given a thread of a task that gets the GIL while the ticker's thread reads the RSS
        def read() -> int:
            if len(runs) == 1 and threading.current_thread() is threading.main_thread():
                late = threading.Thread(target=lambda: runs.append(simulation.begin(simulation.actor("late"))))
                late.start()
                late.join()
            return 100_000_000

        rss_of_runs(monkeypatch, read)

        simulation.pass_time(TUNING.rss_s)
        story = read_left(simulation.process.spool.owner).story
        for run in runs:
            simulation.end(run)

    # Then what it touches is not taken for that of threads without a run
    assert story is not None
    assert {run.run_id for run in story.runs} == {run.run_id for run in runs}
