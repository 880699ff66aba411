"""Plans for each run which collectors its triggers may start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy

from ..collectors.base import Collector, PlaceholderCollector
from ..collectors.names import LATE_NAMES, STACKS
from ..runtime.task_log import Warn
from .propagation import OPTION, TRIGGERS_OPTION
from .trigger_rules import ALLOWED_TRIGGERS, Trigger, parse_triggers, resolve_triggers

if TYPE_CHECKING:
    from .selection import Choice


class StacksLog(Collector):
    """The log that stacks are written to if the run collects no logs. It cannot be chosen by name."""

    name = STACKS
    artifact_name = "task_logs"
    filename = "task.log"
    media_type = "text/plain"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The triggers of one run, and the collectors that only they start."""

    triggers: tuple[Trigger, ...]
    collectors: tuple[Collector, ...]
    "In the order of starting."
    log: Collector | None
    "The log that stacks are written to; None if no trigger wants stacks."
    log_is_own: bool
    "Whether the log contains nothing but stacks."

    @property
    def declared(self) -> tuple[Collector, ...]:
        """The collectors whose artifacts the run has only because of this plan."""
        return (*self.collectors, self.log) if self.log is not None and self.log_is_own else self.collectors

    def conditions(self, name: str) -> str:
        """Returns: The conditions that start a collector, or write the stacks, for a person."""
        return ", ".join(trigger.condition for trigger in self.triggers if name in trigger.names)


class Triggers:
    """Makes the plans.

    Parameters:
      collectors: Name -> collector, of the allowed ones.
      triggers: The setting of that name: the triggers of actors that have no triggers of their own.
      engine: The engine of the time profile.
      warn: Logs a warning for a task's thread; see `TaskLog`.
    """

    def __init__(self, collectors: Mapping[str, Collector], triggers: Sequence[str], engine: str, warn: Warn) -> None:
        self._log_warning = warn
        self._collectors = collectors
        self._engine = engine
        self._for_all = parse_triggers(triggers)
        self._by_actor: dict[tuple[Broker, str], tuple[tuple[Trigger, ...], bool]] = {}
        "Broker and name of an actor -> its triggers, and whether it has a list of diagnostics of its own."
        self._stacks_log = PlaceholderCollector(StacksLog)

    def plan(self, broker: Broker, message: Message[Any] | MessageProxy, choice: Choice) -> Plan | None:
        """Returns: The plan for the run of a message; None if nothing can start in its middle."""
        try:
            triggers, asks = self._by_actor[broker, message.actor_name]
        except KeyError:
            actor = broker.get_actor(message.actor_name)
            found = self._of_actor(actor), OPTION in actor.options
            triggers, asks = self._by_actor[broker, message.actor_name] = found
        # A run without collectors may still have triggers; but an empty list of diagnostics means none at all.
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
            return resolve_triggers(parse_triggers(actor.options[TRIGGERS_OPTION]), self._collectors, self._engine)
        except ValueError as error:
            self._log_warning(
                "Actor %r: its option %s is ignored, and it has no triggers%s; allowed are %s.",
                actor.actor_name,
                TRIGGERS_OPTION,
                f" ({error})" if str(error) else "",
                ALLOWED_TRIGGERS,
            )
            return ()
