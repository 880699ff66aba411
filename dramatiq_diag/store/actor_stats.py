"""Summarizes the stored runs of each actor: counts, durations, memory, and what they used of the machine."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, ColumnElement, Float, ScalarSelect, Text, cast, func, literal, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..policy.stuck_rule import UsualDuration
from ..statuses import FAILED_STATUSES, RunStatus
from .columns import NAME_LENGTH
from .counters import stored_runs
from .models import TaskRun, WorkerActor
from .values import clean_text
from .worker_actors import names_of_runs, worker_actor_names, worker_has

#: The latest ended runs of an actor whose durations count.
LATEST_RUNS = 100

#: What is summed up over a time range; see `_counts`.
_SUMMED = (TaskRun.duration_ms, TaskRun.cpu_ms, TaskRun.touched_bytes)


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
    queue_wait_ms: float | None = None
    "The median of the same runs; None where it is not known of any."
    cpu_s: float | None = None
    "The sum of the runs since a time of which it is known; None where it is of none, or without such a time."
    run_s: float | None = None
    "The sum of their durations, in seconds; None without such a time."
    touched_bytes: int | None = None
    "The sum, as `cpu_s`."


def list_actors(session: Session, since: datetime | None = None) -> list[ActorSummary]:
    """Returns: The actors of which a run is stored and those that workers have, by name.

    With *since* (aware) only runs that started then or later count, and each of them is read; without it, a few are.
    """
    names = names_of_runs()
    summaries = _summaries(session, names) if since is None else _summaries_since(session, names, since)
    found = {summary.actor_name: summary for summary in summaries}
    found |= {name: ActorSummary(actor_name=name) for name in worker_actor_names(session) if name not in found}
    return [found[name] for name in sorted(found)]


def summarize_actor(session: Session, actor_name: str) -> ActorSummary | None:
    """Returns: The summary of an actor, or None where no run of it is stored and no worker has it."""
    name = clean_text(actor_name, NAME_LENGTH)
    found = _summaries(session, select(literal(name, Text).label("actor_name")).cte())
    if found:
        return found[0]
    return ActorSummary(actor_name=name) if worker_has(session, actor_name) else None


def usual_duration(session: Session, actor_name: str) -> UsualDuration:
    """Returns: What the latest 100 ended runs of an actor took. It reads no other row."""
    names = select(literal(clean_text(actor_name, NAME_LENGTH), Text).label("actor_name")).cte()
    durations_ms, _ = _read(session.execute(select(_durations(names)).select_from(names)).scalar())
    return UsualDuration(run_count=len(durations_ms), p95_ms=p95(durations_ms))


def median_durations(session: Session, actor_names: Collection[str]) -> dict[str, float]:
    """Returns: Actor of a worker -> the median of its latest 100 ended runs, in milliseconds; without runs left out."""
    names = select(WorkerActor.actor_name).where(WorkerActor.actor_name.in_(actor_names)).cte()
    rows = session.execute(select(names.c.actor_name, _durations(names).label("durations_ms")))
    found = {row.actor_name: _read(row.durations_ms)[0] for row in rows}
    return {name: statistics.median(durations_ms) for name, durations_ms in found.items() if durations_ms}


def _summaries(session: Session, names: CTE) -> list[ActorSummary]:
    """Reads the counts of ended runs from the counters, and each figure of an actor by an index."""
    ended = stored_runs(session)
    running = select(TaskRun.actor_name, func.count().label("count_")).where(TaskRun.status == RunStatus.RUNNING)
    running_counts = {row.actor_name: row.count_ for row in session.execute(running.group_by(TaskRun.actor_name))}
    of_actor = TaskRun.actor_name == names.c.actor_name
    query = select(
        names.c.actor_name,
        select(func.max(TaskRun.started_at)).where(of_actor).scalar_subquery().label("last_started_at"),
        select(func.max(TaskRun.peak_rss_bytes)).where(of_actor).scalar_subquery().label("max_peak_rss_bytes"),
        _durations(names).label("durations_ms"),
    )
    found = []
    for row in session.execute(query):
        if row.last_started_at is not None:
            ended_count, failed_count = ended.get(row.actor_name, (0, 0))
            run_count = ended_count + running_counts.get(row.actor_name, 0)
            found.append(_summary(row, run_count, failed_count, row.max_peak_rss_bytes))
    return found


def _summaries_since(session: Session, names: CTE, since: datetime) -> list[ActorSummary]:
    recent = TaskRun.actor_name == names.c.actor_name, TaskRun.started_at >= since
    query = select(
        names.c.actor_name,
        select(func.max(TaskRun.started_at)).where(*recent).scalar_subquery().label("last_started_at"),
        _counts(*recent).label("counts"),
        _durations(names, since).label("durations_ms"),
    )
    found = []
    for row in session.execute(query):
        if row.last_started_at is not None:
            run_count, failed_count, peak_rss_bytes, *sums = row.counts.split()
            summary = _summary(
                row, int(run_count), int(failed_count), None if peak_rss_bytes == "-" else int(peak_rss_bytes)
            )
            run_ms, cpu_ms, touched_bytes = (None if text == "-" else float(text) for text in sums)
            found.append(
                replace(
                    summary,
                    run_s=_seconds(run_ms),
                    cpu_s=_seconds(cpu_ms),
                    touched_bytes=None if touched_bytes is None else int(touched_bytes),
                )
            )
    return found


def _counts(*conditions: ColumnElement[bool]) -> ScalarSelect[str]:
    """Returns: The number of runs, of those that failed, their largest peak and three sums in one text.

    The sums are those of the duration, the CPU time and the memory touched; `-` stands for a figure that no run has. A
    subquery has one column. Grouped by actor, 330,000 runs took PostgreSQL twice as long: it starts processes.
    """
    failed = func.count().filter(TaskRun.status.in_(FAILED_STATUSES))
    figures = (func.count(), failed, func.max(TaskRun.peak_rss_bytes), *map(_sum, _SUMMED))
    text: ColumnElement[str] = literal("")
    for figure in figures:
        text = text + " " + func.coalesce(cast(figure, Text), "-")
    return select(text).where(*conditions).scalar_subquery()


def _sum(column: InstrumentedAttribute[Any]) -> ColumnElement[float]:
    """Returns: The sum of a column's finite numbers, which no number of runs makes too large for its type."""
    return func.sum(cast(column, Float)).filter(column < math.inf if isinstance(column.type, Float) else true())


