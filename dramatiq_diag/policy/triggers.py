"""What is to begin in the middle of a run: when it has lasted so long, or the process has grown so large."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

from ..collectors.base import Collector, PlaceholderCollector
from ..collectors.names import LATE_NAMES, STACKS
from ..runtime.task_log import Warn
from .allowed_texts import ALLOWED_TRIGGERS
from .propagation import OPTION, TRIGGERS_OPTION
from .trigger_rules import Trigger, check_late, collectors_of, parse_triggers, with_all

if TYPE_CHECKING:
    from .selection import Choice


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
      collectors: Name -> collector, for those that are allowed.
      triggers: The triggers of actors that have none of their own, as the setting has them.
      engine: The engine of the time profile.
      warn: Logs a warning for a task's thread; see `TaskLog`.
    """

    def __init__(
        self,
        collectors: Mapping[str, Collector],
        triggers: Sequence[str] = (),
        engine: str = "sampler",
        warn: Warn | None = None,
    ) -> None:
        self._log_warning = get_logger(__name__, type(self)).warning if warn is None else warn
        self._collectors = collectors
        self._engine = engine
        self._for_all = parse_triggers(triggers)
        self._by_actor: dict[str, tuple[tuple[Trigger, ...], bool]] = {}
        "Name -> its triggers, and whether it has a list of diagnostics of its own."
        self._stacks_log = PlaceholderCollector(StacksLog)

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
            triggers = with_all(parse_triggers(actor.options[TRIGGERS_OPTION]), self._collectors, self._engine)
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
