"""Captures in a worker while the database fails, and a permit that went to another process."""

from __future__ import annotations

import uuid

import pytest

from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.store import permits
from support import eventually
from support.captures import ask, claimed, has_a_permit, lapse, look, run_until, runs_of, standing, work


@pytest.fixture
def given(settings, database_url):
    made = settings(
        database_url=database_url, task_diagnostics=[], task_diagnostics_on_request=["memory", "pyinstrument"]
    )
    made.data_dir.mkdir()
    return made


@pytest.fixture
def store(given, store_of):
    return store_of(given)


def failing_once(step, calls):
    """Returns: What fails as without a database the first time, and then is the step; it notes each call."""

    def call(*values):
        calls.append(values)
        if len(calls) == 1:
            raise StoreUnavailableError
        return step(*values)

    return call


def test_while_the_database_is_away_captures_pause_and_tasks_run_on(given, store, bench, monkeypatch, caplog, soon):
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []

        def away(session):
            calls.append(session)
            raise StoreUnavailableError

        monkeypatch.setattr(permits, "open_captures", away)
        capture_id = ask(store)
        eventually(lambda: len(calls) > 3, "the worker tried several times")
        actor.send()
        tasks.finish()
        assert caplog.text.count("Captures pause, and tasks run on") == 1

        monkeypatch.undo()
        look(tasks)
        run_until(tasks, actor, lambda: standing(store, capture_id).captured_runs, "a run is captured")


def test_a_run_that_could_not_be_told_of_is_told_of_later(given, store, bench, monkeypatch, soon):
    capture_id = ask(store, runs=2)
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")

        monkeypatch.setattr(permits, "use", failing_once(permits.use, calls))
        actor.send()
        eventually(lambda: standing(store, capture_id).captured_runs == 1, "the run is told of")
        tasks.finish()

    assert len(runs_of(store, capture_id)) == 1


def test_a_run_that_was_told_of_though_the_answer_was_lost_is_no_run_more(
    given, store, bench, monkeypatch, caplog, soon
):
    capture_id, use_of = ask(store), permits.use
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")

        def loses_its_first_answer(session, *values):
            used = use_of(session, *values)
            calls.append(used)
            if len(calls) == 1:
                session.commit()
                raise StoreUnavailableError
            return used

        monkeypatch.setattr(permits, "use", loses_its_first_answer)
        actor.send()
        eventually(lambda: len(calls) == 2, "the run is told of again")
        tasks.finish()

    assert "lease had ended" not in caplog.text
    assert standing(store, capture_id).captured_runs == 1


def test_a_complete_capture_is_ended_though_the_database_failed_in_between(given, store, bench, monkeypatch, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        actor, calls = tasks.actor(work), []
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")

        monkeypatch.setattr(permits, "end_if_complete", failing_once(permits.end_if_complete, calls))
        actor.send()
        tasks.finish()
        eventually(lambda: standing(store, capture_id).captured_runs, "the run is told of")
        eventually(lambda: len(calls) > 1, "it was tried again")

    assert standing(store, capture_id).capture.ended_at is not None


def test_a_complete_capture_is_ended_by_a_worker_that_stops(given, store, bench, monkeypatch, soon):
    capture_id = ask(store)
    with bench(given) as tasks:
        actor, process = tasks.actor(work), tasks.diagnostics.process.captures
        take_in = process._take_in

        def stop_and_take_in(news):
            process._stopping = process._stopping or news is not None
            take_in(news)

        monkeypatch.setattr(process, "_take_in", stop_and_take_in)
        eventually(lambda: has_a_permit(tasks), "the worker has a permit")
        actor.send()
        tasks.finish()

    assert standing(store, capture_id).captured_runs == 1
    assert standing(store, capture_id).capture.ended_at is not None


def test_a_process_whose_lease_went_to_another_one_claims_the_next_permit(given, store, bench, monkeypatch, soon):
    capture_id, looks, renewed = ask(store, runs=2), [], []
    open_captures, renew = permits.open_captures, permits.renew
    monkeypatch.setattr(permits, "open_captures", lambda session: looks.append(session) or open_captures(session))
    monkeypatch.setattr(permits, "renew", lambda *values: renewed.append(renew(*values)) or renewed[-1])
    with bench(given) as tasks:
        tasks.actor(work)
        eventually(lambda: has_a_permit(tasks), "the process has a permit")
        lapse(store, capture_id)
        assert claimed(store, capture_id, uuid.uuid4()) == 1

        tasks.diagnostics.process.captures._mine[capture_id].usable_until -= permits.LEASE_S / 2
        eventually(lambda: False in renewed, "the lease could not be renewed")
        count = len(looks)
        eventually(lambda: len(looks) > count + 3, "the process has looked a few times")
        assert tasks.diagnostics.process.captures._mine[capture_id].number == 2
