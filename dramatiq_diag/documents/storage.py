"""Makes the JSON document of what the store holds, for HTTP and the command line."""

from __future__ import annotations

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..settings import Settings
from ..store.clock import Clock
from ..store.forecast import forecast
from ..store.usage import first_expiry, oldest_start, pinned_artifacts, read_usage
from .fields import HrefText, Timestamp, actor_href, described, document_of

#: The most rows that are looked at to predict a cleanup, for each reason. For 100,000 rows SQLite took up to 1.3 s of
#: a processor.
MOST_ROWS = 50_000


@described
class ActorStorageDocument(TypedDict):
    """What is stored of an actor."""

    actor_name: str
    run_count: int
    "Runs that have ended."
    artifact_count: int
    "Artifacts with a file."
    size_bytes: int
    href: HrefText
    "The path of the actor."


@described
class CollectorStorageDocument(TypedDict):
    """What is stored of a collector."""

    artifact_name: str
    "The name of its artifacts."
    run_count: int
    "Runs that have such an artifact with a file."
    size_bytes: int


@described
class BoundDocument(TypedDict):
    """A bound on what is stored, and how full it is."""

    setting: str
    used: int
    limit: int | None
    "Null where the setting is empty."
    used_ratio: float | None
    "The part of the limit that is used; above 1 until the next cleanup."


@described
class RemovalDocument(TypedDict):
    """What a cleanup removes for one reason."""

    run_count: int
    artifact_count: int
    size_bytes: int


@described
class NextCleanupDocument(TypedDict):
    """What a cleanup would remove now, each thing for the first reason that applies."""

    by_time: RemovalDocument
    by_max_runs: RemovalDocument
    by_max_bytes: RemovalDocument
    size_bytes: int
    "Of all of them."
    is_complete: bool
    "False where more than 50,000 rows go for a reason. Then the numbers are minima, and later reasons may have 0."


@described
class PinnedDocument(TypedDict):
    """The artifacts of pinned runs."""

    artifact_count: int
    size_bytes: int
    is_complete: bool
    "False where there are more than 50,000; then the numbers are minima."


@described
class StorageDocument(TypedDict):
    """What the store holds. The numbers of all, by actor and by collector are exact; they are kept, not counted."""

    run_count: int
    "Runs that have ended."
    artifact_count: int
    "Artifacts with a file."
    size_bytes: int
    "The size of these files, without the reports that were rendered from them."
    max_bytes: BoundDocument
    max_runs: BoundDocument
    oldest_started_at: Timestamp | None
    "When the oldest run began, by the clock of its host."
    first_expires_at: Timestamp | None
    "When the next artifact may expire; in the past until the next cleanup."
    pinned: PinnedDocument
    next_cleanup: NextCleanupDocument
    actors: list[ActorStorageDocument]
    "The largest first."
    collectors: list[CollectorStorageDocument]
    "The largest first."


def storage_document(session: Session, settings: Settings, most_rows: int = MOST_ROWS) -> StorageDocument:
    """Returns: What the store holds; no more than *most_rows* are read for each part of it."""
    usage = read_usage(session)
    foretold = forecast(session, settings, Clock(session).read(), most_rows)
    removals = {name: getattr(foretold, name) for name in ("by_time", "by_max_runs", "by_max_bytes")}
    pinned_count, pinned_bytes = pinned_artifacts(session, most_rows + 1)
    return document_of(
        StorageDocument,
        usage.total,
        max_bytes=_bound("max_bytes", usage.total.size_bytes, settings.max_bytes),
        max_runs=_bound("max_runs", usage.total.run_count, settings.max_runs),
        oldest_started_at=oldest_start(session),
        first_expires_at=first_expiry(session),
        pinned={
            "artifact_count": pinned_count,
            "size_bytes": pinned_bytes,
            "is_complete": pinned_count <= most_rows,
        },
        next_cleanup={
            **{name: vars(removal) for name, removal in removals.items()},
            "size_bytes": sum(removal.size_bytes for removal in removals.values()),
            "is_complete": foretold.is_complete,
        },
        actors=[{**vars(each), "actor_name": name, "href": actor_href(name)} for name, each in usage.by_actor.items()],
        collectors=[
            {"artifact_name": name, "run_count": each.run_count, "size_bytes": each.size_bytes}
            for name, each in usage.by_artifact_name.items()
        ],
    )


def _bound(name: str, used: int, limit: int | None) -> BoundDocument:
    ratio = None if limit is None else round(used / limit, 4)
    return {"setting": Settings.variable(name), "used": used, "limit": limit, "used_ratio": ratio}
