"""Captures in a worker: which runs are captured, and what becomes of one without a slot."""

from __future__ import annotations

import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from dramatiq.brokers.stub import StubBroker
from sqlalchemy import update

from dramatiq_diag import Diagnostics
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.policy.options import with_options
from dramatiq_diag.spool.entry import EMPTY_BYTES
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.captures import CaptureRequestError, CaptureState, create, end
from dramatiq_diag.store.models import Capture
from dramatiq_diag.store.pins import pin
from dramatiq_diag.store.records import NO_SLOT
from dramatiq_diag.store.slots import open_captures
from dramatiq_diag.worker.tuning import TUNING
from support import PATIENCE_S, eventually
from support.captures import HOUR_S, ask, knows, run_until, running, runs_of, settings_for_captures, standing, work
from support.store import IN_SQLITE, FakeClock


@pytest.fixture
def given(settings, database_url):
    return settings_for_captures(settings, database_url)


def test_a_worker_looks_at_captures_often_enough_to_learn_of_one_within_five_seconds():
    assert 2 * TUNING.attention_s <= 5


def test_the_next_runs_are_captured_and_no_more(given, store, bench, stored, soon):
    capture_id = ask(store, runs=3)
    with bench(given, threads=4, tuning=soon) as tasks:
        actor, other = tasks.actor(work), tasks.actor(work, actor_name="other")
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs == 3, "three runs are captured")
        for _ in range(20):
            actor.send()
            other.send()
        tasks.finish()

    done = standing(store, capture_id)
    assert (done.state, done.captured_runs) == (CaptureState.COMPLETE, 3)
    assert done.capture.ended_at is not None
    runs = runs_of(store, capture_id)
    assert len(runs) == 3
    assert [set(stored(given).artifacts(run.task_id)) for run in runs] == [{"memory_profile"}] * 3
    assert len(stored(given).all_runs()) == 3


def test_a_capture_whose_time_is_up_has_what_came(given, store, bench, stored, soon):
    capture_id = ask(store, runs=1000)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
        with store.session() as session:
            session.execute(update(Capture).values(expires_at=datetime.now(UTC)))
        run_until(tasks, actor, lambda: standing(store, capture_id).state == CaptureState.EXPIRED, "its time is up")
        run_until(tasks, actor, lambda: tasks.diagnostics.process.selection.captures is None, "the worker knows")
        count = len(stored(given).all_runs())
        actor.send()
        tasks.finish()

    assert 0 < count == len(runs_of(store, capture_id)) == len(stored(given).all_runs())
    assert standing(store, capture_id).captured_runs == count < 1000


def test_a_capture_that_is_ended_by_hand_takes_no_further_run(given, store, bench, stored, soon):
    capture_id = ask(store, runs=1000)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
        end(store, capture_id)
        eventually(lambda: tasks.diagnostics.process.selection.captures is None, "the worker knows")
        count = len(stored(given).all_runs())
        actor.send()
        tasks.finish()

    assert len(stored(given).all_runs()) == count == standing(store, capture_id).captured_runs


def test_two_captures_of_one_actor_have_each_their_runs(given, store, bench, stored, soon):
    first, second = ask(store, runs=2), ask(store, runs=2, names=("pyinstrument",))
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, second).captured_runs == 2, "the later one is complete")

    for capture_id, name in ((first, "memory_profile"), (second, "pyinstrument_profile")):
        runs = runs_of(store, capture_id)
        assert [set(stored(given).artifacts(run.task_id)) for run in runs] == [{name}] * 2


@IN_SQLITE
def test_an_idle_process_is_no_hindrance_to_one_that_has_runs(given, store, bench, run_worker, soon):
    # Given a process that knows of the capture, and has no runs
    capture_id = ask(store)
    diagnostics = Diagnostics(given, tuning=soon)
    idle = StubBroker(middleware=[diagnostics])  # AsyncIO has one thread in a process, and the other worker has it.
    dramatiq.actor(work, broker=idle)
    with run_worker(idle):
        eventually(lambda: diagnostics.process.captures.actor_names, "the idle process knows of the capture")

        # When another one has a run, then that is captured
        with bench(given, tuning=soon) as busy:
            actor = busy.actor(work)
            eventually(lambda: knows(busy), "the busy process knows of the capture")
            actor.send()
            busy.finish()
            assert standing(store, capture_id).state == CaptureState.COMPLETE


