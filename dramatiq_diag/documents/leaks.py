"""Makes the JSON document of the leaking actors, for HTTP and the command line."""

from __future__ import annotations

from collections.abc import Iterable

from typing_extensions import TypedDict

from ..statuses import LeakVerdict
from .fields import described, document_of


@described
class ActorLeakDocument(TypedDict):
    """What the live memory of the worker processes says of an actor."""

    actor_name: str
    runs: int
    "Its runs in the windows that count, diagnosed or not; those in the first quarter of a process's life do not."
    bytes_per_run: float | None
    "What stays of each run, in bytes; null where that is not known. For `clean` and most `undecided` a best guess."
    low: float | None
    "With `high` the interval that has the true figure 95 times of 100."
    high: float | None
    verdict: LeakVerdict
    reason: str
    runs_needed: int | None
    "About how many runs more are needed to decide; null where that is not known, or nothing is left to decide."


@described
class LeaksDocument(TypedDict):
    """The actors of which a run has ended, the leaking ones first."""

    actors: list[ActorLeakDocument]


def leaks_document(findings: Iterable[object]) -> LeaksDocument:
    """Returns: The document of what was found; see `insights.leaks.ActorFinding`."""
    return {"actors": [document_of(ActorLeakDocument, finding) for finding in findings]}
