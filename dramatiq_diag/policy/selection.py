"""Which collectors a message gets: the most specific list of message, actor and settings replaces the others."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from uuid import UUID
from zlib import crc32

from dramatiq import Actor, Broker, Message
from dramatiq.broker import MessageProxy
from dramatiq.logging import get_logger

from ..collectors.base import Collector, Options, UnavailableCollector
from ..collectors.names import ALL, COLLECTOR_NAMES, expand
from ..collectors.registry import chosen, stand_in_for
from ..runtime.task_log import Warn
from .options import DiagnosticsRequest, OptionsError, judge_options, parse_request, with_all
from .propagation import CLEANUP_ACTOR, OPTION, SAMPLE_RATE_OPTION, parent_run_id, root_task_id

_MISSING = object()

#: Names that were asked for and are not allowed, of which a run has an artifact that says so; the rest is left out.
_MAX_DENIED = 10


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is collected of a run, and why."""

    collectors: tuple[Collector, ...] = ()
    "In the order of starting."
    request: DiagnosticsRequest = field(default_factory=dict)
    "Name of each of them -> its options, as they were given."
    options: Mapping[str, Options] = field(default_factory=dict)
    "Name of a collector -> its options, where any were given and are allowed."
    refusals: Mapping[str, str] = field(default_factory=dict)
    "Name of a collector -> why its options are not allowed."
    denied: Mapping[Collector, str] = field(default_factory=dict)
    "What stands in for each collector that was asked for and is not allowed -> why the run does not have it."
    requested: bool = False
    "Whether somebody asked for this run; otherwise it is what is collected for all, or for the actor."
    parent_run_id: UUID | None = None
    "The diagnosed run that sent the task, which passed on what is collected."
    capture_id: UUID | None = None
    "The capture that asked for it."
    without_capture: Choice | None = None
    "What is collected where that capture has no slot for the run; None without a capture."


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
        """Returns: The capture that wants the actor's run that begins on this thread, or None."""


class Selection:
    """Answers for each message which collectors run.

    Parameters:
      collectors: Name -> collector, in the order of starting.
      for_all: The setting `task_diagnostics`: names of what is collected for every task.
      on_request: The setting `task_diagnostics_on_request`: names that may be asked for besides.
      options_on_request: The options of collectors that may be asked for.
      sample_rate: The share of the tasks that are diagnosed without being asked for, from 0 to 1.
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
        warn: Warn | None = None,
    ) -> None:
        self._log_warning = get_logger(__name__, type(self)).warning if warn is None else warn
        self.collectors = collectors
        self.for_all = frozenset(expand(for_all))
        self.allowed = self.for_all | frozenset(expand(on_request))
        # Made here, as their modules are imported for that: an interrupt in an import may leave the module's lock held.
        self._stand_ins = {name: stand_in_for(name, ()) for name in COLLECTOR_NAMES if name not in self.allowed}
        self._allowed_options = options_on_request
        self.samples = sample_rate < 1
        "Whether some tasks are left out; then what a task sends has to know what it began with."
        self._sample_rate = sample_rate
        self.captures: OpenCaptures | None = None
        "The captures that ask for runs; None while none is open."
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

    def _captured(self, choice: Choice, capture: WantedCapture) -> Choice:
        """Returns: What a capture asks for, besides what there would be without it."""
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

    def refusal(self, request: DiagnosticsRequest) -> str | None:
        """Returns: Why this process cannot do all that is asked for, in words; None where it can."""
        request = with_all(request, self.allowed)
        missing = sorted(request.keys() - self.allowed)
        if missing:
            return f"neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST of this one has {missing}."
        return next(iter(self._choose(request, "capture").refusals.values()), None)

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
        choice = self._choose({name: {} for name in self.for_all} if request is None else request, "actor")
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

    def _read(self, actor_name: str, wanted: Any, where: str) -> DiagnosticsRequest | None:
        """Returns: What is asked for, allowed or not; None where the option cannot be read."""
        try:
            request = with_all(parse_request(wanted), self.allowed)
        except ValueError as error:
            self._warn(
                actor_name,
                "option",
                f"the option {OPTION} of the {where} is {error} and is ignored: {reprlib.repr(wanted):.200}",
            )
            return None
        if not request.keys() <= self.allowed:
            dropped = sorted(f"{name:.100}" for name in request.keys() - self.allowed)[:_MAX_DENIED]
            self._warn(
                actor_name,
                "names",
                f"the {where} asks for diagnostics that neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST has; "
                f"dropped are {dropped}",
            )
        return request

    def _choose(self, request: DiagnosticsRequest, where: str) -> Choice:
        """Chooses what is allowed of a request.

        Parameters:
          request: What is asked for.
          where: Who asks: the `message`, the `actor` or the `capture`.
        """
        collectors = chosen(self.collectors, self.allowed.intersection(request))
        options: dict[str, Options] = {}
        refusals: dict[str, str] = {}
        for collector in collectors:
            given = request[collector.name]
            if given and not isinstance(collector, UnavailableCollector):  # That one says why it is.
                try:
                    options[collector.name] = judge_options(collector, given, self._allowed_options)
                except OptionsError as error:
                    refusals[collector.name] = str(error)
        not_allowed = request.keys() - self.allowed
        denied = self._deny(not_allowed, collectors, where) if not_allowed else {}
        request = {collector.name: request[collector.name] for collector in collectors}
        return Choice(collectors=collectors, request=request, options=options, refusals=refusals, denied=denied)

    def _deny(self, names: Iterable[str], collectors: Iterable[Collector], where: str) -> dict[Collector, str]:
        """Returns: What stands in for collectors that are not allowed -> why the run does not have them."""
        taken = {collector.artifact_name for collector in collectors}
        denied: dict[Collector, str] = {}
        for name in sorted(names)[:_MAX_DENIED]:
            found = self._stand_ins.get(name) or stand_in_for(name, taken)
            if found.artifact_name in taken:  # As that of `debug-logs` is where `logs` is allowed.
                continue
            taken.add(found.artifact_name)
            denied[found] = (
                f"The {where} asks for {name!r:.100}, which neither TASK_DIAGNOSTICS nor TASK_DIAGNOSTICS_ON_REQUEST "
                f"of this worker has{'' if name in COLLECTOR_NAMES else '; it is no collector of dramatiq_diag'}."
            )
        return denied

    def _warn(self, actor_name: str, what: str, text: str) -> None:
        if (actor_name, what) not in self._warned:
            self._warned.add((actor_name, what))
            self._log_warning("Actor %r: %s.", actor_name, text)


def _limit_of(rate: float) -> int | None:
    """Returns: What the checksums of a share are below; None for all of them."""
    return None if rate >= 1 else int(rate * 2**32)
