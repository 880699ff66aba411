"""Parses triggers: a condition, and the collectors that start in the middle of a run when it is met."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..collectors.names import ALL, CANNOT_JOIN, LATE_NAMES, STACKS
from ..text import parse_duration_ms, parse_size_bytes, split_texts

#: The triggers that may be written, for error messages.
ALLOWED_TRIGGERS = (
    "conditions, each with the collectors that it starts, such as `after 30s: pyinstrument, stacks; rss>1GiB: memray`; "
    f"out of {', '.join((*LATE_NAMES, STACKS, ALL))}, if TASK_DIAGNOSTICS or TASK_DIAGNOSTICS_ON_REQUEST has them"
)

#: The most triggers that one actor may have.
_MAX_TRIGGERS = 20


@dataclass(frozen=True, kw_only=True)
class Trigger:
    """A condition, and the names of the collectors that start when it is met. It fires once in a run."""

    condition: str
    "For a person: `after 30s`, `rss>1GiB`."
    after_s: float | None = None
    rss_bytes: int | None = None
    names: tuple[str, ...]

    def is_met(self, elapsed_s: float, rss_bytes: int) -> bool:
        """Returns: Whether the condition is met."""
        if self.after_s is not None:
            return elapsed_s >= self.after_s
        return self.rss_bytes is not None and rss_bytes > self.rss_bytes


def parse_triggers(value: Any) -> tuple[Trigger, ...]:
    """Reads triggers from a text with semicolons, or a list of texts.

    Raises:
      ValueError: When one cannot be read; the message names it.
    """
    texts = split_texts(value, ";")
    if len(texts) > _MAX_TRIGGERS:
        raise ValueError(f"more than {_MAX_TRIGGERS} triggers")
    return tuple(_parse(text) for text in texts)


def trigger_text(trigger: Trigger) -> str:
    """Returns: The text that `parse_triggers` reads as this trigger."""
    return f"{trigger.condition}: {', '.join(trigger.names)}"


def collectors_of(triggers: Iterable[Trigger]) -> list[str]:
    """Returns: The names of the collectors that triggers start."""
    named = dict.fromkeys(name for trigger in triggers for name in trigger.names)
    return [name for name in named if name != STACKS]


def resolve_triggers(
    triggers: Iterable[Trigger], allowed: Container[str], engine: str, *, known: Container[str] | None = None
) -> tuple[Trigger, ...]:
    """Replaces `all` by the allowed collectors that can start late, and checks the other names.

    Parameters:
      triggers: The triggers.
      allowed: The names of the collectors that may run here.
      engine: The engine of the time profile.
      known: The names that may be written, where these are more than the allowed ones.

    Raises:
      ValueError: When a collector is not allowed, or cannot start late with this engine; or when `all` is none.
    """
    triggers = tuple(triggers)
    late = [name for name in LATE_NAMES if name in allowed and (name, engine) != ("pyinstrument", "profiler")]
    if not late and any(ALL in trigger.names for trigger in triggers):
        raise ValueError(f"{ALL} stands for none here, as no collector that is chosen can begin in the middle of a run")
    resolved = tuple(replace(trigger, names=tuple(dict.fromkeys(_each(trigger.names, late)))) for trigger in triggers)
    named = collectors_of(resolved)
    missing = [name for name in named if name not in (allowed if known is None else known)]
    if missing:
        raise ValueError(f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has {', '.join(missing)}")
    if engine == "profiler" and "pyinstrument" in named:
        raise ValueError(CANNOT_JOIN)
    return resolved


def _each(names: Iterable[str], late: Iterable[str]) -> Iterator[str]:
    for name in names:
        yield from late if name == ALL else (name,)


def _parse(text: str) -> Trigger:
    condition, separator, listed = text.partition(":")
    names = tuple(dict.fromkeys(filter(None, listed.split(","))))
    if not separator or not names:
        raise ValueError(f"a condition without collectors: {text!r:.100}")
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
