"""The moments at which calls are read."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from dramatiq_diag.collectors.accounting.plan import Plan


class Planned:
    """Has room for so many moments, and keeps those that are planned."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.moments: list[tuple[float, float]] = []

    def plan(self, at_s: float, until_s: float, _native_ids: Collection[int]) -> None:
        self.moments.append((at_s, until_s))


def intervals(plan: Plan, now_s: float, free: int = 4) -> list[tuple[float, float]]:
    """Fills the room with intervals of 1 s at least. Returns: The moments, each with the end of its interval."""
    planned = Planned(free)
    plan.fill(planned, (), 1.0, now_s)  # type: ignore[arg-type]
    return planned.moments


def test_one_moment_lies_in_each_interval():
    moments = intervals(Plan(), 100.0)
    assert [until_s for _, until_s in moments] == [101.0, 102.0, 103.0, 104.0]
    assert all(until_s - 1.0 <= at_s <= until_s for at_s, until_s in moments)


def test_the_moments_are_not_all_at_the_same_place():
    places = {round(until_s - at_s, 3) for at_s, until_s in intervals(Plan(), 0.0, free=100)}
    assert len(places) > 50


def test_the_plan_goes_on_where_it_ended():
    plan = Plan()
    intervals(plan, 100.0)
    assert [until_s for _, until_s in intervals(plan, 102.0, free=1)] == [105.0]


def test_a_plan_that_had_passed_begins_now_with_longer_intervals_that_shrink_again():
    plan = Plan()
    intervals(plan, 100.0)
    assert [until_s for _, until_s in intervals(plan, 200.0, free=1)] == [201.5]
    assert [until_s for _, until_s in intervals(plan, 200.5, free=1)] == [pytest.approx(201.5 + 1.5 * 0.99)]
    for _ in range(200):
        intervals(plan, 0.0, free=0)
    (last,) = intervals(plan, 0.0, free=1)
    assert last[1] - (201.5 + 1.5 * 0.99) == pytest.approx(1.0)
