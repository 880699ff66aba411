"""Permits: as many runs as were asked for, over all worker processes of a database, and not one more."""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from dramatiq_diag.store import permits
from dramatiq_diag.store.captures import (
    CaptureState,
    end,
)
from dramatiq_diag.store.models import Capture
from dramatiq_diag.store.store import Store
from support.captures import ask, claimed, held, lapse, standing, use


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


def test_a_permit_is_one_process_s_until_it_is_given_back(store):
    capture_id, one, other = ask(store), uuid.uuid4(), uuid.uuid4()
    assert claimed(store, capture_id, one) == 1
    assert claimed(store, capture_id, other) is None
    with store.session() as session:
        assert [capture.has_free_permit for capture in permits.open_captures(session)] == [False]
        assert not permits.give_back(session, capture_id, 1, other)
        assert not permits.renew(session, capture_id, 1, other)
        assert permits.give_back(session, capture_id, 1, one)
    assert claimed(store, capture_id, other) == 1


def test_a_lease_that_ended_makes_the_permit_another_s(store):
    capture_id, one, other = ask(store), uuid.uuid4(), uuid.uuid4()
    claimed(store, capture_id, one)
    lapse(store, capture_id)

    assert claimed(store, capture_id, other) == 1
    assert not use(store, capture_id, 1, one)
    assert use(store, capture_id, 1, other)

    # A used one is used, however old the lease is
    lapse(store, capture_id)
    assert claimed(store, capture_id, one) is None
    assert standing(store, capture_id).state == CaptureState.COMPLETE


def test_a_use_may_be_noted_twice_and_is_one(store):
    capture_id, one, run_id = ask(store), uuid.uuid4(), uuid.uuid4()
    claimed(store, capture_id, one)
    for _ in range(2):
        with store.session() as session:
            assert permits.use(session, capture_id, 1, one, run_id)
    assert not use(store, capture_id, 1, one)
    assert standing(store, capture_id).captured_runs == 1
    assert held(store, capture_id)[0].run_id == run_id


def test_the_last_use_ends_a_capture_also_where_two_are_noted_at_once(given, store, store_of):
    stores, barrier = [store_of(given) for _ in range(2)], threading.Barrier(2)
    captures = [ask(store, runs=2) for _ in range(20)]
    permits_of = [[(each, holder := uuid.uuid4(), claimed(store, each, holder)) for each in captures] for _ in stores]

    def use_all(own: Store, mine) -> None:
        for capture_id, holder, number in mine:
            barrier.wait()
            assert use(own, capture_id, number, holder)

    threads = [threading.Thread(target=use_all, args=pair) for pair in zip(stores, permits_of, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [standing(store, each).captured_runs for each in captures] == [2] * 20
    assert None not in [standing(store, each).capture.ended_at for each in captures]


def test_no_permit_is_given_of_a_capture_that_is_over(store):
    by_hand, in_time = ask(store), ask(store)
    claimed(store, by_hand, uuid.uuid4())
    end(store, by_hand)
    with store.session() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(Capture).where(Capture.capture_id == in_time).values(expires_at=past))
    lapse(store, by_hand)

    assert claimed(store, by_hand, uuid.uuid4()) is None
    assert claimed(store, in_time, uuid.uuid4()) is None
    assert standing(store, in_time).state == CaptureState.EXPIRED


def test_those_who_claim_at_once_get_different_permits(given, store, store_of):
    capture_id, numbers = ask(store, runs=40), []
    stores = [store_of(given) for _ in range(4)]

    def claim_all(own: Store) -> None:
        while (number := claimed(own, capture_id, uuid.uuid4())) is not None:
            numbers.append(number)

    threads = [threading.Thread(target=claim_all, args=(own,)) for own in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # One that finds the only free ones locked by others leaves them to those
    assert sorted(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) >= 37
