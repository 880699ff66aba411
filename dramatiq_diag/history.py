"""How the actors have been doing, one line each."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from .models import RunStatus, TaskRun
from .records import clean_text

#: The durations of so many runs of an actor count, the latest that have ended.
LATEST_RUNS = 100

_FAILED = (RunStatus.FAILED, RunStatus.INTERRUPTED)


@dataclass(frozen=True, kw_only=True)
class ActorSummary:
    """The runs of one actor that are stored."""

    actor_name: str
    run_count: int
    failed_count: int
    "Of runs that failed or were interrupted."
    last_started_at: datetime
    median_duration_ms: float | None
    "Of the latest 100 ended runs; None where none has ended."
    p95_duration_ms: float | None
    "Of the same: 95 % of them took no longer."
    max_peak_rss_bytes: int | None


def list_actors(session: Session) -> list[ActorSummary]:
    """Returns: The actors of which a run is stored, by name."""
    counts = session.execute(_counts().order_by(TaskRun.actor_name)).all()
    return [_summary(session, row) for row in counts]


def summarize_actor(session: Session, actor_name: str) -> ActorSummary | None:
    """Returns: What the runs of an actor come to, or None where none is stored."""
    row = session.execute(_counts().where(TaskRun.actor_name == clean_text(actor_name))).first()
    return None if row is None else _summary(session, row)


def _counts() -> Select[str, int, int, datetime, int | None]:
    return select(
        TaskRun.actor_name,
        func.count(),
        func.count().filter(TaskRun.status.in_(_FAILED)),
        func.max(TaskRun.started_at),
        func.max(TaskRun.peak_rss_bytes),
    ).group_by(TaskRun.actor_name)


def _summary(session: Session, row: Row[str, int, int, datetime, int | None]) -> ActorSummary:
    actor_name, run_count, failed_count, last_started_at, max_peak_rss_bytes = row
    durations_ms = _latest_durations_ms(session, actor_name)
    return ActorSummary(
        actor_name=actor_name,
        run_count=run_count,
        failed_count=failed_count,
        last_started_at=last_started_at,
        median_duration_ms=statistics.median(durations_ms) if durations_ms else None,
        p95_duration_ms=_p95(durations_ms) if durations_ms else None,
        max_peak_rss_bytes=max_peak_rss_bytes,
    )


def _latest_durations_ms(session: Session, actor_name: str) -> Sequence[float]:
    query = (
        select(TaskRun.duration_ms)
        .where(TaskRun.actor_name == actor_name, TaskRun.duration_ms < math.inf)  # Those that run have none.
        .order_by(TaskRun.started_at.desc(), TaskRun.run_id.desc())
        .limit(LATEST_RUNS)
    )
    found: Sequence[float | None] = session.execute(query).scalars().all()
    return [duration_ms for duration_ms in found if duration_ms is not None]


def _p95(figures: Sequence[float]) -> float:
    return sorted(figures)[math.ceil(len(figures) * 0.95) - 1]
