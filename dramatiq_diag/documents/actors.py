"""Makes the JSON documents of actors, for HTTP and the command line."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..store.actor_stats import ActorSummary, list_actors
from ..store.release_stats import summarize_releases
from .fields import HrefText, Timestamp, UuidText, actor_href, described, document_of
from .runs import RunDocument


@described
class ActorDocument(TypedDict):
    """The figures of an actor. An actor that workers have may have no runs yet."""

    actor_name: str
    run_count: int
    failed_count: int
    "Runs that failed or were interrupted."
    last_started_at: Timestamp | None
    "Null where there are no runs."
    median_duration_ms: float | None
    "Of the latest 100 runs that have ended, as the two that follow."
    p95_duration_ms: float | None
    max_peak_rss_bytes: int | None
    queue_wait_ms: float | None
    "The median of the same runs, in milliseconds; null where it is not known of any."
    cpu_s: float | None
    "The CPU time of all its runs since then of which it is known, in seconds; null without `since`."
    run_s: float | None
    "The sum of their durations, in seconds; null without `since`."
    touched_bytes: int | None
    "The memory that their threads touched first, in bytes, at least; null without `since`."
    href: HrefText
    "The path of the actor."


@described
class ActorsDocument(TypedDict):
    """All actors, by name."""

    actors: list[ActorDocument]


@described
class ReleaseDocument(TypedDict):
    """The runs of an actor in one release, of its latest 1,000 that have ended. Durations are of successful runs."""

    release: str | None
    "Null for runs of which it is not known."
    run_count: int
    failed_count: int
    "Runs that failed or were interrupted."
    first_started_at: Timestamp
    last_started_at: Timestamp
    median_duration_ms: float | None
    "Null where no run succeeded, as in what follows."
    p95_duration_ms: float | None
    "95 % of the successful runs took no longer."
    median_cpu_ms: float | None
    max_peak_rss_bytes: int | None
    "Of all these runs."
    typical_run_id: UuidText | None
    "A run whose duration is nearest to the median."
    typical_task_id: str | None
    "The task of that run."
    duration_ratio: float | None
    "The median divided by that of the release before; null where one of them has fewer than 5 successful runs."


@described
class ReleasesDocument(TypedDict):
    """The releases of an actor's latest runs."""

    releases: list[ReleaseDocument]
    "The newest first; empty where no run names a release."


@described
class ActorHistoryDocument(ReleasesDocument):
    """An actor, its releases, and a page of its runs, newest first."""

    actor: ActorDocument
    runs: list[RunDocument]
    next: str | None
    "The `cursor` of the next page; null on the last one."


def actors_document(session: Session, since: datetime | None = None) -> ActorsDocument:
    """Returns: The actors of which a run is stored and those that workers have; see `list_actors`."""
    return {"actors": [actor_document(summary) for summary in list_actors(session, since)]}


def releases_document(session: Session, actor_name: str) -> ReleasesDocument:
    """Returns: The releases of an actor's latest runs; see `summarize_releases`."""
    return {"releases": [document_of(ReleaseDocument, found) for found in summarize_releases(session, actor_name)]}


def actor_document(summary: ActorSummary) -> ActorDocument:
    """Returns: ACTOR, as docs/http.md describes it."""
    return document_of(ActorDocument, summary, href=actor_href(summary.actor_name))
