"""What is usual: the quantiles of an actor's durations."""

from __future__ import annotations

import random
from typing import Any
from unittest.mock import Mock

import pytest

from dramatiq_diag.policy.keep_policy import KeepPolicy
from dramatiq_diag.policy.keep_rules import Facts
from dramatiq_diag.policy.quantiles import MIN_COUNT, DurationHistogram
from dramatiq_diag.statuses import RunStatus


@pytest.mark.parametrize("share", [0.5, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("kind", ["uniform", "log-normal", "two humps"])
def test_a_quantile_is_off_by_less_than_a_bucket(kind, share):
    drawn = random.Random(7)
    draw = {
        "uniform": lambda: drawn.uniform(1, 1000),
        "log-normal": lambda: drawn.lognormvariate(3, 1.5),
        "two humps": lambda: drawn.gauss(*drawn.choice([(10, 1), (5000, 100)])),
    }[kind]
    durations = [draw() for _ in range(1500)]

    usual = DurationHistogram()
    for duration_ms in durations:
        usual.add(duration_ms)

    exact_ms = sorted(durations)[int(share * len(durations))]
    assert usual.quantile_ms(share) == pytest.approx(exact_ms, rel=0.06)


def test_a_few_durations_say_nothing_of_what_is_usual():
    usual = DurationHistogram()
    for _ in range(MIN_COUNT - 1):
        usual.add(10.0)
    assert usual.quantile_ms(0.95) is None

    usual.add(10.0)
    assert usual.quantile_ms(0.95) == pytest.approx(10.0, rel=0.06)


def test_what_was_usual_is_forgotten():
    usual = DurationHistogram()
    for _ in range(5000):
        usual.add(10.0)
    for _ in range(20_000):
        usual.add(1000.0)

    assert usual.quantile_ms(0.01) == pytest.approx(1000.0, rel=0.06)


def test_the_memory_of_what_is_usual_is_bounded():
    drawn = random.Random(7)
    usual = DurationHistogram()
    for _ in range(50_000):
        usual.add(10 ** drawn.uniform(-20, 20))
    for odd in (0.0, -1.0, 1e300, float("inf")):
        usual.add(odd)

    assert usual.bucket_count < 600
    assert usual.weight < 2100


def test_actors_that_are_known_are_bounded():
    policy = KeepPolicy(["slower_than>p95"], Mock(), max_actors=10)

    def unmet(name: str) -> Any:
        actor: Any = Mock(actor_name=name, options={})
        return policy.unmet_rules(actor, RunStatus.SUCCEEDED, Facts(failed=False, duration_ms=1.0))

    # Given an actor whose usual duration is known
    for _ in range(MIN_COUNT):
        unmet("first")
    assert unmet("first") == ["slower_than>p95"]

    # When as many others as fit beside it have run, it still is; with one more it is forgotten
    for number in range(9):
        unmet(f"actor-{number}")
    assert unmet("first") == ["slower_than>p95"]
    for number in range(10):
        unmet(f"actor-{number}")
    assert unmet("first") is None
