"""Predicts what the next cleanup will remove from the database, and for which reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, false, func, not_, or_, select, tuple_
from sqlalchemy.orm import Session

from ..settings import Settings
from ..statuses import RunStatus
from .counters import Series, total
from .given_up import is_given_up, not_executed
from .models import Artifact, TaskRun, checked_per_row, is_live
from .retention import RUN_ORDER, is_due, is_old, may_be_removed, oldest_artifacts, oldest_runs

#: Rows that one statement adds up.
_PAGE_SIZE = 10_000

#: More rows than a database has.
_ALL = 2**62


@dataclass(kw_only=True)
class Removal:
    """What a cleanup removes for one reason."""

    run_count: int = 0
    "Rows of runs."
    artifact_count: int = 0
    size_bytes: int = 0


@dataclass(kw_only=True)
class Forecast:
    """What a cleanup would remove of the database now, each thing for the first reason that applies."""

    by_time: Removal = field(default_factory=Removal)
    by_max_runs: Removal = field(default_factory=Removal)
    by_max_bytes: Removal = field(default_factory=Removal)
    is_complete: bool = True
    "False where more rows go than were looked at. Then all numbers are minima, and the reasons that follow have 0."


def forecast(session: Session, settings: Settings, now: datetime, most: int = _ALL) -> Forecast:
    """Finds out what a cleanup would remove, in its order.

    Parameters:
      session: A transaction.
      settings: The settings, with the bounds.
      now: The time by the database's clock.
      most: How many rows are looked at for each reason.

    Returns:
      The forecast.
    """
    found = Forecast()
    ended_count = _add_due(session, settings, now, found, most)
    last_run: Row[Any] | None = None
    may_go: ColumnElement[bool] = false()
    if settings.max_runs is not None and found.is_complete:
        ends = _is_to_be_given_up(session, now)
        may_go = or_(and_(*may_be_removed()), ends)
        young = ~checked_per_row(*is_old(settings, now, per_row=True, after_expiry=True))
        excess = total(session, Series.STORED_RUNS) - ended_count - settings.max_runs
        excess += _count_ending(session, found, (ends, young), most)
        last_run = _add_oldest_runs(session, (may_go, young), now, found, excess, most)
    if settings.max_bytes is not None and found.is_complete:
        removed_bytes = found.by_time.size_bytes + found.by_max_runs.size_bytes
        excess = total(session, Series.STORED_BYTES) - removed_bytes - settings.max_bytes
        _add_oldest_artifacts(session, now, found, excess, most, last_run, may_go)
    return found


def _is_to_be_given_up(session: Session, now: datetime) -> ColumnElement[bool]:
    """Returns: The condition of the running runs that the cleanup ends first; then they count for the bound of runs."""
    condition = and_(*is_given_up(now))
    unknown = not_executed(session, now)
    return or_(condition, TaskRun.run_id.in_(unknown)) if unknown else condition


def _count_ending(session: Session, found: Forecast, conditions: Sequence[ColumnElement[bool]], most: int) -> int:
    ending = select(TaskRun.run_id).where(TaskRun.status == RunStatus.RUNNING, *conditions).limit(most + 1).subquery()
    count = session.execute(select(func.count()).select_from(ending)).scalar_one()
    found.is_complete = count <= most
    return count


def _add_due(session: Session, settings: Settings, now: datetime, found: Forecast, most: int) -> int:
    """Adds what is past its time. Returns: The number of runs among it that have ended."""
    due = select(Artifact.size_bytes).where(*is_due(now)).order_by(Artifact.expires_at).limit(most + 1).subquery()
    artifacts = session.execute(select(func.count(), func.sum(due.c.size_bytes)).select_from(due)).one()
    old = select(TaskRun.status).where(*is_old(settings, now, after_expiry=True)).limit(most + 1).subquery()
    has_ended = old.c.status != RunStatus.RUNNING
    runs = session.execute(select(func.count(), func.count().filter(has_ended)).select_from(old)).one()
    found.by_time = Removal(run_count=runs[0], artifact_count=artifacts[0], size_bytes=int(artifacts[1] or 0))
    found.is_complete = max(runs[0], artifacts[0]) <= most
    return int(runs[1])


def _add_oldest_runs(
    session: Session,
    conditions: tuple[ColumnElement[bool], ColumnElement[bool]],
    now: datetime,
    found: Forecast,
    excess: int,
    most: int,
) -> Row[Any] | None:
    """Adds the oldest runs beyond the bound, with their artifacts.

    Parameters:
      conditions: Those of the runs that the bound may take, and of the runs that are not past their time.

    Returns:
      The last of the runs.
    """
    may_go, young = conditions
    removal, last = found.by_max_runs, None
    while removal.run_count < excess and found.is_complete:
        page = oldest_runs(last, may_go).where(young)
        page = page.limit(min(_PAGE_SIZE, excess - removal.run_count))
        next_last = _last_within(session, page, excess)
        if next_last is None:
            break
        runs = page.subquery()
        live = select(func.count(), func.sum(Artifact.size_bytes)).join(runs, runs.c.id == Artifact.run_id)
        live = live.where(checked_per_row(is_live(Artifact.status), Artifact.expires_at > now))
        count, size_bytes = session.execute(live).one()
        last = next_last
        removal.run_count += last.number
        removal.artifact_count += count
        removal.size_bytes += int(size_bytes or 0)
        found.is_complete = removal.run_count <= most
    return last


def _add_oldest_artifacts(
    session: Session,
    now: datetime,
    found: Forecast,
    excess: int,
    most: int,
    last_run: Row[Any] | None,
    may_go: ColumnElement[bool],
) -> None:
    """Adds the oldest artifacts beyond the bound, without those of the runs that the bound of runs takes.

    These runs are the ones up to *last_run* that may go. An older run may still run, and have attachments.
    """
    removal, last = found.by_max_bytes, None
    while removal.size_bytes < excess and found.is_complete:
        page = oldest_artifacts(last).where(Artifact.expires_at > now).limit(_PAGE_SIZE)
        if last_run is not None:
            page = page.join(Artifact.run).where(
                or_(tuple_(*RUN_ORDER) > tuple_(last_run.at, last_run.id), not_(may_go))
            )
        last = _last_within(session, page, excess - removal.size_bytes)
        if last is None:
            break
        removal.artifact_count += last.number
        removal.size_bytes += int(last.covered)
        found.is_complete = removal.artifact_count <= most


def _last_within(session: Session, page: Select[Any], excess: int) -> Row[Any] | None:
    """Adds up a page in the database, as `beyond` does with rows.

    Returns:
      The last of the rows that cover an excess together, with their `number` and how much is `covered`; or None.
    """
    rows = page.subquery()
    order = rows.c.at, rows.c.id
    added = select(
        rows.c.at,
        rows.c.id,
        rows.c.amount,
        func.sum(rows.c.amount).over(order_by=order).label("covered"),
        func.row_number().over(order_by=order).label("number"),
    ).subquery()
    within: Select[Any] = select(added.c.at, added.c.id, added.c.covered, added.c.number)
    within = within.where(added.c.covered - added.c.amount < excess).order_by(added.c.number.desc()).limit(1)
    return session.execute(within).first()