@IN_SQLITE
def test_the_very_next_run_is_captured_however_long_it_took_to_come(given, store, bench, soon):
    capture_id = ask(store)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: knows(tasks), "the worker knows of it")
        actor.send()
        tasks.finish()

    assert standing(store, capture_id).state == CaptureState.COMPLETE


@IN_SQLITE
def test_a_process_begins_no_more_runs_than_there_are_slots(given, store, bench, stored, soon):
    capture_id = ask(store, runs=3)
    begun = []
    with bench(given, threads=4, tuning=soon) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: knows(tasks), "the worker knows of it")
        process = tasks.diagnostics.process
        take = process.captures.begun
        process.captures.begun = lambda *ids: (begun.append(ids), take(*ids))
        for _ in range(50):
            actor.send()
        tasks.finish()

    assert len(begun) == 3
    assert standing(store, capture_id).captured_runs == 3


def test_a_run_that_another_process_came_before_leaves_no_trace(given, store, bench, stored, soon, keep_knowing):
    capture_id = ask(store)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        keep_knowing(tasks)
        store.announce([running(capture_id)])
        actor.send()
        tasks.finish()

        assert len(stored(given).all_runs()) == 1
        assert [path.name for path in given.spool.rglob("*.entry") if path.stat().st_size > EMPTY_BYTES] == []
    assert standing(store, capture_id).captured_runs == 1


def test_a_run_without_a_slot_ends_what_only_the_capture_asked_for_and_keeps_the_rest(
    given, store_of, bench, stored, soon, keep_knowing
):
    memray = pytest.importorskip("memray")
    given = replace(given, task_diagnostics=("memory",), task_diagnostics_on_request=("memray",), pass_on_depth=1)
    store = store_of(given)
    capture_id = ask(store, names=("memray",))
    may_end, passed_on = threading.Event(), []

    with bench(given, threads=2, tuning=soon) as tasks:
        child = tasks.actor(work, actor_name="child")

        def wait() -> None:
            may_end.wait(PATIENCE_S)
            passed_on.append(child.send().message_id)

        actor = tasks.actor(wait, actor_name="work")
        keep_knowing(tasks)
        store.announce([running(capture_id)])
        task_id = actor.send().message_id
        # Given a run that memray follows, then it is told that there is no slot while the task still runs
        eventually(lambda: any(run.slot_is_lost for run in tuple(tasks.diagnostics.process.runs.values())), "it lost")
        with memray.Tracker(given.data_dir / "other.bin"):  # There is one at a time.
            pass
        may_end.set()
        tasks.finish()

    artifacts = stored(given).artifacts(task_id)
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    assert (artifacts["memray_profile"].status, artifacts["memray_profile"].reason) == ("dropped", NO_SLOT)
    assert [run.capture_id for run in stored(given).runs(task_id)] == [None]
    # And the tasks that it sends are not asked for either
    assert set(stored(given).artifacts(passed_on[0])) == {"memory_profile"}
    assert not stored(given).check()


@IN_SQLITE
def test_a_run_without_a_slot_is_not_sampled_any_more_and_keep_rules_are_for_it(
    given, store, bench, stored, soon, keep_knowing
):
    capture_id = ask(store, names=("pyinstrument",))
    given = replace(given, task_diagnostics=("memory",), keep_if=("failed",))
    may_end, switch_interval_s = threading.Event(), sys.getswitchinterval()
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(lambda: may_end.wait(PATIENCE_S), actor_name="work")
        keep_knowing(tasks)
        store.announce([running(capture_id)])
        task_id = actor.send().message_id
        eventually(lambda: sys.getswitchinterval() != switch_interval_s, "the sampler is at work")
        eventually(lambda: any(run.slot_is_lost for run in tuple(tasks.diagnostics.process.runs.values())), "it lost")
        eventually(lambda: sys.getswitchinterval() == switch_interval_s, "the sampler rests")
        may_end.set()
        tasks.finish()

    artifacts = stored(given).artifacts(task_id)
    assert [artifact.status for artifact in artifacts.values()] == ["dropped"] * 2
    assert "keep rules" in artifacts["memory_profile"].reason


@IN_SQLITE
def test_all_is_what_the_worker_may_collect(given, store, bench, stored, soon):
    capture_id = ask(store, names=("all",))
    with bench(replace(given, task_diagnostics_on_request=("memory", "resources")), tuning=soon) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")
    (run,) = runs_of(store, capture_id)
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile", "resources_profile"}


