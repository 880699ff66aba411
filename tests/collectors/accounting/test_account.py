"""What one run was seen in, by samples that the test gives."""

from __future__ import annotations

import pytest

from dramatiq_diag.collectors.accounting.account import Account, Name
from dramatiq_diag.collectors.accounting.calls import GIL, RUNNING, SLEEP


def account():
    return Account(1, 2, lambda: 0.0)


def test_the_time_of_a_call_is_shared_by_the_places_that_were_seen_with_it():
    seen = account()
    for _ in range(4):
        seen.add("read", 1.0)
    for place in ("a", "b", "b", "b"):
        seen.note("read", place, 0.01, lambda place=place: Name(("blocked", place)))

    assert seen.seen(0.0) == {("blocked", "a"): 1.0, ("blocked", "b"): 3.0}


def test_a_place_that_stands_for_more_time_has_more_of_it():
    seen = account()
    seen.add("read", 4.0)
    seen.note("read", "a", 0.01, lambda: Name(("blocked", "a")))
    seen.note("read", "b", 0.03, lambda: Name(("blocked", "b")))
    seen.note("read", "b", 0.0, lambda: Name(("blocked", "b")))

    assert seen.seen(0.0) == {("blocked", "a"): pytest.approx(1.0, 0.01), ("blocked", "b"): pytest.approx(3.0, 0.01)}


def test_where_the_kernel_does_not_count_the_run_queue_a_thread_that_could_run_did_not_wait_for_the_gil():
    seen = account()
    seen.add(RUNNING, 4.0)
    seen.add(GIL, 1.0)

    assert seen.seen(3.0, is_queue_counted=False) == {("unknown", None): 1.0, ("gil_wait", None): 1.0}
    assert seen.seen(3.0, is_queue_counted=True) == {("unknown", None): 0.0, ("gil_wait", None): 1.0}


def test_a_call_whose_place_was_never_seen_is_blocked_on_nothing_that_is_known():
    seen = account()
    seen.add("read", 1.0)
    seen.note("write", "a", 1.0, lambda: Name(("blocked", "a")))
    assert seen.seen(0.0) == {("blocked", None): 1.0}

    seen.note("read", "b", 0.0, lambda: None)
    assert seen.seen(0.0) == {("blocked", None): 1.0}


def test_a_name_that_is_not_whole_is_asked_for_again_and_kept_if_there_is_no_better_one():
    seen, names = account(), iter([None, "an answer", "an answer", "127.0.0.1:5432", "not asked for"])

    def name():
        on = next(names)
        return None if on is None else Name(("awaiting", on), is_whole=on != "an answer")

    found = []
    seen.add("recv", 1.0)
    for _ in range(6):
        seen.note("recv", "place", 0.1, name)
        found += [on for _, on in seen.seen(0.0)]
    assert found == [None, "an answer", "an answer", "127.0.0.1:5432", "127.0.0.1:5432", "127.0.0.1:5432"]
    assert next(names) == "not asked for"


def test_a_name_that_never_gets_whole_is_asked_for_a_few_times():
    seen, asked = account(), []

    def name():
        asked.append(None)
        return Name(("awaiting", "an answer"), is_whole=False)

    seen.add("recv", 1.0)
    for _ in range(100):
        seen.note("recv", "place", 0.1, name)
    assert len(asked) == 5
    assert seen.seen(0.0) == {("awaiting", "an answer"): 1.0}


def test_what_a_coroutine_had_of_its_steps_beside_cpu_time_and_waits_was_on_the_run_queue():
    seen = Account(1, 2, lambda: 0.0, lambda: None)
    seen.add(RUNNING, 9.0)
    seen.add(SLEEP, 1.0)
    seen.in_steps_s = 10.0

    # Samples stand for twice the time: of 5 s a tenth was a sleep, and 3 s were CPU time
    assert seen.seen(3.0, 5.0) == {("run_queue", None): pytest.approx(3.0), ("blocked", "sleep"): 1.0}
    # It slept more than a sample more or less can tell
    assert seen.seen(4.9, 5.0) == {("run_queue", None): 0.0, ("blocked", "sleep"): 1.0}
    assert seen.seen(None, 5.0) == {("unknown", None): 9.0, ("blocked", "sleep"): 1.0}
