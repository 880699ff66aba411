"""The memory of the process while a run runs: its peak, and the samples of the memory log."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from dramatiq_diag.collectors.memory import FREE_SAMPLES
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.text import MIB
from support import eventually
from support.simulation import Simulation, simulated
from support.tasks import rss_of_runs


def rows_of(text: bytes) -> list[tuple[float, float]]:
    """Returns: Seconds and megabytes, as gnuplot reads them."""
    lines = [line for line in text.decode("ascii").splitlines() if not line.startswith("#")]
    return [(float(seconds), float(megabytes)) for seconds, megabytes in (line.split("\t") for line in lines)]


@pytest.fixture
def rss_mb(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The RSS that is read, in megabytes; its last number counts."""
    values = [100.0]
    rss_of_runs(monkeypatch, lambda: int(values[-1] * MIB))
    return values


@pytest.fixture
def simulation(settings: Callable, rss_mb: list[float]) -> Iterator[Simulation]:
    with simulated(settings(task_diagnostics=["memory"], memory_interval=2.0)) as made:
        yield made


@pytest.mark.parametrize("names", [["memory"], ["pyinstrument"], ["logs"]])
def test_what_a_task_holds_for_a_moment_is_its_peak(bench, settings, stored, names):
    given = settings(task_diagnostics=names, memory_interval=3600)
    held_bytes: list[int] = []

    # Given a task that holds 200 MB between two samples, until the process was looked at
    with bench(given) as tasks:

        def hold() -> None:
            (run,) = tasks.diagnostics.process.runs.values()
            held = bytearray(200 * MIB)
            for start in range(0, len(held), 4096):
                held[start] = 1
            held_bytes.append(RssReader().rss_bytes())
            eventually(lambda: run.peak_rss_bytes >= held_bytes[0] - 5 * MIB, "the process was looked at")

        task_id = tasks.run(hold)

    # Then that is the peak of the run, and the highest point of its curve
    (run,) = stored(given).runs(task_id)
    assert run.peak_rss_bytes > held_bytes[0] - 5 * MIB
    if names == ["memory"]:
        rows = rows_of(stored(given).data(task_id, "memory_profile"))
        assert max(megabytes for _, megabytes in rows) == pytest.approx(run.peak_rss_bytes / MIB, abs=0.001)


SCRIPT = """
import os, signal, sys, time, dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
diagnostics = Diagnostics(Settings(data_dir=sys.argv[1], task_diagnostics=["memory"], cleanup_interval=0))
broker.add_middleware(diagnostics)

@dramatiq.actor(broker=broker, max_retries=0)
def die():
    (run,) = diagnostics.process.runs.values()
    while sum(record.get("to") == "memory_profile" for record in run.entry.records()) < 5:
        time.sleep(0.05)
    held = bytearray(150 * 1024 * 1024)
    for start in range(0, len(held), 4096):
        held[start] = 1
    while run.peak_rss_bytes < run.first_rss_bytes + 140 * 1024 * 1024:
        time.sleep(0.01)
    while run.elapsed_s < 1.3:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)

print(die.send().message_id, flush=True)
dramatiq.Worker(broker, worker_threads=1).start()
time.sleep(600)
"""


def test_a_task_that_is_killed_after_a_second_has_its_curve_and_its_peak(settings, stored, python):
    given = settings()
    process = python(SCRIPT, str(given.data_dir))
    task_id = process.stdout.readline().strip()
    eventually(lambda: process.poll() is not None, "the worker was killed")
    assert process.returncode == -signal.SIGKILL

    Delivery(Spool(given), stored(given).store).salvage()

    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.INTERRUPTED
    rows = rows_of(stored(given).data(task_id, "memory_profile"))
    seconds = [row[0] for row in rows]
    assert seconds == sorted(seconds)
    assert len(rows) >= 5
    # The jump of the last moment is in it, and it is the peak of the run.
    assert rows[-1][1] - rows[0][1] > 130
    assert run.peak_rss_bytes >= (rows[-1][1] - 0.001) * MIB