@IN_SQLITE
def test_all_has_no_options_and_the_names_that_it_stands_for_have(store):
    with pytest.raises(CaptureRequestError, match="all has no options"):
        create(store, "work", {"all": {"interval": 1.0}}, 1, HOUR_S, unknown_actor=True)
    wanted = with_options(["all"], ["memory.interval=1"])
    assert create(store, "work", wanted, 1, HOUR_S, unknown_actor=True).capture.diagnostics == {
        "all": {},
        "memory": {"interval": 1},
    }


@IN_SQLITE
def test_what_is_collected_anyway_is_collected_of_a_captured_run_too(given, store, bench, stored, soon):
    capture_id = ask(store, names=("pyinstrument",))
    with bench(replace(given, task_diagnostics=("memory",)), tuning=soon) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")

    (run,) = runs_of(store, capture_id)
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile", "pyinstrument_profile"}


@IN_SQLITE
def test_a_message_with_a_list_of_its_own_is_not_counted(given, store, bench, stored, soon):
    capture_id = ask(store)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: knows(tasks), "the worker knows of it")
        own = actor.send_with_options(diagnostics=["pyinstrument"]).message_id
        none = actor.send_with_options(diagnostics=[]).message_id
        tasks.finish()

    assert set(stored(given).artifacts(own)) == {"pyinstrument_profile"}
    assert stored(given).runs(none) == []
    assert standing(store, capture_id).captured_runs == 0


@IN_SQLITE
def test_a_worker_whose_settings_lack_a_name_leaves_the_capture_to_others(
    given, store, bench, caplog, monkeypatch, soon
):
    capture_id, looks = ask(store, names=("memory", "pyinstrument")), list[int]()

    def look(session):
        looks.append(1)
        return open_captures(session)

    monkeypatch.setattr("dramatiq_diag.worker.captures.open_captures", look)
    with bench(replace(given, task_diagnostics_on_request=("memory",)), tuning=replace(soon, captures_s=0.1)) as tasks:
        tasks.actor(work).send()
        tasks.finish()
        eventually(lambda: "left to other workers" in caplog.text, "the worker says so")
        seen = len(looks)
        eventually(lambda: len(looks) >= seen + 3, "it has looked a few times more")
        assert not knows(tasks)

    assert standing(store, capture_id).captured_runs == 0
    assert caplog.text.count("left to other workers") == 1
    assert "TASK_DIAGNOSTICS_ON_REQUEST of this one has ['pyinstrument']" in caplog.text


@IN_SQLITE
def test_a_worker_without_the_actor_or_its_queue_captures_nothing(given, store, stub_broker, run_worker, soon):
    ask(store)
    ask(store, "elsewhere")
    ask(store, "here")
    diagnostics = Diagnostics(given, tuning=soon)
    stub_broker.add_middleware(diagnostics)
    dramatiq.actor(work, broker=stub_broker, actor_name="here", queue_name="here")
    dramatiq.actor(work, broker=stub_broker, actor_name="elsewhere", queue_name="elsewhere")
    with run_worker(stub_broker, queues={"here", given.cleanup_queue}):
        eventually(lambda: diagnostics.process.captures.actor_names, "the worker has looked at the captures")
        assert set(diagnostics.process.captures.actor_names) == {"here"}


# After their end.


def test_the_cleanup_removes_what_ended_before_the_retention_and_leaves_the_runs(
    given, store, bench, monkeypatch, soon
):
    clock = FakeClock(monkeypatch)
    complete, in_time, still_open = ask(store), ask(store, "x"), ask(store, "y", duration_s=30 * 86400.0)
    with bench(given, tuning=soon) as tasks:
        actor = tasks.actor(work)
        run_until(tasks, actor, lambda: standing(store, complete).captured_runs, "a run is captured")
    (run,) = runs_of(store, complete)
    pin(store, run.run_id)  # Or it would go by the same retention.

    clock.ahead = timedelta(seconds=given.run_retention - 60)
    Cleanup(store).run()
    assert standing(store, complete) is not None

    clock.ahead = timedelta(seconds=given.run_retention + 60)
    Cleanup(store, dry_run=True).run()
    assert standing(store, complete) is not None
    Cleanup(store).run()
    assert standing(store, complete) is None
    assert standing(store, in_time) is not None  # It ended an hour later.

    clock.ahead += timedelta(hours=2)
    Cleanup(store).run()
    assert standing(store, in_time) is None
    clock.ahead = timedelta(0)
    assert standing(store, still_open).state == CaptureState.OPEN
    assert [each.run_id for each in runs_of(store, complete)] == [run.run_id]
