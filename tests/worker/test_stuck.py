"""Runs that last much longer than usual."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.policy.stuck_rule import AUTO, LEAST_S, MIN_RUNS, UNKNOWN_S, StuckRule
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.runs import RunFilter, find_run, list_runs
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.stack_log import StackLog
from dramatiq_diag.worker.stuck import StuckRuns
from support import PATIENCE_S, eventually
from support.records import bundle, run_record
from support.simulation import Simulation, simulated
from support.spool import dead_entry, start_record
from support.store import IN_SQLITE
from support.web import Site

HEADING = "# What all threads did"


@pytest.fixture
def given(settings, database_url):
    return settings(task_diagnostics=["memory"], database_url=database_url)


def stuck_runs(simulation: Simulation, after: str | float, **limits) -> StuckRuns:
    process = simulation.process
    return StuckRuns(process.services, process.runs, StuckRule(after=after), **limits)


def has_row(store: Store, run) -> bool:
    with store.session() as session:
        return find_run(session, run.run_id) is not None


def announced(store: Store, run) -> None:
    eventually(lambda: has_row(store, run), "the publisher announces the run")


def marked(store: Store) -> list[str]:
    with store.session() as session:
        return [run.actor_name for run in list_runs(session, RunFilter(is_stuck=True), 10)[0]]


def texts(stored, given, task_id: str) -> int:
    return stored(given).data(task_id, "stuck_stacks").decode().count(HEADING)


def looks(runs: StuckRuns, store: Store) -> None:
    """Two looks: the first one may find that the usual duration is not known."""
    for _ in range(2):
        runs.look()
        runs.note(store)


@contextmanager
def site_of(given: Settings) -> Iterator[Site]:
    site = Site(given, {})
    try:
        yield site
    finally:
        site.close()


def test_a_run_is_stuck_after_the_given_time_and_never_after_its_end(given, store, stored):
    with simulated(given) as simulation:
        run, runs = simulation.begin(simulation.actor()), stuck_runs(simulation, 60.0)
        simulation.clock.now_s += 59
        announced(store, run)
        looks(runs, store)
        assert marked(store) == []

        simulation.clock.now_s += 2
        looks(runs, store)
        assert marked(store) == ["work"]

        simulation.end(run)
        simulation.flush()
        looks(runs, store)
        assert marked(store) == []

    artifact = stored(given).artifacts(run.task_id)["stuck_stacks"]
    assert (artifact.status, artifact.filename, artifact.media_type) == (
        ArtifactStatus.STORED,
        "stacks.txt",
        "text/plain",
    )
    text = stored(given).data(run.task_id, "stuck_stacks").decode()
    assert text.count(HEADING) == 1
    assert "61 s after the start of the task, which is stuck: it has run for more than 60 s" in text
    assert "test_a_run_is_stuck_after_the_given_time_and_never_after_its_end" in text
    assert "executes the task" in text


def test_with_auto_it_depends_on_what_the_actor_usually_takes(given, store):
    for _ in range(MIN_RUNS):
        store.publish([bundle(run_record(actor_name="known", duration_ms=120_000.0))])
    with simulated(given) as simulation:
        runs = stuck_runs(simulation, AUTO)
        run = simulation.begin(simulation.actor("known"))
        simulation.clock.now_s += LEAST_S + 1
        announced(store, run)
        looks(runs, store)
        assert marked(store) == []
        simulation.clock.now_s += 1200 - LEAST_S
        looks(runs, store)
        assert marked(store) == ["known"]
        simulation.end(run)

        run = simulation.begin(simulation.actor("new"))
        simulation.clock.now_s += UNKNOWN_S - 1
        announced(store, run)
        looks(runs, store)
        assert "new" not in marked(store)
        simulation.clock.now_s += 2
        looks(runs, store)
        assert "new" in marked(store)
        simulation.end(run)


@IN_SQLITE
def test_zero_turns_it_off(given, store, stored):
    with simulated(given) as simulation:
        run, runs = simulation.begin(simulation.actor()), stuck_runs(simulation, 0.0)
        simulation.clock.now_s += 10 * 86400
        announced(store, run)
        looks(runs, store)
        assert marked(store) == []
        simulation.end(run)
        simulation.flush()
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile"}


@IN_SQLITE
def test_stacks_are_written_again_every_ten_minutes_until_there_are_many_of_one_place(given, store, stored):
    with simulated(given) as simulation:
        run, runs = simulation.begin(simulation.actor()), stuck_runs(simulation, 60.0, max_same=3)
        for _ in range(6):  # An hour, of which each look is at the same place.
            simulation.clock.now_s += 300
            runs.look()
            simulation.clock.now_s += 300
            runs.look()
        simulation.end(run)
        simulation.flush()
    assert texts(stored, given, run.task_id) == 3
    assert "where it was at the last look" in stored(given).data(run.task_id, "stuck_stacks").decode()


@IN_SQLITE
def test_a_task_that_moves_is_written_of_again(given, store, stored):
    with simulated(given) as simulation:
        run, runs = simulation.begin(simulation.actor()), stuck_runs(simulation, 60.0, max_same=2)
        for _ in range(5):
            simulation.clock.now_s += 601
            runs.look()
        for _ in range(5):
            simulation.clock.now_s += 601
            runs.look()  # From another line.
        simulation.end(run)
        simulation.flush()
    assert texts(stored, given, run.task_id) == 4


def test_the_texts_of_one_run_are_bounded_together(given, stored):
    with simulated(given) as simulation:
        run = simulation.begin(simulation.actor())
        log = StackLog(run, max_bytes=10)
        for _ in range(10):
            log.write("ü...")
        simulation.end(run)
        simulation.flush()
        log.write("late")
    assert stored(given).data(run.task_id, "stuck_stacks").decode() == "ü...ü..."


def test_a_text_that_is_found_right_after_the_end_of_a_run_is_in_its_log(settings, stored):
    given = settings(task_diagnostics=["logs"])
    with simulated(given) as simulation:
        run = simulation.begin(simulation.actor())
        run.stop(RunStatus.SUCCEEDED)
        StackLog(run).write("late")
        simulation.process.end(RunStatus.SUCCEEDED)
        simulation.flush()
    assert stored(given).data(run.task_id, "task_logs").decode() == "late"


def test_stacks_go_into_the_log_of_a_run_that_has_one(settings, stored):
    given = settings(task_diagnostics=["logs"])
    with simulated(given) as simulation:
        run, runs = simulation.begin(simulation.actor()), stuck_runs(simulation, 60.0)
        simulation.clock.now_s += 61
        runs.look()
        simulation.end(run)
        simulation.flush()
    assert set(stored(given).artifacts(run.task_id)) == {"task_logs"}
    assert HEADING in stored(given).data(run.task_id, "task_logs").decode()


def test_the_stacks_of_a_killed_worker_are_salvaged(settings):
    declared = {"name": "stuck_stacks", "filename": "stacks.txt", "media_type": "text/plain"}
    run_id = uuid.uuid4()
    lines = [start_record(run_id), {"declared": declared}, {"to": "stuck_stacks", "text": "in hang\n"}]

    run = read_finished_run(dead_entry(settings().spool, lines, run_id))

    [late] = [artifact for artifact in run.artifacts if artifact.name == "stuck_stacks"]
    assert (late.status, late.filename) == (ArtifactStatus.PARTIAL, "stacks.txt")
    assert late.open().read() == b"in hang\n"


@IN_SQLITE
def test_a_run_without_a_row_is_marked_once_it_has_one(given, store):
    with simulated(given) as simulation:
        run, runs = simulation.begin(simulation.actor()), stuck_runs(simulation, 0.1)
        simulation.clock.now_s += 0.5
        looks(runs, store)
        assert marked(store) == []
        simulation.clock.now_s += 1
        announced(store, run)
        looks(runs, store)
        assert marked(store) == ["work"]
        simulation.end(run)


def test_a_task_that_hangs_is_seen_as_stuck_over_http_until_it_ends(settings, stored, bench, soon):
    given = settings(task_diagnostics=["memory"], stuck_after="1s")
    release = threading.Event()

    def hang() -> None:
        release.wait(PATIENCE_S)

    with bench(given, tuning=soon) as tasks, site_of(given) as site:
        message = tasks.actor(hang).send()
        seen = eventually(lambda: site.get("/tasks/?stuck=true").json["runs"], "the run is stuck")
        assert [(run["task_id"], run["is_stuck"], run["status"]) for run in seen] == [
            (message.message_id, True, "running")
        ]
        assert 'dramatiq_diag_stuck_runs{actor_name="hang"} 1' in site.get("/metrics").text
        release.set()
        tasks.finish()
        assert site.get("/tasks/?stuck=true").json["runs"] == []
        [ended] = site.get("/tasks/?stuck=false").json["runs"]
        assert (ended["is_stuck"], ended["status"]) == (False, "succeeded")

    text = stored(given).data(message.message_id, "stuck_stacks").decode()
    assert "hang  " in text
    assert "release.wait(PATIENCE_S)" in text


def test_a_task_that_is_not_diagnosed_is_left_out(settings, store_of, bench):
    given = settings(task_diagnostics_on_request=["memory"], stuck_after="0.001s")
    with bench(given) as tasks:
        runs = tasks.diagnostics.process
        looked = StuckRuns(runs.services, runs.runs, StuckRule(after=0.001))
        store = store_of(given)

        def work() -> None:
            for _ in range(3):
                looks(looked, store)

        tasks.run(work)
    with store.session() as session:
        assert list_runs(session, RunFilter(), 10)[0] == []
