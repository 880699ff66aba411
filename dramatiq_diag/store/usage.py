"""Reads how much is stored, from the counters: no row of a run is counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from .counters import Series
from .models import Artifact, Counter, TaskRun, is_live

_STORED = (Series.STORED_RUNS, Series.STORED_ARTIFACTS, Series.STORED_BYTES)


@dataclass(kw_only=True)
class Usage:
    """Runs that have ended, and their artifacts with a blob."""

    run_count: int = 0
    artifact_count: int = 0
    size_bytes: int = 0

    def add(self, series: str, amount: float) -> None:
        """Adds a counter."""
        if series == Series.STORED_RUNS:
            self.run_count += round(amount)
        elif series == Series.STORED_ARTIFACTS:
            self.artifact_count += round(amount)
        else:
            self.size_bytes += round(amount)


@dataclass(kw_only=True)
class StoreUsage:
    """What the whole store has."""

    total: Usage = field(default_factory=Usage)
    by_actor: dict[str, Usage] = field(default_factory=dict)
    by_artifact_name: dict[str, Usage] = field(default_factory=dict)
    "A run has at most one artifact of each name, so here the number of runs is that of artifacts."


def read_usage(session: Session) -> StoreUsage:
    """Returns: What is stored, exactly; by actor and by the name of the artifacts, the most bytes first."""
    usage = StoreUsage()
    columns = Counter.series, Counter.actor_name, Counter.label, Counter.value
    rows = session.execute(select(*columns).where(Counter.series.in_(_STORED), Counter.value != 0))
    for series, actor_name, label, value in rows:
        usage.total.add(series, value)
        usage.by_actor.setdefault(actor_name, Usage()).add(series, value)
        if series != Series.STORED_RUNS:
            of_name = usage.by_artifact_name.setdefault(label, Usage())
            of_name.add(series, value)
            of_name.run_count = of_name.artifact_count
    usage.by_actor = _largest_first(usage.by_actor.items())
    usage.by_artifact_name = _largest_first(usage.by_artifact_name.items())
    return usage


def _largest_first(items: Iterable[tuple[str, Usage]]) -> dict[str, Usage]:
    return dict(sorted(items, key=lambda item: (-item[1].size_bytes, -item[1].run_count, item[0])))


def pinned_artifacts(session: Session, most: int) -> tuple[int, int]:
    """Returns: The number of artifacts of pinned runs and their bytes; of *most* of them, where there are more."""
    pinned = select(Artifact.size_bytes).where(is_live(Artifact.status), Artifact.expires_at.is_(None))
    found = pinned.limit(most).subquery()
    count, size_bytes = session.execute(select(func.count(), func.sum(found.c.size_bytes)).select_from(found)).one()
    return count, int(size_bytes or 0)


def oldest_start(session: Session) -> datetime | None:
    """Returns: When the oldest run began, by the clock of its host; None where no run is stored."""
    return session.execute(select(TaskRun.started_at).order_by(TaskRun.started_at).limit(1)).scalar_one_or_none()


def first_expiry(session: Session) -> datetime | None:
    """Returns: When the next artifact may expire; None where none does."""
    query = select(Artifact.expires_at).where(is_live(Artifact.status), Artifact.expires_at.is_not(None))
    return session.execute(query.order_by(Artifact.expires_at).limit(1)).scalar_one_or_none()
