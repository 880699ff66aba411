"""Actors of workers: how they are kept, and that a capture of any other is refused in words."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import update

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.store.actor_stats import list_actors, summarize_actor
from dramatiq_diag.store.captures import CaptureRequestError, CaptureState, create, list_captures
from dramatiq_diag.store.models import WorkerActor
from dramatiq_diag.store.worker_actors import close_names, is_known, note_actors
from support.captures import note, noted
from support.records import bundle, run_record
from support.store import FakeClock


@pytest.fixture
def given(settings, database_url):
    made = settings(database_url=database_url, task_diagnostics_on_request=["memory"], run_retention=7 * 86400)
    made.data_dir.mkdir()
    return made


def known(store, name):
    with store.session() as session:
        return is_known(session, name)


def close(store, name):
    with store.session() as session:
        return close_names(session, name)


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
