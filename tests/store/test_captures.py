"""Captures as a person asks for them, and what of it is refused."""

from __future__ import annotations

import threading
import uuid
from datetime import timedelta

import pytest

from dramatiq_diag.store.captures import (
    CaptureNotFoundError,
    CaptureRequestError,
    CaptureState,
    TooManyCapturesError,
    create,
    end,
    list_captures,
)
from dramatiq_diag.store.slots import MAX_OPEN, open_captures
from dramatiq_diag.store.store import Store
from support.captures import HOUR_S, ask, settings_for_captures, standing


@pytest.fixture
def given(settings, database_url):
    return settings_for_captures(settings, database_url)


def test_a_capture_is_open_until_it_is_ended_and_stays_as_it_was(store):
    capture_id = ask(store, runs=3)
    made = standing(store, capture_id)
    assert (made.state, made.captured_runs, made.capture.run_limit) == (CaptureState.OPEN, 0, 3)
    assert made.capture.expires_at - made.capture.created_at == timedelta(hours=1)

    ended = end(store, capture_id)

    assert ended.state == CaptureState.ENDED
    assert end(store, capture_id).capture.ended_at == ended.capture.ended_at
    with store.session() as session:
        assert open_captures(session) == []
        assert [each.capture.capture_id for each in list_captures(session)] == [capture_id]
        assert list_captures(session, only_open=True) == []


def test_a_capture_that_there_is_not_cannot_be_ended(store):
    with pytest.raises(CaptureNotFoundError):
        end(store, uuid.uuid4())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # Runs and times out of bounds.
        *(({"runs": runs}, "1 to 1000 runs") for runs in (0, -1, 1001, 10**9)),
        *(
            ({"duration_s": duration_s}, "1 s to 30 days")
            for duration_s in (0.0, 0.5, -1.0, 366 * 86400.0, float("nan"), float("inf"))
        ),
        # Names that are none.
        *(({"actor_name": name}, "1 to 255 characters") for name in ("", "x" * 256, "a\0b", "\udcff")),
        ({"actor_name": "dramatiq_diag.cleanup_orphans"}, "never diagnosed"),
        # Diagnostics that nobody allowed, or that there are not.
        ({"names": ()}, "name of a diagnostic is needed"),
        ({"names": ("memory", "memray")}, "Neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has 'memray'"),
        ({"names": ("memoy",)}, "TASK_DIAGNOSTICS_ON_REQUEST"),
    ],
)
def test_what_cannot_be_captured_is_refused_in_words(store, changes, said):
    with pytest.raises(CaptureRequestError, match=said):
        ask(store, **changes)
    with store.session() as session:
        assert list_captures(session) == []


def test_options_that_no_diagnostic_has_are_refused(store):
    with pytest.raises(CaptureRequestError, match="memory has no option 'depth'"):
        create(store, "work", {"memory": {"depth": 1}}, 1, HOUR_S)
    with pytest.raises(CaptureRequestError, match=r"memory\.interval"):
        create(store, "work", {"memory": {"interval": 0}}, 1, HOUR_S)


def test_only_so_many_captures_are_open_at_once(store):
    first, *_ = [ask(store) for _ in range(MAX_OPEN)]
    with pytest.raises(TooManyCapturesError):
        ask(store)
    end(store, first)
    ask(store)


def test_those_who_ask_at_once_get_no_more_captures_than_there_may_be(given, store_of):
    stores = [store_of(given) for _ in range(8)]
    for _ in range(MAX_OPEN - 3):
        ask(stores[0], runs=1000)
    barrier, made, refused = threading.Barrier(len(stores)), [], []

    def ask_for_one(own: Store) -> None:
        barrier.wait()
        try:
            made.append(ask(own, runs=1000))
        except TooManyCapturesError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask_for_one, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (3, 5)
    with stores[0].session() as session:
        assert len(list_captures(session, limit=2 * MAX_OPEN)) == MAX_OPEN
