"""Summarizes the latest runs of an actor by the release of the application that executed them."""

from __future__ import annotations

import math
import statistics
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from ..statuses import FAILED_STATUSES, RunStatus
from .actor_stats import p95
from .columns import NAME_LENGTH
from .models import TaskRun
from .values import clean_text

#: Some columns of a run.
_Run = Row[*tuple[Any, ...]]

#: The latest ended runs of an actor that count; one index finds them.
LATEST_RUNS = 1000

#: The median of fewer successful runs is not compared with that of another release.
MIN_COMPARED = 5


@dataclass(frozen=True, kw_only=True)
class ReleaseSummary:
    """The runs of one actor in one release, of its latest 1,000 that have ended. Durations are of successful runs."""

    release: str | None
    "None for runs of which it is not known."
    run_count: int
    failed_count: int
    "Runs that failed or were interrupted."
    first_started_at: datetime
    last_started_at: datetime
    median_duration_ms: float | None
    "None where no run succeeded, as in what follows."
    p95_duration_ms: float | None
    median_cpu_ms: float | None
    max_peak_rss_bytes: int | None
    typical_run_id: uuid.UUID | None
    "The newest of the runs whose durations are nearest to the median."
    typical_task_id: str | None
    "The task of that run."
    duration_ratio: float | None = None
    "The median divided by that of the release before; None where one of them has fewer than 5 successful runs."


def summarize_releases(session: Session, actor_name: str) -> list[ReleaseSummary]:
    """Returns: The releases that executed the actor's latest runs, the newest first; none where no run names one.

    A release is newer than another one if its first run among these started later.
    """
    figures = TaskRun.duration_ms, TaskRun.cpu_ms, TaskRun.peak_rss_bytes
    query = (
        select(TaskRun.run_id, TaskRun.task_id, TaskRun.release, TaskRun.status, TaskRun.started_at, *figures)
        .where(TaskRun.actor_name == clean_text(actor_name, NAME_LENGTH), TaskRun.status != RunStatus.RUNNING)
        .order_by(TaskRun.started_at.desc(), TaskRun.run_id.desc())
        .limit(LATEST_RUNS)
    )
    runs_of: dict[str | None, list[_Run]] = {}
    for row in session.execute(query):
        runs_of.setdefault(row.release, []).append(row)
    if not runs_of.keys() - {None}:
        return []
    newest_first = sorted(runs_of.items(), key=lambda pair: pair[1][-1].started_at, reverse=True)
    before = [*(runs for _, runs in newest_first[1:]), []]
    return [_summary(release, runs, older) for (release, runs), older in zip(newest_first, before, strict=True)]


def _summary(release: str | None, runs: Sequence[_Run], older: Sequence[_Run]) -> ReleaseSummary:
    """Returns: The summary of the runs of a release, the newest first, beside those of the release before."""
    succeeded = _succeeded(runs)
    durations_ms = sorted(run.duration_ms for run in succeeded)
    before_ms = [run.duration_ms for run in _succeeded(older)]
    cpu_ms = [run.cpu_ms for run in succeeded if run.cpu_ms is not None and math.isfinite(run.cpu_ms)]
    median_ms = statistics.median(durations_ms) if durations_ms else None
    ratio = None
    if median_ms is not None and min(len(durations_ms), len(before_ms)) >= MIN_COMPARED:
        median_before_ms = statistics.median(before_ms)
        ratio = median_ms / median_before_ms if median_before_ms > 0 else None
    typical = None if median_ms is None else min(succeeded, key=lambda run: abs(run.duration_ms - median_ms))
    return ReleaseSummary(
        release=release,
        run_count=len(runs),
        failed_count=sum(run.status in FAILED_STATUSES for run in runs),
        first_started_at=min(run.started_at for run in runs),
        last_started_at=max(run.started_at for run in runs),
        median_duration_ms=median_ms,
        p95_duration_ms=p95(durations_ms),
        median_cpu_ms=statistics.median(cpu_ms) if cpu_ms else None,
        max_peak_rss_bytes=max((run.peak_rss_bytes for run in runs if run.peak_rss_bytes is not None), default=None),
        typical_run_id=None if typical is None else typical.run_id,
        typical_task_id=None if typical is None else typical.task_id,
        duration_ratio=None if ratio is None else round(ratio, 4),
    )


def _succeeded(runs: Sequence[_Run]) -> list[_Run]:
    succeeded = (run for run in runs if run.status == RunStatus.SUCCEEDED)
    return [run for run in succeeded if run.duration_ms is not None and math.isfinite(run.duration_ms)]
