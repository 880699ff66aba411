"""Keep rules: what is read out of them."""

from __future__ import annotations

import pytest

from dramatiq_diag.policy.keep_rules import Facts, parse_rules
from dramatiq_diag.policy.quantiles import DurationHistogram
from dramatiq_diag.text import MIB

#: Rule -> what the facts of a run have to be for it to hold, and what makes it not hold.
RULES = [
    ("failed", {"failed": True}, {"failed": False}),
    ("duration>5s", {"duration_ms": 5001.0}, {"duration_ms": 5000.0}),
    ("duration>1.5min", {"duration_ms": 90_001.0}, {"duration_ms": 89_999.0}),
    ("duration>0ms", {"duration_ms": 0.1}, {"duration_ms": 0.0}),
    ("peak_rss>500MiB", {"peak_rss_bytes": 500 * MIB + 1}, {"peak_rss_bytes": 500 * MIB}),
    ("peak_rss>1KB", {"peak_rss_bytes": 1001}, {"peak_rss_bytes": None}),
    ("rss_growth>100MiB", {"peak_rss_bytes": 201 * MIB}, {"peak_rss_bytes": 200 * MIB}),
    ("slower_than>p95", {"duration_ms": 120.0}, {"duration_ms": 80.0}),
]

BAD_RULES = [
    # No rule at all
    "slow",
    "duration",
    "duration>",
    ">5s",
    "failed>1",
    "duration>5s failed",
    # No duration
    "duration>5",
    "duration>-5s",
    "duration>5 parsecs",
    "duration>nan",
    "duration>1e9s",
    # No size
    "peak_rss>500",
    "peak_rss>MiB",
    "peak_rss>-1MiB",
    "rss_growth>0MiB",
    "rss_growth>99999999999999TiB",
    # No percentile
    "slower_than>95",
    "slower_than>p0",
    "slower_than>p100",
    "slower_than>2s",
    # No text
    17,
    None,
    [b"failed"],
    {"failed": True},
]


def usual_durations() -> DurationHistogram:
    """A hundred durations of 1 to 100 ms."""
    usual = DurationHistogram()
    for duration_ms in range(1, 101):
        usual.add(float(duration_ms))
    return usual


@pytest.mark.parametrize(("text", "holding", "other"), RULES)
def test_a_rule_holds_past_its_limit_alone(text, holding, other):
    (rule,) = parse_rules(text)
    facts = {"failed": False, "duration_ms": 0.0, "peak_rss_bytes": None, "first_rss_bytes": 100 * MIB}

    assert rule.holds(Facts(**facts | holding), usual_durations())
    assert not rule.holds(Facts(**facts | other), usual_durations())


@pytest.mark.parametrize("value", BAD_RULES)
def test_what_is_no_rule_is_refused(value):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - its text is part of a longer one.
        parse_rules(value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("value", ["", " , ", (), []])
def test_no_rules_are_none(value):
    assert parse_rules(value) == ()


def test_rules_come_as_a_text_or_a_list():
    assert parse_rules(" failed, duration > 5s,failed") == parse_rules(["duration >5s", "failed"])[::-1]
