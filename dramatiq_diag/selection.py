"""Which collectors a message gets: the most specific list of message, actor and settings replaces the others."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID
from zlib import crc32

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

from .asking import CLEANUP_ACTOR, OPTION, parent_run_id, root_task_id
from .collectors import ALL, Collector, Options, all_names, chosen
from .collectors.base import UnavailableCollector
from .options import OptionsError, Request, judge_options, read_request
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
    request: Request = field(default_factory=dict)
    "Name of each of them -> its options, as they were given."
    options: Mapping[str, Options] = field(default_factory=dict)
    "Name of a collector -> its options, where any were given and are allowed."
    refusals: Mapping[str, str] = field(default_factory=dict)
    "Name of a collector -> why its options are not allowed."
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
        self._allowed_options = settings.options_on_request
        self.samples = settings.sample_rate < 1
        "Whether some tasks are left out; then what a task sends has to know what it began with."
        self._sample_rate = settings.sample_rate
        self.captures: HeldPermits | None = None
        "Gives permits for runs that a capture asks for; None while none is open."
        self._by_actor: dict[str, tuple[Choice, int | None]] = {}
        self._warned: set[tuple[str, str]] = set()

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
            # Whether it is in the share is the same whoever asks, and whenever.
            if limit is not None and crc32(root_task_id(message).encode("utf-8", "replace")) >= limit:
                choice = NOTHING
            captures = self.captures  # Which another thread changes.
            if captures is not None and (capture := captures.take(actor_name)) is not None:
                choice = self._captured(choice, capture)
        if choice is not NOTHING and (parent := parent_run_id(options)) is not None:
            return replace(choice, parent_run_id=parent)
        return choice

    def _captured(self, choice: Choice, capture: OpenCapture) -> Choice:
        """Returns: What a capture asks for, besides what there would be without it."""
        captured = {name: options for name, options in capture.diagnostics.items() if name in self.allowed}
        return replace(self._choose({**choice.request, **captured}), requested=True, capture_id=capture.capture_id)

    def _of_message(self, actor_name: str, wanted: Any) -> Choice | None:
        request = self._read(actor_name, wanted, "message")
        return None if request is None else replace(self._choose(request), requested=True)

    def refusal(self, request: Request) -> str | None:
        """Returns: Why this process cannot do all that is asked for, in words; None where it can."""
        missing = sorted(request.keys() - self.allowed)
        if missing:
            return f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST of this one has {missing}."
        return next(iter(self._choose(request).refusals.values()), None)

    def look_at(self, actors: Iterable[Actor[..., Any]]) -> None:
        """Finds out whether any of them has a share: whatever sends to it has to know what it began with as well."""
        self.samples = self.samples or any(SAMPLE_RATE_OPTION in actor.options for actor in actors)

    def _of_actor(self, broker: Broker, actor_name: str) -> tuple[Choice, int | None]:
        """Returns: What is collected of an actor's runs, and the limit of the share of them."""
        if actor_name == CLEANUP_ACTOR:
            return NOTHING, None
        options = broker.get_actor(actor_name).options
        wanted = options.get(OPTION, _MISSING)
        request = None if wanted is _MISSING else self._read(actor_name, wanted, "actor")
        choice = self._choose({name: {} for name in self.for_all} if request is None else request)
        return choice, _limit_of(self._rate_of(actor_name, options))

    def _rate_of(self, actor_name: str, options: Mapping[str, Any]) -> float:
        rate = options.get(SAMPLE_RATE_OPTION, self._sample_rate)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            self._warn(
                actor_name, "rate", f"its option {SAMPLE_RATE_OPTION} is {rate!r:.100}, not 0 to 1, and is ignored"
            )
            return self._sample_rate
        self.samples = self.samples or rate < 1
        return float(rate)

    def _read(self, actor_name: str, wanted: Any, where: str) -> Request | None:
        """Returns: What is asked for, as far as the names are allowed; None where the option cannot be read."""
        try:
            request = read_request(wanted)
        except ValueError as error:
            self._warn(
                actor_name,
                "option",
                f"the option {OPTION} of the {where} is {error} and is ignored: {reprlib.repr(wanted):.200}",
            )
            return None
        if request.keys() <= self.allowed:
            return request
        dropped = sorted(f"{name:.100}" for name in request.keys() - self.allowed)[:10]
        self._warn(
            actor_name,
            "names",
            f"the {where} asks for diagnostics that neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has; "
            f"dropped are {dropped}",
        )
        return {name: options for name, options in request.items() if name in self.allowed}

    def _choose(self, request: Request) -> Choice:
        collectors = chosen(self.collectors, request)
        options: dict[str, Options] = {}
        refusals: dict[str, str] = {}
        for collector in collectors:
            given = request[collector.name]
            if given and not isinstance(collector, UnavailableCollector):  # That one says why it is.
                try:
                    options[collector.name] = judge_options(collector, given, self._allowed_options)
                except OptionsError as error:
                    refusals[collector.name] = str(error)
        request = {collector.name: request[collector.name] for collector in collectors}
        return Choice(collectors=collectors, request=request, options=options, refusals=refusals)

    def _warn(self, actor_name: str, what: str, text: str) -> None:
        if (actor_name, what) not in self._warned:
            self._warned.add((actor_name, what))
            self.logger.warning("Actor %r: %s.", actor_name, text)


def _limit_of(rate: float) -> int | None:
    """Returns: What the checksums of a share are below; None for all of them."""
    return None if rate >= 1 else int(rate * 2**32)


def expand(names: tuple[str, ...], *, here: bool = True) -> tuple[str, ...]:
    """Returns: The names, with `all` replaced by what it stands for, here or wherever the workers are."""
    if ALL not in names:
        return names
    return (*(name for name in names if name != ALL), *all_names(here=here))
