"""Asks for allocation profiles of actors that were found to leak, once an actor and day."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from ..insights.stored_leaks import read_leaks
from ..policy.leak_captures import LEAK_DURATION_S, LEAK_OPTIONS, LEAK_RUNS
from ..statuses import LeakVerdict
from ..store import captures
from ..store.clock import Clock
from ..store.store import Store
from ..text import printable


class LeakCaptures(NamedTuple):
    """What became of the captures of leaking actors."""

    made: list[captures.CaptureStanding]
    refused: dict[str, str]
    "Actor -> why no capture of it can be made."


def refusals(captures_of_leaks: LeakCaptures) -> list[str]:
    """Returns: A sentence for each capture that is not allowed."""
    return [
        f"The actor {printable(name)} leaks, and no allocation profile of it can be asked for: {reason}"
        for name, reason in captures_of_leaks.refused.items()
    ]


def capture_leaks(store: Store, actor_names: Iterable[str] | None = None) -> LeakCaptures:
    """Creates a capture for each leaking actor that had none within a day.

    Parameters:
      store: The store.
      actor_names: The leaking actors; without them they are found.

    Returns:
      The new captures, and those that are not allowed.
    """
    with store.session() as session:
        if actor_names is None:
            found = read_leaks(session).findings
            actor_names = [one.actor_name for one in found if one.verdict is LeakVerdict.LEAKS]
        wanted = [name for name in actor_names if not _was_captured(session, name)]
    results = LeakCaptures([], {})
    for name in wanted:
        try:
            made = captures.create(store, name, LEAK_OPTIONS, LEAK_RUNS, LEAK_DURATION_S, unknown_actor=True)
            results.made.append(made)
        except (captures.CaptureRequestError, captures.TooManyCapturesError) as error:
            results.refused[name] = str(error)
    return results


def _was_captured(session: Session, actor_name: str) -> bool:
    """Returns: Whether a capture of memray was made for the actor within a day."""
    after = Clock(session).read() - timedelta(days=1)
    made = captures.list_captures(session, actor_name=actor_name)
    return any("memray" in one.capture.diagnostics and one.capture.created_at > after for one in made)
