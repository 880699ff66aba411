"""Captures in a worker while the database fails, and in one that is killed."""

from __future__ import annotations

import signal
import time
import uuid
from dataclasses import replace

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.store.captures import CaptureState
from dramatiq_diag.store.store import Store
from support import PATIENCE_S, eventually
from support.captures import ask, knows, run_until, runs_of, settings_for_captures, standing, work
from support.logs import is_rare
from support.store import IN_SQLITE

_WORKER = """
import sys, time
import dramatiq
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.worker.tuning import Tuning

diagnostics = Diagnostics(
    Settings(
        data_dir=sys.argv[1], database_url=sys.argv[2] or None, cleanup_interval=0,
        task_diagnostics=[], task_diagnostics_on_request=["memory", "pyinstrument"],
    ),
    tuning=Tuning(attention_s=0.1),
)
broker = StubBroker(middleware=[diagnostics])

@dramatiq.actor(broker=broker)
def work():
    print("running", flush=True)
    time.sleep(300)

worker = Worker(broker, worker_threads=1)
worker.start()
while "work" not in diagnostics.process.captures.actor_names:
    time.sleep(0.01)
work.send()
time.sleep(300)
"""


@pytest.fixture
def given(settings, database_url):
    return settings_for_captures(settings, database_url)


def has_text(given: Settings) -> bool:
    """Returns: Whether an entry in the spool has a piece of a text artifact."""
    return any(b'"to"' in path.read_bytes() for path in given.spool.rglob("*.entry"))


def failing_once(step, calls, *, after=False):
    """Returns: The step, which fails as without a database the first time, before or after it; each call is noted."""

    def call(*values):
        calls.append(values)
        if len(calls) > 1:
            return step(*values)
        if after:
            step(*values)
        raise StoreUnavailableError

    return call


@IN_SQLITE
def test_while_the_database_is_away_tasks_run_on_and_captures_are_learned_of_later(
    given, store, bench, monkeypatch, caplog, soon
):
    began_s = time.monotonic()
    with bench(given, tuning=replace(soon, backoff_s=(0.05, 0.05))) as tasks:
        actor, calls = tasks.actor(work), []

        def away(session):
            calls.append(session)
            raise StoreUnavailableError

        with monkeypatch.context() as patch:
            patch.setattr("dramatiq_diag.worker.captures.open_captures", away)
            capture_id = ask(store)
            eventually(lambda: len(calls) > 3, "the worker tried several times")
            actor.send()
            tasks.finish()
            assert is_rare(caplog.text.count("could not talk to the database"), began_s)

        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")


@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_could_not_be_counted_is_counted_later_and_once(given, store, bench, monkeypatch, soon, after):
    capture_id = ask(store, runs=2)
    with bench(given, tuning=replace(soon, backoff_s=(0.05, 0.05))) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: knows(tasks), "the worker knows of it")

        # Given that nothing is stored at first, or that all is and the answer is lost
        monkeypatch.setattr(Store, "publish", failing_once(Store.publish, calls, after=after))
        actor.send()
        tasks.finish()
        assert len(calls) == 2

    assert standing(store, capture_id).captured_runs == 1
    assert len(runs_of(store, capture_id)) == 1


@IN_SQLITE
def test_a_complete_capture_is_ended_by_a_worker_that_stops(given, store, bench, soon):
    capture_id = ask(store)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: knows(tasks), "the worker knows of it")
        actor.send()
        tasks.broker.join("tasks", timeout=int(PATIENCE_S * 1000))

    assert standing(store, capture_id).captured_runs == 1
    assert standing(store, capture_id).capture.ended_at is not None


@IN_SQLITE
def test_a_run_whose_entry_was_lost_leaves_its_slot_to_the_next_one(given, store, bench, soon):
    capture_id = ask(store)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: knows(tasks), "the worker knows of it")
        client = tasks.diagnostics.process.captures
        assert client.take("work").capture_id == capture_id
        client.begun(uuid.uuid4(), capture_id)
        assert client.take("work") is None

        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "the next run is captured")


@pytest.mark.parametrize("is_announced", [False, True])
def test_a_run_of_a_killed_worker_has_its_slot(given, store, bench, python, stored, soon, is_announced):
    # Given a worker that is killed before a captured run is announced, or after that
    capture_id = ask(store)
    worker = python(_WORKER, str(given.data_dir), given.database_url or "")
    assert worker.stdout.readline() == "running\n"
    if is_announced:
        eventually(lambda: standing(store, capture_id).captured_runs == 1, "the run is announced")
    else:
        eventually(lambda: has_text(given), "its first sample is in the spool")
    worker.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE_S)

    # When another one salvages its run
    with bench(given, tuning=replace(soon, salvage_s=0.1)) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: standing(store, capture_id).state == CaptureState.COMPLETE, "the run is counted")
        eventually(lambda: [run.status for run in runs_of(store, capture_id)] == ["interrupted"], "it is salvaged")
        eventually(lambda: not knows(tasks), "the worker knows that the capture is complete")
        actor.send()
        tasks.finish()

    # Then it is the one that was asked for, with its artifact
    (run,) = stored(given).all_runs()
    assert stored(given).artifacts(run.task_id)["memory_profile"].status == "partial"
    assert standing(store, capture_id).captured_runs == 1


def test_a_salvaged_run_without_a_slot_leaves_no_trace(given, store, bench, python, stored, soon):
    capture_id = ask(store)
    worker = python(_WORKER, str(given.data_dir), given.database_url or "")
    assert worker.stdout.readline() == "running\n"
    worker.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE_S)
    (owner,) = given.spool.iterdir()

    # Given a worker that takes the slot before the run of a killed one is salvaged
    hidden = owner.rename(given.data_dir / "hidden")
    with bench(given, tuning=replace(soon, salvage_s=0.1)) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
        hidden.rename(owner)
        eventually(lambda: not owner.exists(), "the killed worker's run is salvaged")
        tasks.finish()

    assert [run.status for run in stored(given).all_runs()] == ["succeeded"]
    assert not stored(given).check()
