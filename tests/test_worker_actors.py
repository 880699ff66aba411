"""Which actors there are: workers say which they have, and a capture of any other is refused in words."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dramatiq
import pytest
from sqlalchemy import select, update
from support import FakeClock, eventually
from test_captures import ask, look, soon, standing  # noqa: F401 - `soon` is a fixture.
from test_store import bundle, run_record

from dramatiq_diag import Diagnostics
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.policy.propagation import CLEANUP_ACTOR
from dramatiq_diag.store.actor_stats import list_actors, summarize_actor
from dramatiq_diag.store.captures import CaptureRequestError, CaptureState, create, list_captures
from dramatiq_diag.store.models import WorkerActor
from dramatiq_diag.store.worker_actors import close_names, is_known, note_actors
from dramatiq_diag.worker import captures as capturing


def work() -> None:
    sum(range(1000))


@pytest.fixture
def given(settings, database_url):
    made = settings(database_url=database_url, task_diagnostics_on_request=["memory"], run_retention=7 * 86400)
    made.data_dir.mkdir()
    return made


@pytest.fixture
def store(given, store_of):
    return store_of(given)


def note(store, *names):
    with store.session() as session:
        note_actors(session, dict.fromkeys(names, "default"))


def noted(store):
    """Returns: The actors that workers said to have -> their queues."""
    with store.session() as session:
        return {row.actor_name: row.queue_name for row in session.execute(select(WorkerActor)).scalars()}


def last_seen(store):
    with store.session() as session:
        return session.execute(select(WorkerActor.last_seen_at)).scalars().all()


def known(store, name):
    with store.session() as session:
        return is_known(session, name)


def close(store, name):
    with store.session() as session:
        return close_names(session, name)


# Workers say it.


def test_a_worker_says_which_actors_it_has_in_the_queues_that_it_listens_to(given, store, stub_broker, run_worker):
    diagnostics = Diagnostics(given)
    stub_broker.add_middleware(diagnostics)
    dramatiq.actor(work, broker=stub_broker, actor_name="here", queue_name="here")
    dramatiq.actor(work, broker=stub_broker, actor_name="also-here", queue_name="here")
    dramatiq.actor(work, broker=stub_broker, actor_name="elsewhere", queue_name="elsewhere")
    with run_worker(stub_broker, queues={"here", given.cleanup_queue}):
        eventually(lambda: noted(store), "the worker has said it")
        assert CLEANUP_ACTOR in stub_broker.actors
        assert noted(store) == {"here": "here", "also-here": "here"}


def test_an_actor_that_is_declared_later_is_said_later(given, store, bench, soon):  # noqa: F811
    with bench(given) as tasks:
        tasks.actor(work, actor_name="early")
        eventually(lambda: set(noted(store)) == {"early"}, "the worker has said it")
        tasks.actor(work, actor_name="late")
        eventually(lambda: set(noted(store)) == {"early", "late"}, "the worker has said it of the other too")


def test_a_worker_says_it_again_now_and_then_and_not_all_the_time(given, store, bench, monkeypatch, soon):  # noqa: F811
    calls = []

    def counted(session, actors):
        calls.append(actors)
        note_actors(session, actors)

    monkeypatch.setattr(capturing, "note_actors", counted)
    looked = []
    monkeypatch.setattr(capturing.CaptureClient, "_look", lambda self: looked.append(self))
    with bench(given) as tasks:
        tasks.actor(work)
        eventually(lambda: noted(store), "the worker has said it")
        count, looks = len(calls), len(looked)
        eventually(lambda: len(looked) > looks + 3, "the worker has looked around several times")
        assert len(calls) == count

        long_ago = datetime.now(UTC) - timedelta(hours=2)
        with store.session() as session:
            session.execute(update(WorkerActor).values(last_seen_at=long_ago))
        tasks.diagnostics.process.captures._note_due = 0.0
        eventually(lambda: last_seen(store)[0] > long_ago, "the worker has said it again")


def test_what_could_not_be_said_is_said_later(given, store, bench, monkeypatch, caplog, soon):  # noqa: F811
    calls = []

    def away(session, actors):
        calls.append(actors)
        raise StoreUnavailableError

    monkeypatch.setattr(capturing, "note_actors", away)
    with bench(given) as tasks:
        actor = tasks.actor(work)
        eventually(lambda: len(calls) > 3, "the worker tried several times")
        assert caplog.text.count("Captures pause, and tasks run on") == 1

        # Captures are looked at nevertheless
        capture_id = ask(store)
        look(tasks)
        eventually(lambda: tasks.diagnostics.process.captures._mine, "the worker has the permit")
        actor.send()
        tasks.finish()

        monkeypatch.undo()
        eventually(lambda: noted(store), "the worker has said it")
    assert standing(store, capture_id).state == CaptureState.COMPLETE


def test_a_process_that_only_sends_says_nothing(given, store, stub_broker):
    stub_broker.add_middleware(Diagnostics(given))
    dramatiq.actor(work, broker=stub_broker).send()
    assert noted(store) == {}


# What is written.


def test_any_number_of_processes_may_say_it_at_once(given, store, store_of):
    names, failures = [f"actor-{number}" for number in range(40)], []
    stores = [store_of(given) for _ in range(6)]
    barrier = threading.Barrier(len(stores))

    def say(own, order):
        try:
            barrier.wait()
            for _ in range(5):
                note(own, *order)
        except Exception as error:
            failures.append(error)

    orders = [names[shift:] + names[:shift] for shift in (0, 10, 20, 30)] + [names[::-1]] * 2
    threads = [threading.Thread(target=say, args=pair) for pair in zip(stores, orders, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert set(noted(store)) == set(names)


def test_an_actor_is_in_the_queue_where_it_was_last_seen(store):
    for queue_name in ("old", "new"):
        with store.session() as session:
            note_actors(session, {"work": queue_name})
    assert noted(store) == {"work": "new"}


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("x" * 255, "x" * 255),
        ("x" * 10_000, "x" * 254 + "…"),
        ("a\0b", "a\ufffdb"),
        ("\ud800", "?"),
        ("ключ", "ключ"),
        ("'; DROP TABLE worker_actors; --", "'; DROP TABLE worker_actors; --"),
    ],
)
def test_a_name_of_any_kind_fits(store, given_name, kept):
    with store.session() as session:
        note_actors(session, {given_name: given_name})
    assert noted(store) == {kept: kept}
    assert known(store, given_name)


def test_names_that_become_one_are_one(store):
    note(store, "\ud800", "\udfff", "?")
    assert noted(store) == {"?": "default"}


def test_no_actors_are_no_rows(store):
    note(store)
    assert noted(store) == {}


# After their end.


def test_the_cleanup_removes_actors_that_no_worker_names_any_more(store, monkeypatch):
    clock = FakeClock(monkeypatch)
    note(store, "work")

    clock.ahead = timedelta(days=7) - timedelta(hours=1)
    Cleanup(store).run()
    clock.ahead = timedelta(days=7) + timedelta(hours=1)
    Cleanup(store, dry_run=True).run()
    assert set(noted(store)) == {"work"}

    with store.session() as session:
        note_actors(session, {"other": "default"})
        session.execute(update(WorkerActor).where(WorkerActor.actor_name == "other").values(last_seen_at=clock.now()))
    Cleanup(store).run()
    assert set(noted(store)) == {"other"}


def test_the_cleanup_leaves_actors_for_a_day_however_short_the_retention(given, store_of, monkeypatch):
    clock = FakeClock(monkeypatch)
    store = store_of(replace(given, run_retention=60.0))
    note(store, "work")

    clock.ahead = timedelta(hours=23)
    Cleanup(store).run()
    assert set(noted(store)) == {"work"}
    clock.ahead = timedelta(hours=25)
    Cleanup(store).run()
    assert noted(store) == {}


# Who is known, and captures of those who are not.


def test_known_are_actors_of_workers_and_of_stored_runs(store):
    note(store, "of-a-worker")
    store.publish([bundle(run_record(actor_name="of-a-run"))])
    assert [known(store, name) for name in ("of-a-worker", "of-a-run", "of-nobody", "", "OF-A-RUN", "of-a%")] == [
        *(True, True, False, False, False, False)
    ]


def test_close_to_a_name_are_those_of_both_kinds_that_are_most_like_it(store):
    assert close(store, "resize_image") == []
    note(store, "resize_image", "send_mail")
    store.publish([bundle(run_record(actor_name=name)) for name in ("resize_video", "crunch", "resize_images") * 3])

    assert close(store, "resize_imgae") == ["resize_image", "resize_images", "resize_video"]
    assert close(store, "crunsh") == ["crunch"]
    assert close(store, "zzz") == []


def test_a_capture_of_an_actor_that_nobody_knows_is_refused_and_names_those_that_are_like_it(store):
    note(store, "resize_image")
    store.publish([bundle(run_record(actor_name="resize_video"))])

    with pytest.raises(CaptureRequestError) as caught:
        create(store, "resize_imgae", {"memory": {}}, 1, 60.0)
    assert str(caught.value) == (
        "No worker has said that it has an actor 'resize_imgae', and no run of one is stored; there is 'resize_image', "
        "'resize_video'. Where its workers have not started yet, ask with `unknown_actor` (on the command line "
        "`--unknown-actor`)."
    )
    with pytest.raises(CaptureRequestError, match=r"'\\x1b', and no run of one is stored\. Where its workers"):
        create(store, "\x1b", {"memory": {}}, 1, 60.0)
    with store.session() as session:
        assert list_captures(session) == []


@pytest.mark.parametrize("name", ["of-a-worker", "of-a-run"])
def test_a_capture_of_a_known_actor_needs_no_more(store, name):
    note(store, "of-a-worker")
    store.publish([bundle(run_record(actor_name="of-a-run"))])
    assert create(store, name, {"memory": {}}, 1, 60.0).state == CaptureState.OPEN


def test_a_capture_of_an_actor_that_nobody_knows_yet_may_be_asked_for_as_that(store):
    assert create(store, "new", {"memory": {}}, 1, 60.0, unknown_actor=True).state == CaptureState.OPEN


# In lists.


def test_actors_of_workers_are_listed_beside_those_of_runs(store):
    store.publish([bundle(run_record(actor_name=name)) for name in ("b", "d", "d")])
    note(store, "a", "b", "c")

    with store.session() as session:
        actors = list_actors(session)
        assert [summarize_actor(session, each.actor_name) for each in actors] == actors
    assert [(each.actor_name, each.run_count) for each in actors] == [("a", 0), ("b", 1), ("c", 0), ("d", 2)]
    first = actors[0]
    assert (first.failed_count, first.last_started_at, first.median_duration_ms) == (0, None, None)
    assert (first.p95_duration_ms, first.max_peak_rss_bytes) == (None, None)
