"""After which time a run is stuck."""

from __future__ import annotations

import pytest

from dramatiq_diag.policy.stuck_rule import AUTO, LEAST_S, MIN_RUNS, UNKNOWN_S, StuckRule, UsualDuration


@pytest.mark.parametrize(
    ("run_count", "p95_ms", "limit_s"),
    [
        (100, 60_000.0, 600.0),
        (MIN_RUNS, 60_000.0, 600.0),
        (100, 10.0, LEAST_S),
        (MIN_RUNS - 1, 60_000.0, UNKNOWN_S),
        (0, None, UNKNOWN_S),
    ],
)
def test_auto_is_ten_times_what_an_actor_usually_takes(run_count, p95_ms, limit_s):
    rule = StuckRule(after=AUTO)
    assert rule.limit_s(UsualDuration(run_count=run_count, p95_ms=p95_ms)) == limit_s
    assert rule.least_s <= limit_s


def test_without_a_usual_duration_auto_waits_for_an_hour():
    assert StuckRule(after=AUTO).limit_s(None) == UNKNOWN_S


def test_a_duration_holds_for_every_actor():
    rule = StuckRule(after=7.0)
    assert (rule.is_on, rule.needs_usual, rule.least_s) == (True, False, 7.0)
    assert rule.limit_s(UsualDuration(run_count=100, p95_ms=1.0)) == 7.0


def test_zero_turns_it_off():
    assert not StuckRule(after=0.0).is_on
