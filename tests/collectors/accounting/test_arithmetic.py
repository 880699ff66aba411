"""The parts of an account: they add up to the wall time exactly, whatever was counted and seen."""

from __future__ import annotations

import pytest

from dramatiq_diag.collectors.accounting.arithmetic import MAX_PARTS, OTHERS, Times, Where, divide

GIL: Where = ("gil_wait", None)
SLEEP: Where = ("blocked", "sleep")
PEER: Where = ("blocked", "127.0.0.1:5432")


def divided(wall_s: float, spent: Times, seen: dict[Where, float]) -> dict[Where, float]:
    parts = divide(wall_s, spent, seen)
    assert sum(round(part["ms"] * 1000) for part in parts) == round(wall_s * 1e6)
    assert all(part["ms"] > 0 for part in parts)
    found = {(part["part"], part["on"]): part["ms"] for part in parts}
    assert len(found) == len(parts)
    return found


def test_what_the_counters_leave_is_divided_by_what_was_seen() -> None:
    assert divided(10.0, Times(2.0, 1.0, 0.5), {GIL: 0.2, SLEEP: 0.6}) == {
        ("cpu", None): 1500,
        ("gc", None): 500,
        ("run_queue", None): 1000,
        GIL: 1750,
        SLEEP: 5250,
    }


def test_without_a_sample_the_rest_is_not_known() -> None:
    assert divided(1.0, Times(0.25, None, None), {}) == {("cpu", None): 250, ("unknown", None): 750}
    assert divided(1.0, Times(0.25), {SLEEP: 0.0}) == {("cpu", None): 250, ("unknown", None): 750}


def test_without_any_counter_the_samples_divide_all() -> None:
    assert divided(1.0, Times(None), {SLEEP: 3.0, ("unknown", None): 1.0}) == {SLEEP: 750, ("unknown", None): 250}
    assert divided(1.0, Times(None), {}) == {("unknown", None): 1000}


@pytest.mark.parametrize(
    ("spent", "expected"),
    [
        (Times(1.5, 0.5, 0.0), {("cpu", None): 1000}),
        (Times(0.7, 0.5, 0.1), {("cpu", None): 600, ("gc", None): 100, ("run_queue", None): 300}),
        (Times(0.4, 0.6, 0.9), {("gc", None): 400, ("run_queue", None): 600}),
        (Times(-0.1, -0.1, -0.1), {SLEEP: 1000}),
    ],
    ids=[
        "more CPU than time",
        "more of the run queue than is left",
        "more of the collector than of the CPU",
        "below 0",
    ],
)
def test_no_part_is_negative_where_the_counters_say_more_than_the_clock(
    spent: Times, expected: dict[Where, float]
) -> None:
    assert divided(1.0, spent, {SLEEP: 1.0}) == expected


def test_a_run_of_no_time_has_no_part() -> None:
    assert divide(0.0, Times(0.1, 0.1, 0.1), {SLEEP: 1.0}) == []
    assert divide(-0.001, Times(0.0), {}) == []


def test_thirds_add_up() -> None:
    thirds: dict[Where, float] = {GIL: 1.0, SLEEP: 1.0, PEER: 1.0}

    found = divided(0.000_100, Times(0.0), thirds)

    assert sorted(found.values()) == [0.033, 0.033, 0.034]


def test_a_coroutine_waits_in_its_steps_for_the_machine_and_between_them_for_others() -> None:
    seen: dict[Where, float] = {
        GIL: 0.1,
        ("run_queue", None): 0.3,
        ("awaiting", "sleep"): 9.0,
        ("loop_wait", None): 1.0,
    }

    assert divided(10.0, Times(1.0, steps_s=5.0), seen) == {
        ("cpu", None): 1000,
        GIL: 1000,
        ("run_queue", None): 3000,
        ("awaiting", "sleep"): 4500,
        ("loop_wait", None): 500,
    }
    # Where its steps were not measured, all samples divide all that is left
    assert divided(10.0, Times(None), seen)[("awaiting", "sleep")] == pytest.approx(10_000 * 9 / 10.4, abs=0.01)


def test_a_wait_for_the_loop_that_is_known_is_no_part_of_the_division() -> None:
    times = Times(1.0, steps_s=2.0, loop_wait_s=3.0)
    assert divided(10.0, times, {("awaiting", "sleep"): 4.0, ("loop_wait", None): 1.0}) == {
        ("cpu", None): 1000,
        ("unknown", None): 1000,
        ("awaiting", "sleep"): 4000,
        ("loop_wait", None): 4000,
    }
    assert divided(10.0, Times(1.0, steps_s=1.0, loop_wait_s=9.5), {}) == {
        ("cpu", None): 1000,
        ("loop_wait", None): 9000,
    }


def test_parts_come_in_a_fixed_order_of_kinds_and_the_largest_first() -> None:
    parts = divide(1.0, Times(0.1, 0.1, 0.0), {PEER: 1.0, SLEEP: 2.0, GIL: 1.0})

    assert [(part["part"], part["on"]) for part in parts] == [("cpu", None), GIL, ("run_queue", None), SLEEP, PEER]


def test_of_very_many_waits_the_shortest_become_one() -> None:
    seen: dict[Where, float] = {("blocked", f"host:{port}"): float(port) for port in range(1, MAX_PARTS + 11)}

    found = divided(1.0, Times(0.0), seen)

    assert len(found) == MAX_PARTS + 1
    assert found["blocked", OTHERS] == pytest.approx(1000 * sum(range(1, 11)) / sum(seen.values()), abs=0.01)


def test_times_that_are_not_known_have_no_difference() -> None:
    assert Times(3.0, None, 1.0).since(Times(1.0, 1.0, 2.0)) == Times(2.0, None, 0.0)
