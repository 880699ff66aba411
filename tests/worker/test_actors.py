"""Which actors there are: workers say which they have."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from sqlalchemy import select, update

from dramatiq_diag import Diagnostics
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.policy.propagation import CLEANUP_ACTOR
from dramatiq_diag.store.captures import CaptureState
from dramatiq_diag.store.models import WorkerActor
from dramatiq_diag.store.worker_actors import note_actors
from support import eventually
from support.captures import ask, knows, noted, standing, work
from support.logs import is_rare
from support.store import IN_SQLITE


@pytest.fixture
def given(settings, database_url):
    made = settings(database_url=database_url, task_diagnostics_on_request=["memory"], run_retention=7 * 86400)
    made.data_dir.mkdir()
    return made


def last_seen(store):
    with store.session() as session:
        return session.execute(select(WorkerActor.last_seen_at)).scalars().all()


def test_a_worker_says_which_actors_it_has_in_the_queues_that_it_listens_to(
    given, store, stub_broker, run_worker, soon
):
    diagnostics = Diagnostics(given, tuning=soon)
    stub_broker.add_middleware(diagnostics)
    dramatiq.actor(work, broker=stub_broker, actor_name="here", queue_name="here")
    dramatiq.actor(work, broker=stub_broker, actor_name="also-here", queue_name="here")
    dramatiq.actor(work, broker=stub_broker, actor_name="elsewhere", queue_name="elsewhere")
    with run_worker(stub_broker, queues={"here", given.cleanup_queue}):
        eventually(lambda: noted(store), "the worker has said it")
        assert CLEANUP_ACTOR in stub_broker.actors
        assert noted(store) == {"here": "here", "also-here": "here"}


@IN_SQLITE
def test_an_actor_that_is_declared_later_is_said_later(given, store, bench, soon):
    with bench(given, tuning=soon) as tasks:
        tasks.actor(work, actor_name="early")
        eventually(lambda: set(noted(store)) == {"early"}, "the worker has said it")
        tasks.actor(work, actor_name="late")
        eventually(lambda: set(noted(store)) == {"early", "late"}, "the worker has said it of the other too")


@IN_SQLITE
def test_a_worker_says_it_again_now_and_then_and_not_all_the_time(given, store, bench, monkeypatch, soon):
    calls, looks = [], []

    def counted(session, actors):
        calls.append(actors)
        note_actors(session, actors)

    monkeypatch.setattr("dramatiq_diag.worker.contact.note_actors", counted)
    monkeypatch.setattr("dramatiq_diag.worker.captures.open_captures", lambda session: looks.append(session) or [])
    with bench(given, tuning=replace(soon, captures_s=0.0)) as tasks:
        tasks.actor(work)
        eventually(lambda: noted(store), "the worker has said it")
        count, seen = len(calls), len(looks)
        eventually(lambda: len(looks) > seen + 3, "the worker has looked around several times")
        assert len(calls) == count

    long_ago = datetime.now(UTC) - timedelta(hours=2)
    with store.session() as session:
        session.execute(update(WorkerActor).values(last_seen_at=long_ago))
    with bench(given, tuning=replace(soon, actors_s=0.2)) as tasks:
        tasks.actor(work)
        eventually(lambda: len(calls) > count + 3, "the worker has said it again and again")
    assert last_seen(store)[0] > long_ago


def test_what_could_not_be_said_is_said_later(given, store, bench, monkeypatch, caplog, soon):
    calls = []

    def away(session, actors):
        calls.append(actors)
        raise StoreUnavailableError

    began_s = time.monotonic()
    with bench(given, tuning=replace(soon, backoff_s=(0.05, 0.05))) as tasks:
        actor = tasks.actor(work)
        with monkeypatch.context() as patch:
            patch.setattr("dramatiq_diag.worker.contact.note_actors", away)
            eventually(lambda: len(calls) > 3, "the worker tried several times")
            assert is_rare(caplog.text.count("could not talk to the database"), began_s)

            # Captures are looked at nevertheless, and runs are published
            capture_id = ask(store)
            eventually(lambda: knows(tasks), "the worker knows of it")
            actor.send()
            tasks.finish()
            assert standing(store, capture_id).state == CaptureState.COMPLETE

        eventually(lambda: noted(store), "the worker has said it")


@IN_SQLITE
def test_a_process_that_only_sends_says_nothing(given, store, stub_broker):
    stub_broker.add_middleware(Diagnostics(given))
    dramatiq.actor(work, broker=stub_broker).send()
    assert noted(store) == {}
