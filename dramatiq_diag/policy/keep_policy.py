"""Decides by keep rules whether the artifacts of a run that has ended are kept."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from dramatiq import Actor

from ..runtime.task_log import Warn
from ..statuses import RunStatus
from .keep_rules import ALLOWED_RULES, Facts, Rule, parse_rules
from .propagation import KEEP_IF_OPTION
from .quantiles import DurationHistogram

#: The most actors whose durations are remembered; the least recently executed one is forgotten first.
MAX_ACTORS = 1000


class KeepPolicy:
    """Decides which runs of a process are kept, and learns the usual durations of its actors.

    Parameters:
      keep_if: The setting of that name: the rules of actors that have no rules of their own.
      warn: Logs a warning for a task's thread; see `TaskLog`.
      max_actors: The most actors whose durations are remembered.
    """

    def __init__(self, keep_if: Sequence[str], warn: Warn, *, max_actors: int = MAX_ACTORS) -> None:
        self._log_warning = warn
        self._for_all = parse_rules(keep_if)
        self._max_actors = max_actors
        self._by_actor: dict[Actor[..., Any], tuple[Rule, ...]] = {}
        self._lock = threading.Lock()
        self._usual: OrderedDict[str, DurationHistogram] = OrderedDict()

    def rules_of(self, actor: Actor[..., Any]) -> tuple[Rule, ...]:
        """Returns: The rules for an actor's runs; without rules all are kept."""
        try:
            return self._by_actor[actor]
        except KeyError:
            rules = self._by_actor[actor] = self._read_option(actor)
            return rules

    def unmet_rules(
        self, actor: Actor[..., Any], status: RunStatus, facts: Facts, *, is_requested: bool = False
    ) -> Sequence[str] | None:
        """Decides about a run that has ended.

        Parameters:
          actor: The actor.
          status: Its status. Only runs that succeeded count for the usual durations, as others may end early.
          facts: The figures of the run.
          is_requested: Whether the run was requested; it is kept then.

        Returns:
          The rules, as they were written, if none of them holds; None for a run that is kept.
        """
        rules = self.rules_of(actor)
        if not rules:
            return None
        held = self._held(actor.actor_name, rules, facts, learn=status == RunStatus.SUCCEEDED)
        return None if held or is_requested else [rule.text for rule in rules]

    def _held(self, actor_name: str, rules: Iterable[Rule], facts: Facts, *, learn: bool) -> bool:
        with self._lock:
            usual = self._usual.get(actor_name)
            if usual is None:
                usual = self._usual[actor_name] = DurationHistogram()
                if len(self._usual) > self._max_actors:
                    self._usual.popitem(last=False)
            self._usual.move_to_end(actor_name)
            held = any(rule.holds(facts, usual) for rule in rules)
            if learn:
                usual.add(facts.duration_ms)
            return held

    def _read_option(self, actor: Actor[..., Any]) -> tuple[Rule, ...]:
        if KEEP_IF_OPTION not in actor.options:
            return self._for_all
        try:
            return parse_rules(actor.options[KEEP_IF_OPTION])
        except ValueError as error:
            self._log_warning(
                "Actor %r: its option %s is ignored, and all its runs are kept%s; allowed are %s.",
                actor.actor_name,
                KEEP_IF_OPTION,
                f" ({error})" if str(error) else "",
                ALLOWED_RULES,
            )
            return ()
