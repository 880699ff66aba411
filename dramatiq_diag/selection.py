"""Which collectors a message gets: the most specific list of message, actor and settings replaces the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from dramatiq import Broker
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

from .collectors import ALL, Collector, all_names, chosen
from .settings import Settings

#: The option of messages and actors.
OPTION = "diagnostics"

#: The actor that is never diagnosed itself.
CLEANUP_ACTOR = "dramatiq_diag.cleanup_orphans"

_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is collected of a run, and why."""

    collectors: tuple[Collector, ...] = ()
    "In the order of starting."
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    "Name of a collector -> the options that were asked for and are allowed."
    parent_run_id: UUID | None = None
    "The diagnosed run that sent the task, which passed on what is collected."
    capture_id: UUID | None = None
    "The capture that asked for it."

    def links(self) -> dict[str, str]:
        """Returns: The ids, as far as there are any, as JSON holds them."""
        found = {"parent_run_id": self.parent_run_id, "capture_id": self.capture_id}
        return {name: str(value) for name, value in found.items() if value is not None}


NOTHING = Choice()


class Selection:
    """Answers for each message which collectors run.

    Parameters:
      settings: What is collected for all, and what may be asked for.
      collectors: Name -> collector, in the order of starting.
    """

    def __init__(self, settings: Settings, collectors: Mapping[str, Collector]) -> None:
        self.logger = get_logger(__name__, type(self))
        self.collectors = collectors
        self.for_all = frozenset(expand(settings.task_diagnostics))
        self.allowed = self.for_all | frozenset(expand(settings.task_diagnostics_on_request))
        self._by_actor: dict[str, Choice] = {}
        self._warned: set[str] = set()

    def __call__(self, broker: Broker, message: MessageProxy) -> Choice:
        """Returns: What is collected of a message's run; mostly one look-up."""
        inner = getattr(message, "_message", message)  # The proxy's own look-up is most of what an idle hook costs.
        wanted = inner.options.get(OPTION, _MISSING)
        actor_name = inner.actor_name
        if wanted is not _MISSING and actor_name != CLEANUP_ACTOR:
            names = self._names(actor_name, wanted, "message")
            if names is not None:
                return self._choose(names)
        try:
            return self._by_actor[actor_name]
        except KeyError:
            chosen = self._by_actor[actor_name] = self._of_actor(broker, actor_name)
            return chosen

    def _of_actor(self, broker: Broker, actor_name: str) -> Choice:
        if actor_name == CLEANUP_ACTOR:
            return NOTHING
        wanted = broker.get_actor(actor_name).options.get(OPTION, _MISSING)
        names = None if wanted is _MISSING else self._names(actor_name, wanted, "actor")
        return self._choose(self.for_all if names is None else names)

    def _names(self, actor_name: str, wanted: Any, where: str) -> frozenset[str] | None:
        """Returns: The names that are allowed, or None where the option is no list of names."""
        if not isinstance(wanted, list | tuple | set | frozenset) or not all(isinstance(n, str) for n in wanted):
            self._warn(
                actor_name, f"the option {OPTION} of the {where} is no list of names and is ignored: {wanted!r:.200}"
            )
            return None
        names = frozenset(wanted)
        if not names <= self.allowed:
            dropped = sorted(f"{name:.100}" for name in names - self.allowed)[:10]
            self._warn(
                actor_name,
                f"the {where} asks for diagnostics that neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has; "
                f"dropped are {dropped}",
            )
        return names & self.allowed

    def _choose(self, names: frozenset[str]) -> Choice:
        return Choice(collectors=chosen(self.collectors, names))

    def _warn(self, actor_name: str, text: str) -> None:
        if actor_name not in self._warned:
            self._warned.add(actor_name)
            self.logger.warning("Actor %r: %s.", actor_name, text)


def expand(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns: The names, with `all` replaced by what it stands for."""
    if ALL not in names:
        return names
    return (*(name for name in names if name != ALL), *all_names())