def _seconds(spent_ms: float | None) -> float | None:
    return None if spent_ms is None else round(spent_ms / 1000, 6)


def _durations(names: CTE, since: datetime | None = None) -> ScalarSelect[str]:
    """Returns: The duration and the queue wait of each of an actor's latest ended runs, as `1.5/0.2 3.0/-`.

    It is one text, as SQLite has no arrays.
    """
    latest = (
        select(TaskRun.duration_ms, TaskRun.queue_wait_ms)
        .where(TaskRun.actor_name == names.c.actor_name, TaskRun.duration_ms < math.inf)  # A running run has none.
        .order_by(TaskRun.started_at.desc(), TaskRun.run_id.desc())
        .limit(LATEST_RUNS)
        .correlate(names)
    )
    if since is not None:
        latest = latest.where(TaskRun.started_at >= since)
    found = latest.subquery()
    pair = cast(found.c.duration_ms, Text) + "/" + func.coalesce(cast(found.c.queue_wait_ms, Text), "-")
    return select(func.aggregate_strings(pair, " ")).correlate(names).scalar_subquery()


def _summary(row: Any, run_count: int, failed_count: int, max_peak_rss_bytes: int | None) -> ActorSummary:
    durations_ms, queue_waits_ms = _read(row.durations_ms)
    return ActorSummary(
        actor_name=row.actor_name,
        run_count=run_count,
        failed_count=failed_count,
        last_started_at=row.last_started_at,
        median_duration_ms=statistics.median(durations_ms) if durations_ms else None,
        p95_duration_ms=p95(durations_ms),
        max_peak_rss_bytes=max_peak_rss_bytes,
        queue_wait_ms=statistics.median(queue_waits_ms) if queue_waits_ms else None,
    )


def _read(text: str | None) -> tuple[list[float], list[float]]:
    """Returns: The durations in the text that `_durations` makes, the shortest first, and the queue waits."""
    figures = (text or "").replace("/", " ").split()
    queue_waits_ms = [float(wait) for wait in figures[1::2] if wait != "-"]
    return sorted(map(float, figures[::2])), list(filter(math.isfinite, queue_waits_ms))


def p95(durations_ms: list[float]) -> float | None:
    """Returns: The duration that 95 % of these took at most, which are sorted; None for none."""
    return durations_ms[math.ceil(len(durations_ms) * 0.95) - 1] if durations_ms else None
