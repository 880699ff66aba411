"""How long a run took: one figure wherever it is told, and what its collectors took stands beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from dramatiq.middleware import TimeLimitExceeded

from dramatiq_diag.cli import main
from dramatiq_diag.collectors.base import Collector, Recording, RunContext
from dramatiq_diag.collectors.memory import MemoryCollector
from dramatiq_diag.collectors.time_profile.collector import PyinstrumentCollector
from dramatiq_diag.documents.runs import run_document
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import RunStatus
from support.simulation import simulated

Step = Callable[[], None]


@pytest.fixture
def change(monkeypatch):
    """Replaces a step of the recordings of a collector: `wrap` makes the new one of the old one."""

    def change(collector_class: type[Collector], step: str, wrap: Callable[[Step], Step]) -> None:
        record = collector_class.record

        def record_changed(collector: Collector, run: RunContext) -> Recording:
            recording = record(collector, run)
            setattr(recording, step, wrap(getattr(recording, step)))
            return recording

        monkeypatch.setattr(collector_class, "record", record_changed)

    return change


def passing(simulation: Any, seconds: float) -> Callable[[Step], Step]:
    """Lets a step of a collector take its time."""

    def wrap(step: Step) -> Step:
        def take_its_time() -> None:
            simulation.clock.now_s += seconds
            step()

        return take_its_time

    return wrap


def test_the_length_of_a_run_is_that_of_its_function_wherever_it_is_told(settings, stored, change):
    given = settings(task_diagnostics=["memory", "pyinstrument"])
    with simulated(given) as simulation:
        # Given collectors that take 0.7 s to start and 0.5 s to stop
        for collector_class, step, seconds in (
            (MemoryCollector, "start", 0.4),
            (PyinstrumentCollector, "start", 0.3),
            (PyinstrumentCollector, "stop", 0.4),
            (MemoryCollector, "stop", 0.1),
        ):
            change(collector_class, step, passing(simulation, seconds))

        run = simulation.begin(simulation.actor())
        simulation.pass_time(1.5)
        simulation.end(run)
        simulation.flush()

    # Then a function of 1.5 s took 1.5 s by every account
    reader = stored(given)
    (ended,) = reader.runs(run.task_id)
    assert ended.duration_ms == pytest.approx(1500, abs=0.01)
    assert ended.finished_at - ended.started_at == pytest.approx(timedelta(seconds=1.5), abs=timedelta(microseconds=2))
    assert json.loads(reader.data(run.task_id, "pyinstrument_profile"))["duration"] == pytest.approx(1.5)
    assert reader.data(run.task_id, "memory_profile").decode().splitlines()[-1].startswith("1.500\t")
    # And what the collectors took is told beside it
    assert ended.collection_ms == pytest.approx(1200, abs=0.01)


def test_an_interrupt_in_the_end_of_a_run_does_not_make_it_longer(settings, stored, change):
    given = settings(task_diagnostics=["memory"])
    with simulated(given) as simulation:

        def interrupted_once(stop: Step) -> Step:
            strikes = iter([TimeLimitExceeded])

            def strike_once() -> None:
                for strike in strikes:
                    simulation.clock.now_s += 2.0
                    raise strike
                stop()

            return strike_once

        change(MemoryCollector, "stop", interrupted_once)
        run = simulation.begin(simulation.actor())
        simulation.pass_time(1.0)
        with pytest.raises(TimeLimitExceeded):
            simulation.end(run)
        simulation.end(run)
        simulation.flush()

    (ended,) = stored(given).runs(run.task_id)
    assert (ended.duration_ms, ended.collection_ms) == (pytest.approx(1000), pytest.approx(2000))


def test_a_run_whose_function_was_never_called_has_no_length(settings, stored):
    given = settings(task_diagnostics=["memory"])
    with simulated(given) as simulation:
        actor = simulation.actor()
        run = simulation.process.begin(simulation.broker, actor.message())
        simulation.clock.now_s += 3.0
        simulation.end(run, RunStatus.FAILED)
        simulation.flush()

    (ended,) = stored(given).runs(run.task_id)
    assert (ended.duration_ms, ended.collection_ms) == (0, pytest.approx(3000))
    assert ended.started_at == ended.finished_at


def test_a_run_whose_worker_died_began_when_its_function_did(settings, stored, change):
    given = settings(task_diagnostics=["memory"])
    with simulated(given) as simulation:
        change(MemoryCollector, "start", passing(simulation, 5.0))
        run = simulation.begin(simulation.actor())
        started_at = run.started_at
        # When the entry is salvaged as it is now, and the run never ends
        (entry,) = Spool(given).entries(run.entry.owner, 1)
        Delivery(Spool(given), stored(given).store).deliver([entry])
        simulation.process.runs.clear()
        run.entry.close()

    (ended,) = stored(given).runs(run.task_id)
    assert ended.status == RunStatus.INTERRUPTED
    assert abs(ended.started_at - started_at) < timedelta(seconds=1)
    assert ended.collection_ms == pytest.approx(5000)
    assert ended.finished_at - ended.started_at == pytest.approx(
        timedelta(milliseconds=ended.duration_ms), abs=timedelta(milliseconds=1)
    )


def test_what_the_collectors_took_is_told(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="short")

    (run,) = stored(given).runs(task_id)
    assert run_document(run)["collection_ms"] == run.collection_ms > 0
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(given.data_dir))
    shown = CliRunner().invoke(main, ["show", task_id], catch_exceptions=False)
    assert f"Collectors took in addition: {run.collection_ms:.1f} ms" in shown.output
