"""Which runs are worth keeping: rules that are judged when a run ends."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dramatiq import Actor
from dramatiq.logging import get_logger

from .asking import KEEP_IF_OPTION
from .quantiles import Durations
from .setting_fields import ALLOWED_RULES, read_size
from .statuses import RunStatus
from .tasklog import Warn

if TYPE_CHECKING:
    from .run import Run
    from .settings import Settings

_RSS_SUBJECTS = ("peak_rss", "rss_growth")

#: Actors whose usual durations are known, the least recently executed one goes first.
MAX_ACTORS = 1000

#: Rules that one actor may have.
_MAX_RULES = 20

_UNIT_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000}
_NUMBER = r"(?P<number>\d{1,12}(?:\.\d{1,6})?)"
#: Not compiled before it is needed, as most processes have no rules.
_DURATION = rf"{_NUMBER}(?P<unit>{'|'.join(_UNIT_MS)})"
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

    def holds(self, facts: Facts, usual: Durations) -> bool:
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


def split_texts(value: Any, separator: str) -> tuple[str, ...]:
    """Splits what a person wrote, a text or a list of texts, and tidies the parts up.

    Raises:
      ValueError: When it is neither.
    """
    parts = value.split(separator) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    return tuple(dict.fromkeys(tidy for part in parts if (tidy := "".join(part.split()))))


def parse_rules(value: Any) -> tuple[Rule, ...]:
    """Reads rules out of a comma separated text, or a list of texts; none at all mean that every run is kept.

    Raises:
      ValueError: When one is not a rule; the message names it.
    """
    texts = split_texts(value, ",")
    if len(texts) > _MAX_RULES:
        raise ValueError(f"more than {_MAX_RULES} rules")
    return tuple(_parse(text) for text in texts)


def duration_ms(text: str) -> float:
    """Returns: A duration such as `500ms`, `5s`, `2min` or `1h`. Raises: ValueError."""
    match = re.fullmatch(_DURATION, text)
    if match is None:
        raise ValueError(f"not a duration such as 500ms, 5s, 2min, 1h: {text!r:.100}")
    return float(match["number"]) * _UNIT_MS[match["unit"]]


def size_bytes(text: str) -> int:
    """Returns: A size such as `500MiB` or `1GiB`. Raises: ValueError."""
    try:
        size = read_size(text)
    except ValueError:
        size = 0
    if not text[:1].isdigit() or not text[-1:].isalpha() or not 0 < size < 2**62:
        raise ValueError(f"not a size such as 500MiB, 1GiB: {text!r:.100}")
    return size


def _parse(text: str) -> Rule:
    subject, separator, limit = text.partition(">")
    if text == "failed":
        return Rule("failed", text=text)
    if separator and subject == "duration":
        return Rule(subject, duration_ms(limit), text)
    if separator and subject in _RSS_SUBJECTS:
        return Rule(subject, size_bytes(limit), text)
    if separator and subject == "slower_than":
        match = re.fullmatch(_PERCENTILE, limit)
        if match is None:
            raise ValueError(f"not a percentile such as p50, p95, p99.9: {limit!r:.100}")
        return Rule(subject, float(match["percent"]), text)
    raise ValueError(f"no such rule: {text!r:.100}")


class Judge:
    """Judges the runs of a process, and knows how long its actors usually take.

    Parameters:
      settings: The rules of actors that have none of their own.
      warn: Logs a warning for a task's thread; see `TaskLog`.
    """

    def __init__(self, settings: Settings, warn: Warn | None = None) -> None:
        self._log_warning = get_logger(__name__, type(self)).warning if warn is None else warn
        self._for_all = parse_rules(settings.keep_if)
        self._by_actor: dict[str, tuple[Rule, ...]] = {}
        self._lock = threading.Lock()
        self._usual: OrderedDict[str, Durations] = OrderedDict()

    def rules_of(self, actor: Actor[..., Any]) -> tuple[Rule, ...]:
        """Returns: The rules for an actor's runs; without any all are kept."""
        try:
            return self._by_actor[actor.actor_name]
        except KeyError:
            rules = self._by_actor[actor.actor_name] = self._read_option(actor)
            return rules

    def verdict(self, run: Run, status: RunStatus, facts: Facts) -> Sequence[str] | None:
        """Judges a run that ends. Returns: The rules none of which held, as they were written; None for one to keep."""
        rules = self.rules_of(run.actor)
        if not rules:
            return None
        held = self._held(run.actor_name, rules, facts, learn=status == RunStatus.SUCCEEDED)  # Others may end early.
        if held or run.choice.requested or run.choice.capture_id is not None:
            return None
        return [rule.text for rule in rules]

    def _held(self, actor_name: str, rules: Iterable[Rule], facts: Facts, *, learn: bool) -> bool:
        with self._lock:
            usual = self._usual.get(actor_name)
            if usual is None:
                usual = self._usual[actor_name] = Durations()
                if len(self._usual) > MAX_ACTORS:
                    self._usual.popitem(last=False)
            self._usual.move_to_end(actor_name)
            held = any(rule.holds(facts, usual) for rule in rules)
            if learn:
                usual.add(facts.duration_ms)
            return held

    def _read_option(self, actor: Actor[..., Any]) -> tuple[Rule, ...]:
        if KEEP_IF_OPTION not in actor.options:
            return self._for_all
        try:
            return parse_rules(actor.options[KEEP_IF_OPTION])
        except ValueError as error:
            self._log_warning(
                "Actor %r: its option %s is ignored, and all its runs are kept%s; allowed are %s.",
                actor.actor_name,
                KEEP_IF_OPTION,
                f" ({error})" if str(error) else "",
                ALLOWED_RULES,
            )
            return ()
