"""Keep rules: which runs are worth keeping. They are read from text and compared with a run that has ended."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from ..text import parse_duration_ms, parse_size_bytes, split_texts
from .quantiles import DurationHistogram

_RSS_SUBJECTS = ("peak_rss", "rss_growth")

#: Rules that one actor may have.
_MAX_RULES = 20

_PERCENTILE = r"p(?P<percent>[1-9]\d?(?:\.\d{1,2})?)"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a run when it ends."""

    failed: bool
    duration_ms: float
    peak_rss_bytes: int | None = None
    "The largest that was seen; None where nobody looked."
    first_rss_bytes: int | None = None


@dataclass(frozen=True)
class Rule:
    """One rule: what is compared, and with what."""

    subject: str
    limit: float = 0.0
    "In milliseconds, bytes or percent."
    text: str = ""
    "As it was written."

    def holds(self, facts: Facts, usual: DurationHistogram) -> bool:
        """Returns: Whether a run is to be kept for it."""
        if self.subject == "failed":
            return facts.failed
        if self.subject == "duration":
            return facts.duration_ms > self.limit
        if self.subject == "slower_than":
            # What is usual is not known yet: those few are kept, as are all the runs of an actor that hardly ever runs.
            quantile_ms = usual.quantile_ms(self.limit / 100)
            return quantile_ms is None or facts.duration_ms > quantile_ms
        if facts.peak_rss_bytes is None or facts.first_rss_bytes is None:
            return False
        before_bytes = facts.first_rss_bytes if self.subject == "rss_growth" else 0
        return facts.peak_rss_bytes - before_bytes > self.limit


def parse_rules(value: Any) -> tuple[Rule, ...]:
    """Reads rules out of a comma separated text, or a list of texts; none at all mean that every run is kept.

    Raises:
      ValueError: When one is not a rule; the message names it.
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
