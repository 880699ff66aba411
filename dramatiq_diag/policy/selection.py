"""Selects the collectors of a message: the most specific list of message, actor and settings replaces the others."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import UUID
from zlib import crc32

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy

from ..collectors.base import Collector, Options, UnavailableCollector
from ..collectors.names import ALL, COLLECTOR_NAMES, expand
from ..collectors.registry import chosen, placeholder
from ..runtime.task_log import Warn
from .options import DiagnosticsRequest, OptionsError, parse_request, validate_options, with_all
from .propagation import CLEANUP_ACTOR, NESTED_OPTIONS, OPTION, SAMPLE_RATE_OPTION, MessageOptions, find_request

_MISSING = object()

#: A run has an artifact for each requested name that is not allowed, up to this number of them.
_MAX_DENIED = 10


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The collectors of a run, and the request that they come from."""

    collectors: tuple[Collector, ...] = ()
    "In the order of starting."
    request: DiagnosticsRequest = field(default_factory=dict)
    "Name of each collector -> its options, as they were given."
    options: Mapping[str, Options] = field(default_factory=dict)
    "Name of a collector -> its options, where any were given and are allowed."
    rejected_options: Mapping[str, str] = field(default_factory=dict)
    "Name of a collector -> why its options are not allowed."
    denied: Mapping[Collector, str] = field(default_factory=dict)
    "Placeholder of each collector that was requested and is not allowed -> why the run does not have it."
    requested: bool = False
    "Whether the message or a capture requests it; False when it follows from the settings or the actor alone."
    parent_run_id: UUID | None = None
    "The diagnosed run that sent the task, and passed its request on."
    capture_id: UUID | None = None
    "The capture that requests it."
    without_capture: Choice | None = None
    "The choice that holds if the capture has no slot for the run; None without a capture."


NOTHING = Choice()


class WantedCapture(Protocol):
    """A capture that wants the run of a message."""

    @property
    def capture_id(self) -> UUID: ...
    @property
    def diagnostics(self) -> DiagnosticsRequest: ...


class OpenCaptures(Protocol):
    """The captures that are open."""

    def take(self, actor_name: str) -> WantedCapture | None:
        """Returns: The capture that wants the run of the actor that begins on this thread; None if there is none."""


