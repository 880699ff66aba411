"""What is to begin in the middle of a run: when it has lasted so long, or the process has grown so large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

from .asking import OPTION
from .collectors.base import Collector
from .rules import duration_ms, size_bytes, split_texts
from .tasklog import Warn

if TYPE_CHECKING:
    from .selection import Choice
    from .settings import Settings

#: The option of actors that replaces the triggers of the settings.
TRIGGERS_OPTION = "diagnostics_triggers"

#: Asks for the stacks of all threads at that moment.
STACKS = "stacks"

#: The collectors that can begin on another thread, in the middle of a run, in the order of starting.
LATE_NAMES = ("memray", "memory", "pyinstrument")

#: What a person may write, for error messages.
ALLOWED_TRIGGERS = (
    "conditions, each with what it begins, such as `after 30s: pyinstrument, stacks; rss>1GiB: memray`; "
    f"out of {', '.join((*LATE_NAMES, STACKS))}, as far as TASK_DIAGNOSTICS or TASK_DIAGNOSTICS_ON_REQUEST has it"
)

#: Why there is no late start with that engine, wherever it is asked for.
CANNOT_JOIN = "pyinstrument's own profiler cannot join later; the engine `sampler` does"

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
        if name != STACKS and name not in LATE_NAMES:
            raise ValueError(f"{name!r:.100} cannot begin in the middle of a run")
    if condition.startswith("after"):
        after = condition.removeprefix("after")
        return Trigger(condition=f"after {after}", after_s=duration_ms(after) / 1000, names=names)
    if condition.startswith("rss>"):
        return Trigger(condition=condition, rss_bytes=size_bytes(condition.removeprefix("rss>")), names=names)
    raise ValueError(f"no such condition: {condition!r:.100}")


class StacksLog(Collector):
    """What stacks are written to where the run collects no logs; nobody chooses it by its name."""

    name = STACKS
    artifact_name = "task_logs"
    filename = "task.log"
    media_type = "text/plain"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The triggers of one run, and the collectors that it does not have from the start."""

    triggers: tuple[Trigger, ...]
    collectors: tuple[Collector, ...]
    "In the order of starting."
    log: Collector | None
    "What the stacks are written to, where a trigger asks for them."
    log_is_own: bool
    "Whether that has nothing but stacks."

    @property
    def declared(self) -> tuple[Collector, ...]:
        """The collectors whose artifacts the run has for this plan alone."""
        return (*self.collectors, self.log) if self.log is not None and self.log_is_own else self.collectors

    def conditions(self, name: str) -> str:
        """Returns: Upon what a collector begins, or the stacks are written, as a person reads it."""
        return ", ".join(trigger.condition for trigger in self.triggers if name in trigger.names)


class Triggers:
    """Answers what may begin in the middle of a run.

    Parameters:
      settings: The triggers of actors that have none of their own.
      collectors: Name -> collector, for those that are allowed.
      warn: Logs a warning for a task's thread; see `TaskLog`.
    """

    def __init__(self, settings: Settings, collectors: dict[str, Collector], warn: Warn | None = None) -> None:
        self._log_warning = get_logger(__name__, type(self)).warning if warn is None else warn
        self._collectors = collectors
        self._engine = settings.pyinstrument_engine
        self._for_all = parse_triggers(settings.triggers)
        self._by_actor: dict[str, tuple[tuple[Trigger, ...], bool]] = {}
        "Name -> its triggers, and whether it has a list of diagnostics of its own."
        self._stacks_log = StacksLog(settings)

    def plan(self, broker: Broker, message: Message[Any] | MessageProxy, choice: Choice) -> Plan | None:
        """Returns: What may begin in the run of a message; None where nothing can."""
        try:
            triggers, asks = self._by_actor[message.actor_name]
        except KeyError:
            actor = broker.get_actor(message.actor_name)
            triggers, asks = self._by_actor[message.actor_name] = self._of_actor(actor), OPTION in actor.options
        # Where nothing is collected for all, a run is one of triggers alone; but an empty list means none.
        if not triggers or (not choice.collectors and (asks or choice.requested)):
            return None
        named = {name for trigger in triggers for name in trigger.names}
        late = (self._collectors[name] for name in LATE_NAMES if name in named)
        logs = (there for there in choice.collectors if there.artifact_name == StacksLog.artifact_name)
        log = next(logs, self._stacks_log) if STACKS in named else None
        return Plan(
            triggers=triggers,
            collectors=tuple(collector for collector in late if collector not in choice.collectors),
            log=log,
            log_is_own=log is self._stacks_log,
        )

    def _of_actor(self, actor: Actor[..., Any]) -> tuple[Trigger, ...]:
        if TRIGGERS_OPTION not in actor.options:
            return self._for_all
        try:
            triggers = parse_triggers(actor.options[TRIGGERS_OPTION])
            missing = [name for name in collectors_of(triggers) if name not in self._collectors]
            if missing:
                raise ValueError(f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has {', '.join(missing)}")
            check_late(triggers, self._engine)
        except ValueError as error:
            self._log_warning(
                "Actor %r: its option %s is ignored, and it has no triggers%s; allowed are %s.",
                actor.actor_name,
                TRIGGERS_OPTION,
                f" ({error})" if str(error) else "",
                ALLOWED_TRIGGERS,
            )
            return ()
        return triggers
