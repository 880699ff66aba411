"""Parses keep rules, and evaluates one for a run that has ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..text import parse_duration_ms, parse_size_bytes, split_texts

if TYPE_CHECKING:
    from .quantiles import DurationHistogram

#: The rules that may be written, for error messages.
ALLOWED_RULES = (
    "rules, comma separated, of which one has to hold: duration>5s, peak_rss>500MiB, rss_growth>100MiB, failed, "
    "slower_than>p95"
)

_RSS_SUBJECTS = ("peak_rss", "rss_growth")

#: The most rules that one actor may have.
_MAX_RULES = 20

_PERCENTILE = r"p(?P<percent>[1-9][0-9]?(?:\.[0-9]{1,2})?)"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The figures of a run that rules compare."""

    failed: bool
    duration_ms: float
    peak_rss_bytes: int | None = None
    "The largest RSS that was read; None if it was never read."
    first_rss_bytes: int | None = None


@dataclass(frozen=True)
class Rule:
    """One rule: a figure of the run, and the limit that it has to exceed."""

    subject: str
    limit: float = 0.0
    "In milliseconds, bytes or percent."
    text: str = ""
    "As it was written."

    def holds(self, facts: Facts, usual: DurationHistogram) -> bool:
        """Returns: True if the run is kept because of this rule; False if other rules decide."""
        if self.subject == "failed":
            return facts.failed
        if self.subject == "duration":
            return facts.duration_ms > self.limit
        if self.subject == "slower_than":
            # While too few durations are known, runs are kept; so are all runs of an actor that rarely runs.
            quantile_ms = usual.quantile_ms(self.limit / 100)
            return quantile_ms is None or facts.duration_ms > quantile_ms
        if facts.peak_rss_bytes is None or facts.first_rss_bytes is None:
            return False
        before_bytes = facts.first_rss_bytes if self.subject == "rss_growth" else 0
        return facts.peak_rss_bytes - before_bytes > self.limit


def parse_rules(value: Any) -> tuple[Rule, ...]:
    """Reads rules from a comma separated text, or a list of texts. Without rules every run is kept.

    Raises:
      ValueError: When a part is not a rule; the message names it.
    """
    texts = split_texts(value, ",")
    if len(texts) > _MAX_RULES:
        raise ValueError(f"more than {_MAX_RULES} rules")
    return tuple(_parse(text) for text in texts)


def _parse(text: str) -> Rule:
    subject, separator, limit = text.partition(">")
    if text == "failed":
        return Rule("failed", text=text)
    if separator and subject == "duration":
        return Rule(subject, parse_duration_ms(limit), text)
    if separator and subject in _RSS_SUBJECTS:
        return Rule(subject, parse_size_bytes(limit, needs_unit=True), text)
    if separator and subject == "slower_than":
        match = re.fullmatch(_PERCENTILE, limit)
        if match is None:
            raise ValueError(f"not a percentile such as p50, p95, p99.9: {limit!r:.100}")
        return Rule(subject, float(match["percent"]), text)
    raise ValueError(f"no such rule: {text!r:.100}")
