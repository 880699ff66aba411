"""Which collectors a message gets: the most specific list of message, actor and settings replaces the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import UUID

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

from .asking import CLEANUP_ACTOR, OPTION, parent_run_id, root_task_id
from .collectors import ALL, Collector, all_names, chosen
from .settings import Settings

#: The option of actors that says how many of their tasks are diagnosed, from 0 to 1.
SAMPLE_RATE_OPTION = "diagnostics_sample_rate"

if TYPE_CHECKING:
    from .held import HeldPermits
    from .permits import OpenCapture

_MISSING = object()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is collected of a run, and why."""

    collectors: tuple[Collector, ...] = ()
    "In the order of starting."
    requested: bool = False
    "Whether somebody asked for this run; otherwise it is what is collected for all, or for the actor."
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
        self.samples = settings.sample_rate < 1
        "Whether some tasks are left out; then what a task sends has to know what it began with."
        self._sample_rate = settings.sample_rate
        self.captures: HeldPermits | None = None
        "Gives permits for runs that a capture asks for; None while none is open."
        self._by_actor: dict[str, tuple[Choice, bytes | None]] = {}
        self._warned: set[str] = set()

    def __call__(self, broker: Broker, message: Message[Any] | MessageProxy) -> Choice:
        """Returns: What is collected of a message's run; mostly one look-up."""
        options, actor_name = message.options, message.actor_name
        choice = None
        if OPTION in options and actor_name != CLEANUP_ACTOR:
            choice = self._of_message(actor_name, options[OPTION])
        if choice is None:
            try:
                choice, limit = self._by_actor[actor_name]
            except KeyError:
                choice, limit = self._by_actor[actor_name] = self._of_actor(broker, actor_name)
            if limit is not None and sha256(root_task_id(message).encode("utf-8", "replace")).digest() >= limit:
                choice = NOTHING
            if self.captures is not None and (capture := self.captures.take(actor_name)) is not None:
                choice = self._captured(choice, capture)
        if choice.collectors and (parent := parent_run_id(options)) is not None:
            return replace(choice, parent_run_id=parent)
        return choice

    def _captured(self, choice: Choice, capture: OpenCapture) -> Choice:
        """Returns: What a capture asks for, besides what there would be without it."""
        names = (self.allowed & capture.names) | {collector.name for collector in choice.collectors}
        return replace(self._choose(names), requested=True, capture_id=capture.capture_id)

    def _of_message(self, actor_name: str, wanted: Any) -> Choice | None:
        names = self._names(actor_name, wanted, "message")
        return None if names is None else replace(self._choose(names), requested=True)

    def look_at(self, actors: Iterable[Actor[..., Any]]) -> None:
        """Finds out whether any of them has a share: whatever sends to it has to know what it began with as well."""
        self.samples = self.samples or any(SAMPLE_RATE_OPTION in actor.options for actor in actors)

    def _of_actor(self, broker: Broker, actor_name: str) -> tuple[Choice, bytes | None]:
        """Returns: What is collected of an actor's runs, and the limit of the share of them."""
        if actor_name == CLEANUP_ACTOR:
            return NOTHING, None
        options = broker.get_actor(actor_name).options
        wanted = options.get(OPTION, _MISSING)
        names = None if wanted is _MISSING else self._names(actor_name, wanted, "actor")
        choice = self._choose(self.for_all if names is None else names)
        return choice, _limit_of(self._rate_of(actor_name, options))

    def _rate_of(self, actor_name: str, options: Mapping[str, Any]) -> float:
        rate = options.get(SAMPLE_RATE_OPTION, self._sample_rate)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            self._warn(actor_name, f"its option {SAMPLE_RATE_OPTION} is {rate!r:.100}, not 0 to 1, and is ignored")
            return self._sample_rate
        self.samples = self.samples or rate < 1
        return float(rate)

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


def is_sampled(task_id: str, rate: float) -> bool:
    """Returns: Whether a task is among the share that is diagnosed; the same whoever asks, and whenever."""
    limit = _limit_of(rate)
    return limit is None or sha256(task_id.encode("utf-8", "replace")).digest() < limit


def _limit_of(rate: float) -> bytes | None:
    """Returns: What the digests of a share are below; None for all of them."""
    return None if rate >= 1 else int(rate * 2**64).to_bytes(8, "big")


def expand(names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns: The names, with `all` replaced by what it stands for."""
    if ALL not in names:
        return names
    return (*(name for name in names if name != ALL), *all_names())