def test_the_first_seconds_have_samples_each_time_that_the_time_has_doubled(simulation, stored, rss_mb):
    run = simulation.begin(simulation.actor())
    simulation.pass_time(7.0)
    simulation.end(run)
    simulation.flush()

    rows = rows_of(stored(simulation.process.settings).data(run.task_id, "memory_profile"))
    assert [row[0] for row in rows] == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2, 4, 6, 7], abs=0.06)


@pytest.mark.parametrize(
    ("before_mb", "after_mb", "is_sampled"),
    [
        (100.0, 107.9, False),  # 7.9 %, but less than 8 MiB
        (100.0, 108.1, True),
        (400.0, 419.0, False),  # 19 MiB, but less than 5 %
        (400.0, 421.0, True),
        (400.0, 379.0, True),
    ],
)
def test_a_look_that_is_far_from_the_last_sample_is_a_sample(
    simulation, stored, rss_mb, before_mb, after_mb, is_sampled
):
    rss_mb.append(before_mb)
    run = simulation.begin(simulation.actor())
    simulation.pass_time(20.5)
    rss_mb.append(after_mb)
    simulation.pass_time(0.5)
    rss_mb.append(before_mb)
    simulation.end(run)
    simulation.flush()

    reader = stored(simulation.process.settings)
    rows = rows_of(reader.data(run.task_id, "memory_profile"))
    assert (pytest.approx(20.55, abs=0.06) in [row[0] for row in rows]) == (is_sampled or after_mb > before_mb)
    # Whether or not it was a sample at once: the highest point of the curve is the peak of the run.
    (stored_run,) = reader.runs(run.task_id)
    assert stored_run.peak_rss_bytes == int(max(before_mb, after_mb) * MIB)
    assert max(row[1] for row in rows) == pytest.approx(max(before_mb, after_mb))


def test_a_process_that_goes_up_and_down_all_the_time_has_a_log_of_bounded_length(simulation, stored, rss_mb):
    run = simulation.begin(simulation.actor())
    for _ in range(1200):
        rss_mb.append(200.0)
        simulation.pass_time(0.05)
        rss_mb.append(100.0)
        simulation.pass_time(0.05)
    simulation.end(run)
    simulation.flush()

    rows = rows_of(stored(simulation.process.settings).data(run.task_id, "memory_profile"))
    assert 100 < len(rows) < FREE_SAMPLES + 2 * (120 / 2) + 20
    assert all(before[0] <= after[0] for before, after in pairwise(rows))


def test_a_process_without_runs_is_not_looked_at(simulation, monkeypatch):
    looks: list[float] = []
    rss_of_runs(monkeypatch, lambda: looks.append(simulation.clock()) or MIB)
    actor = simulation.actor()

    simulation.pass_time(10)
    assert (looks, len(simulation.ticker)) == ([], 0)
    simulation.end(simulation.begin(actor))
    ended = len(looks)
    simulation.pass_time(10)
    # Then nothing is called any more
    assert (len(looks), len(simulation.ticker)) == (ended, 0)
    # And the next run is looked at
    run = simulation.begin(actor)
    simulation.pass_time(1)
    assert len(looks) - ended >= 20
    simulation.end(run)


def test_one_look_serves_all_runs(simulation, monkeypatch):
    looks: list[int] = []
    rss_of_runs(monkeypatch, lambda: looks.append(1) or MIB)
    actor = simulation.actor()
    runs = []
    for thread_id in (-1, -2, -3):  # As if each ran on a thread of its own.
        run = simulation.begin(actor)
        simulation.process.runs[thread_id] = simulation.process.runs.pop(run.thread_id)
        runs.append(run)
    looks.clear()
    simulation.pass_time(1.0)

    assert 18 <= len(looks) <= 21
    assert {run.peak_rss_bytes for run in runs} == {MIB}
    for run in runs:
        simulation.end(run)
