"""Summarizes the stored runs of each actor: counts, durations, memory."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from ..statuses import RunStatus
from .models import TaskRun
from .values import clean_text
from .worker_actors import worker_actor_names, worker_has

#: The latest ended runs of an actor whose durations count.
LATEST_RUNS = 100

_FAILED = (RunStatus.FAILED, RunStatus.INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class ActorSummary:
    """The stored runs of one actor. An actor that workers have may have none yet."""

    actor_name: str
    run_count: int = 0
    failed_count: int = 0
    "Of runs that failed or were interrupted."
    last_started_at: datetime | None = None
    "None where there are no runs."
    median_duration_ms: float | None = None
    "Of the latest 100 ended runs; None where none has ended."
    p95_duration_ms: float | None = None
    "Of the same: 95 % of them took no longer."
    max_peak_rss_bytes: int | None = None


def list_actors(session: Session, since: datetime | None = None) -> list[ActorSummary]:
    """Returns: The actors of which a run is stored and those that workers have, by name.

    With *since* only runs that started then or later count; aware.
    """
    counts = _counts() if since is None else _counts().where(TaskRun.started_at >= since)
    found = {row[0]: _summary(session, row, since) for row in session.execute(counts).all()}
    found |= {name: ActorSummary(actor_name=name) for name in worker_actor_names(session) if name not in found}
    return [found[name] for name in sorted(found)]


def summarize_actor(session: Session, actor_name: str) -> ActorSummary | None:
    """Returns: The summary of an actor, or None where no run of it is stored and no worker has it."""
    row = session.execute(_counts().where(TaskRun.actor_name == actor_name)).first()
    if row is not None:
        return _summary(session, row)
    return ActorSummary(actor_name=clean_text(actor_name)) if worker_has(session, actor_name) else None


def _counts() -> Select[str, int, int, datetime, int | None]:
    return select(
        TaskRun.actor_name,
        func.count(),
        func.count().filter(TaskRun.status.in_(_FAILED)),
        func.max(TaskRun.started_at),
        func.max(TaskRun.peak_rss_bytes),
    ).group_by(TaskRun.actor_name)


def _summary(
    session: Session, row: Row[str, int, int, datetime, int | None], since: datetime | None = None
) -> ActorSummary:
    actor_name, run_count, failed_count, last_started_at, max_peak_rss_bytes = row
    durations_ms = _latest_durations_ms(session, actor_name, since)
    return ActorSummary(
        actor_name=actor_name,
        run_count=run_count,
        failed_count=failed_count,
        last_started_at=last_started_at,
        median_duration_ms=statistics.median(durations_ms) if durations_ms else None,
        p95_duration_ms=_p95(durations_ms) if durations_ms else None,
        max_peak_rss_bytes=max_peak_rss_bytes,
    )


def _latest_durations_ms(session: Session, actor_name: str, since: datetime | None) -> Sequence[float]:
    query = (
        select(TaskRun.duration_ms)
        .where(TaskRun.actor_name == actor_name, TaskRun.duration_ms < math.inf)  # Those that run have none.
        .order_by(TaskRun.started_at.desc(), TaskRun.run_id.desc())
        .limit(LATEST_RUNS)
    )
    if since is not None:
        query = query.where(TaskRun.started_at >= since)
    found: Sequence[float | None] = session.execute(query).scalars().all()
    return [duration_ms for duration_ms in found if duration_ms is not None]


def _p95(figures: Sequence[float]) -> float:
    return sorted(figures)[math.ceil(len(figures) * 0.95) - 1]
