"""Triggers as a person writes them: a condition, and what begins in the middle of a run when it is met."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, replace
from typing import Any

from ..collectors.names import ALL, CANNOT_JOIN, LATE_NAMES, STACKS
from ..text import parse_duration_ms, parse_size_bytes, split_texts

#: Triggers that one actor may have.
_MAX_TRIGGERS = 20


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A condition, and what begins when it is met; once in a run."""

    condition: str
    "As a person reads it: `after 30s`, `rss>1GiB`."
    after_s: float | None = None
    rss_bytes: int | None = None
    names: tuple[str, ...]

    def is_met(self, elapsed_s: float, rss_bytes: int) -> bool:
        """Returns: Whether it is to fire."""
        if self.after_s is not None:
            return elapsed_s >= self.after_s
        return self.rss_bytes is not None and rss_bytes > self.rss_bytes


def parse_triggers(value: Any) -> tuple[Trigger, ...]:
    """Reads triggers out of a text, or a list of texts.

    Raises:
      ValueError: When one cannot be read; the message names it.
    """
    texts = split_texts(value, ";")
    if len(texts) > _MAX_TRIGGERS:
        raise ValueError(f"more than {_MAX_TRIGGERS} triggers")
    return tuple(_parse(text) for text in texts)


def trigger_text(trigger: Trigger) -> str:
    """Returns: What `parse_triggers` reads as this trigger."""
    return f"{trigger.condition}: {', '.join(trigger.names)}"


def collectors_of(triggers: Iterable[Trigger]) -> list[str]:
    """Returns: The names of the collectors that triggers begin."""
    named = dict.fromkeys(name for trigger in triggers for name in trigger.names)
    return [name for name in named if name != STACKS]


def with_all(triggers: Iterable[Trigger], allowed: Container[str], engine: str) -> tuple[Trigger, ...]:
    """Replaces `all` by the collectors that can begin late with this engine, and are allowed.

    Raises:
      ValueError: When there is none.
    """
    late = tuple(name for name in LATE_NAMES if name in allowed and (name, engine) != ("pyinstrument", "profiler"))
    if not late and any(ALL in trigger.names for trigger in triggers):
        raise ValueError(f"{ALL} stands for none here, as no collector that is chosen can begin in the middle of a run")
    return tuple(
        replace(trigger, names=tuple(dict.fromkeys(each for name in trigger.names for each in _each(name, late))))
        for trigger in triggers
    )


def _each(name: str, late: tuple[str, ...]) -> tuple[str, ...]:
    return late if name == ALL else (name,)


def check_late(triggers: Iterable[Trigger], engine: str) -> None:
    """Refuses what cannot begin late with this engine of the time profile. Raises: ValueError."""
    if engine == "profiler" and "pyinstrument" in collectors_of(triggers):
        raise ValueError(CANNOT_JOIN)


def _parse(text: str) -> Trigger:
    condition, separator, listed = text.partition(":")
    names = tuple(dict.fromkeys(filter(None, listed.split(","))))
    if not separator or not names:
        raise ValueError(f"a condition without what it begins: {text!r:.100}")
    for name in names:
        if name not in (*LATE_NAMES, STACKS, ALL):
            raise ValueError(f"{name!r:.100} cannot begin in the middle of a run")
    if condition.startswith("after"):
        after = condition.removeprefix("after")
        return Trigger(condition=f"after {after}", after_s=parse_duration_ms(after) / 1000, names=names)
    if condition.startswith("rss>"):
        return Trigger(
            condition=condition,
            rss_bytes=parse_size_bytes(condition.removeprefix("rss>"), needs_unit=True),
            names=names,
        )
    raise ValueError(f"no such condition: {condition!r:.100}")