class Selection:
    """Selects the collectors of each message.

    Parameters:
      collectors: Name -> collector, in the order of starting.
      for_all: The setting `task_diagnostics`.
      on_request: The setting `task_diagnostics_on_request`.
      options_on_request: The setting of that name.
      sample_rate: The setting of that name.
      warn: Logs a warning for a task's thread; see `TaskLog`.
    """

    def __init__(
        self,
        collectors: Mapping[str, Collector],
        for_all: tuple[str, ...] = (),
        on_request: tuple[str, ...] = (),
        *,
        options_on_request: tuple[str, ...] = (ALL,),
        sample_rate: float = 1.0,
        warn: Warn,
    ) -> None:
        self._log_warning = warn
        self.message_options = MessageOptions(warn)
        self.collectors = collectors
        self.for_all = frozenset(expand(for_all))
        self.allowed = self.for_all | frozenset(expand(on_request))
        # Made here, as that imports their modules: an interrupt in an import may leave the lock of the module held.
        self._placeholders = {name: placeholder(name, ()) for name in COLLECTOR_NAMES if name not in self.allowed}
        self._allowed_options = options_on_request
        self.samples = sample_rate < 1
        "Whether some tasks are left out of the sample; then messages have to carry the id of their root task."
        self._sample_rate = sample_rate
        self.captures: OpenCaptures | None = None
        "The open captures; None while there is none."
        self._by_actor: dict[tuple[Broker, str], tuple[Choice, int | None]] = {}
        "Two brokers of a process may each have an actor of a name."
        self._warned: set[tuple[str, str]] = set()

    def __call__(self, broker: Broker, message: Message[Any] | MessageProxy) -> Choice:
        """Returns: The choice for a message's run; mostly one look-up."""
        options, actor_name = message.options, message.actor_name
        choice = None
        # Most messages have neither option, and a look-up takes a third of the time of a call.
        if (OPTION in options or NESTED_OPTIONS in options) and actor_name != CLEANUP_ACTOR:
            wanted = find_request(options)
            choice = None if wanted is None else self._of_message(actor_name, wanted[0])
        if choice is None:
            try:
                choice, limit = self._by_actor[broker, actor_name]
            except KeyError:
                choice, limit = self._by_actor[broker, actor_name] = self._of_actor(broker, actor_name)
            # By checksum, so that the answer is the same in each process and at each attempt.
            if (
                limit is not None
                and crc32(self.message_options.root_task_id(message).encode("utf-8", "replace")) >= limit
            ):
                choice = NOTHING
            captures = self.captures  # Another thread changes the attribute.
            if captures is not None and (capture := captures.take(actor_name)) is not None:
                choice = self._captured(choice, capture)
        if choice is not NOTHING and (parent := self.message_options.parent_run_id(options)) is not None:
            return replace(choice, parent_run_id=parent)
        return choice

    def _captured(self, choice: Choice, capture: WantedCapture) -> Choice:
        """Returns: The choice with the request of a capture added."""
        wanted = with_all(capture.diagnostics, self.allowed)
        captured = self._choose({**choice.request, **wanted}, "capture")
        return replace(
            captured,
            denied={**choice.denied, **captured.denied},
            requested=True,
            capture_id=capture.capture_id,
            without_capture=choice,
        )

    def _of_message(self, actor_name: str, wanted: Any) -> Choice | None:
        request = self._read(actor_name, wanted, "message")
        return None if request is None else replace(self._choose(request, "message"), requested=True)

    def reason_against(self, request: DiagnosticsRequest) -> str | None:
        """Returns: Why this process cannot fulfil the whole request; None if it can."""
        request = with_all(request, self.allowed)
        missing = sorted(request.keys() - self.allowed)
        if missing:
            return f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST of this one has {missing}."
        return next(iter(self._choose(request, "capture").rejected_options.values()), None)

    def attached(self, request: DiagnosticsRequest) -> Choice:
        """Returns: The choice of what is attached to a running task."""
        return self._choose(with_all(request, self.allowed), "attachment")

    def look_at(self, actors: Iterable[Actor[..., Any]]) -> None:
        """Sets `samples` if one of the actors is sampled: messages to it have to carry the id of their root task."""
        self.samples = self.samples or any(SAMPLE_RATE_OPTION in actor.options for actor in actors)

    def _of_actor(self, broker: Broker, actor_name: str) -> tuple[Choice, int | None]:
        """Returns: The choice for the runs of an actor, and the bound of the checksums of those in the sample."""
        if actor_name == CLEANUP_ACTOR:
            return NOTHING, None
        options = broker.get_actor(actor_name).options
        wanted = options.get(OPTION, _MISSING)
        request = None if wanted is _MISSING else self._read(actor_name, wanted, "actor")
        choice = self._choose({name: {} for name in self.for_all} if request is None else request, "actor")
        return choice, self._sample_limit(actor_name, options.get(SAMPLE_RATE_OPTION, self._sample_rate))

    def _sample_limit(self, actor_name: str, rate: Any) -> int | None:
        """Returns: The bound that checksums of root task ids in the sample are below; None for all."""
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            text = f"its option {SAMPLE_RATE_OPTION} is {rate!r:.100}, not 0 to 1, and is ignored"
            self._warn(actor_name, "rate", text)
            rate = self._sample_rate
        self.samples = self.samples or rate < 1
        return int(rate * 2**32) if rate < 1 else None

    def _read(self, actor_name: str, wanted: Any, where: str) -> DiagnosticsRequest | None:
        """Returns: The request, allowed or not; None if the option cannot be read."""
        try:
            request = with_all(parse_request(wanted), self.allowed)
        except ValueError as error:
            text = f"the option {OPTION} of the {where} is {error} and is ignored: {reprlib.repr(wanted):.200}"
            self._warn(actor_name, "option", text)
            return None
        if not request.keys() <= self.allowed:
            dropped = sorted(f"{name:.100}" for name in request.keys() - self.allowed)[:_MAX_DENIED]
            lists = "neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST"
            text = f"the {where} asks for diagnostics that {lists} has; dropped are {dropped}"
            self._warn(actor_name, "names", text)
        return request

    def _choose(self, request: DiagnosticsRequest, where: str) -> Choice:
        """Selects the allowed collectors of a request.

        Parameters:
          request: The request.
          where: Its origin: the `message`, the `actor`, the `capture` or the `attachment`.
        """
        collectors = chosen(self.collectors, self.allowed.intersection(request))
        options: dict[str, Options] = {}
        rejected: dict[str, str] = {}
        for collector in collectors:
            given = request[collector.name]
            if given and not isinstance(collector, UnavailableCollector):  # Its artifact says why it is unavailable.
                try:
                    options[collector.name] = validate_options(collector, given, self._allowed_options)
                except OptionsError as error:
                    rejected[collector.name] = str(error)
        not_allowed = request.keys() - self.allowed
        denied = self._deny(not_allowed, collectors, where) if not_allowed else {}
        request = {collector.name: request[collector.name] for collector in collectors}
        return Choice(collectors=collectors, request=request, options=options, rejected_options=rejected, denied=denied)

    def _deny(self, names: Iterable[str], collectors: Iterable[Collector], where: str) -> dict[Collector, str]:
        """Returns: Placeholders of collectors that are not allowed -> why the run does not have them."""
        taken = {collector.artifact_name for collector in collectors}
        denied: dict[Collector, str] = {}
        for name in sorted(names)[:_MAX_DENIED]:
            found = self._placeholders.get(name) or placeholder(name, taken)
            if found.artifact_name in taken:  # `logs` and `debug-logs` leave the same artifact, and one may be allowed.
                continue
            taken.add(found.artifact_name)
            denied[found] = (
                f"The {where} asks for {name!r:.100}, which neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST "
                f"of this worker has{'' if name in COLLECTOR_NAMES else '; it is no collector of dramatiq_diag'}."
            )
        return denied

    def _warn(self, actor_name: str, subject: str, text: str) -> None:
        if (actor_name, subject) not in self._warned:
            self._warned.add((actor_name, subject))
            self._log_warning("Actor %r: %s.", actor_name, text)
