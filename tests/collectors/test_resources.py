"""`resources`: a table of what the process used, with an empty cell for what the platform does not tell."""

from __future__ import annotations

import csv
import errno
import logging
import os
import threading
import time
from pathlib import Path

import psutil
import pytest

from dramatiq_diag.collectors.resources import ResourcesCollector
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.collectors import rows_in_spool
from support.simulation import simulated

COLUMNS = [
    "elapsed_seconds",
    "cpu_user_seconds",
    "cpu_system_seconds",
    "voluntary_context_switches",
    "involuntary_context_switches",
    "read_bytes",
    "written_bytes",
    "open_files",
    "threads",
]


def table_of(reader, task_id):
    """Returns: The rows, as numbers where there is one."""
    text = reader.data(task_id, "resources_profile").decode("ascii")
    header, *rows = csv.reader(text.splitlines())
    assert header == COLUMNS
    return [
        {name: float(cell) if cell else None for name, cell in zip(header, row, strict=True)} for row in rows if row
    ]


def test_there_is_a_row_at_the_start_at_each_interval_and_at_the_end(bench, settings, stored):
    given = settings(task_diagnostics=["resources"], resources_interval=0.05)

    with bench(given) as tasks:

        def wait() -> None:
            time.sleep(0.4)
            eventually(lambda: rows_in_spool(tasks, "resources_profile") >= 4, "there are rows")

        task_id = tasks.run(wait)

    rows = table_of(stored(given), task_id)
    elapsed = [row["elapsed_seconds"] for row in rows]
    assert elapsed == sorted(elapsed)
    assert elapsed[0] <= elapsed[-1] - 0.4  # It was there before the function was called.
    assert elapsed[-1] >= 0.4
    assert 4 <= len(rows) <= 2 + elapsed[-1] / 0.05
    artifact = stored(given).artifacts(task_id)["resources_profile"]
    assert (artifact.status, artifact.filename, artifact.media_type) == ("stored", "resources.csv", "text/csv")


def test_the_figures_are_those_of_the_work(bench, settings, stored, tmp_path):
    given = settings(task_diagnostics=["resources"], resources_interval=3600)
    go_on = threading.Event()
    held = []

    # Given a task that computes, gives up the processor, writes, opens files and starts threads, and keeps the last two
    def work() -> None:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass
        for _ in range(20):
            time.sleep(0.001)
        with (tmp_path / "written").open("wb") as file:
            file.write(bytes(4 * MIB))
            file.flush()
            os.fsync(file.fileno())
        held.extend((tmp_path / f"open{number}").open("w") for number in range(50))
        for _ in range(15):
            thread = threading.Thread(target=go_on.wait)
            thread.start()
            held.append(thread)

    with bench(given) as tasks:
        task_id = tasks.run(work)
        go_on.set()
        for thing in held:
            thing.join() if isinstance(thing, threading.Thread) else thing.close()

    # Then what is counted begins at nought and has grown by as much
    first, last = table_of(stored(given), task_id)
    assert [first[name] for name in COLUMNS[1:7]] == [0.0] * 6
    assert 0.25 < last["cpu_user_seconds"] + last["cpu_system_seconds"] < 5
    assert last["voluntary_context_switches"] >= 20
    assert last["involuntary_context_switches"] >= 0
    assert last["open_files"] - first["open_files"] > 30  # Our own threads open and close some meanwhile.
    assert last["threads"] - first["threads"] >= 10  # Those of other tests may end meanwhile.
    if Path("/proc/self/io").exists() and first["written_bytes"] is not None:
        assert last["written_bytes"] >= 0


@pytest.mark.parametrize("error", [AttributeError("io_counters"), psutil.AccessDenied(1), NotImplementedError()])
def test_a_figure_that_there_is_not_is_an_empty_cell(bench, settings, stored, monkeypatch, error):
    given = settings(task_diagnostics=["resources"])

    def refuse(_process):
        raise error

    monkeypatch.setattr(psutil.Process, "io_counters", refuse, raising=False)
    monkeypatch.setattr(psutil.Process, "num_fds", refuse, raising=False)

    with bench(given) as tasks:
        task_id = tasks.run(time.sleep, 0, actor_name="sleep")

    for row in table_of(stored(given), task_id):
        assert [name for name, figure in row.items() if figure is None] == ["read_bytes", "written_bytes", "open_files"]
    assert stored(given).artifacts(task_id)["resources_profile"].status == ArtifactStatus.STORED


def test_runs_beside_one_another_have_each_a_whole_table(bench, settings, stored):
    given = settings(task_diagnostics=["resources"], resources_interval=0.01)
    together = threading.Barrier(4)

    def meet() -> None:
        together.wait(PATIENCE_S)
        eventually(lambda: rows_in_spool(tasks, "resources_profile") > 4, "there are rows")
        together.wait(PATIENCE_S)

    with bench(given, threads=4) as tasks:
        actor = tasks.actor(meet)
        ids = [actor.send().message_id for _ in range(4)]
        tasks.finish()

    for task_id in ids:
        rows = table_of(stored(given), task_id)
        assert len(rows) > 3
        assert all(row["threads"] >= 5 for row in rows)


def test_a_run_that_is_going_on_has_its_rows_in_the_spool(bench, settings):
    given = settings(task_diagnostics=["resources"], resources_interval=0.01)
    go_on = threading.Event()

    with bench(given) as tasks:
        tasks.actor(lambda: go_on.wait(PATIENCE_S), actor_name="wait").send()
        run = eventually(lambda: next(iter(tasks.diagnostics.process.runs.values()), None), "it runs")
        eventually(lambda: str(list(run.entry.records())).count("resources_profile") > 4, "rows are in the spool")
        go_on.set()
        tasks.finish()


def test_a_sample_that_cannot_be_taken_is_left_out_and_the_next_ones_are_there(settings, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["resources"], resources_interval=1.0)

    def refuse(_: ResourcesCollector) -> list[float]:
        raise OSError(errno.EMFILE, "Too many open files")

    with simulated(given) as simulation:
        run = simulation.begin(simulation.actor())
        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(ResourcesCollector, "counters", refuse)
            simulation.pass_time(2.5)
        simulation.pass_time(3.0)
        simulation.end(run)
        simulation.flush()

    rows = csv.DictReader(stored(given).data(run.task_id, "resources_profile").decode().splitlines())
    assert [round(float(row["elapsed_seconds"])) for row in rows] == [0, 3, 4, 5, 6]
    assert caplog.text.count("A sample of the collector 'resources' could not be taken.") == 1
