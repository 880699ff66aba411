"""Says what a cleanup removes: what is past its time, and the oldest beyond a bound."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, literal, or_, select, tuple_

from ..settings import Settings
from ..statuses import RunStatus
from .counters import Series, total_of
from .models import Artifact, TaskRun, checked_per_row, is_live

#: A run whose end is not known is kept this long at least, in seconds; its worker's disk may be gone for good.
_WITHOUT_END_KEPT_S = 30 * 86400.0

_Order = tuple[Any, Any]
#: The order in which artifacts go, the first to expire first, and that of runs. An index serves each.
_ARTIFACT_ORDER: _Order = (Artifact.expires_at, Artifact.artifact_id)
RUN_ORDER: _Order = (TaskRun.started_at, TaskRun.run_id)


def is_due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of artifacts that are past their protection time."""
    return is_live(Artifact.status), Artifact.expires_at <= now


def may_expire() -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of artifacts that a bound may take. Those of pinned runs have no expiry."""
    return is_live(Artifact.status), Artifact.expires_at.is_not(None)


def may_be_removed() -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of runs that a bound may take, once their artifacts have expired."""
    return TaskRun.status != RunStatus.RUNNING, TaskRun.pinned_at.is_(None)


def has_live_artifact() -> ColumnElement[bool]:
    """Returns: Whether a run has an artifact with a blob."""
    live = select(Artifact.run_id).where(Artifact.run_id == TaskRun.run_id, checked_per_row(is_live(Artifact.status)))
    return live.offset(0).exists()  # See `is_old`.


def is_old(
    settings: Settings, now: datetime, *, per_row: bool = False, after_expiry: bool = False
) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of runs that are past their retention.

    They ended long ago by the clocks of their hosts, which may be wrong. So their artifacts must also have been
    published long ago, by the database's clock.

    Parameters:
      settings: The settings, with the retention.
      now: The time by the database's clock.
      per_row: Whether the artifacts of each run are looked up; else PostgreSQL may read all artifacts for it at once.
      after_expiry: Whether the artifacts that are due count as expired, as they are when a cleanup comes to the runs.
    """
    before = now - timedelta(seconds=settings.run_retention)
    started_before = now - timedelta(seconds=max(settings.run_retention, _WITHOUT_END_KEPT_S))
    has_blob = is_live(Artifact.status)
    if after_expiry:
        has_blob &= or_(Artifact.expires_at.is_(None), Artifact.expires_at > now)
    kept = select(Artifact.run_id).where(
        Artifact.run_id == TaskRun.run_id, or_(has_blob, Artifact.published_at > before)
    )
    if per_row:
        kept = kept.offset(0)  # PostgreSQL makes no hash table of a subquery with an offset.
    return (
        or_(
            TaskRun.finished_at < before,
            TaskRun.finished_at.is_(None) & (TaskRun.started_at < started_before),
        ),
        TaskRun.started_at < before,
        TaskRun.pinned_at.is_(None),
        ~kept.exists(),
    )


def oldest_artifacts(after: Row[Any] | None) -> Select[Any]:
    """Returns: The query of the artifacts that a bound may take, in the order in which they go.

    Its rows have `at` and `id`, the `amount` that goes with one, and the `total`. They come from one statement, so the
    total is the one of just these rows, also while another cleanup removes some of them.

    Parameters:
      after: The row after which it begins.
    """
    amount = func.coalesce(Artifact.size_bytes, 0)
    return _oldest(_ARTIFACT_ORDER, amount, Series.STORED_BYTES, after).where(*may_expire())


def oldest_runs(after: Row[Any] | None, may_go: ColumnElement[bool] | None = None) -> Select[Any]:
    """Returns: The query of the runs that a bound may take, or that meet another condition; see `oldest_artifacts`."""
    query = _oldest(RUN_ORDER, literal(1), Series.STORED_RUNS, after)
    return query.where(*may_be_removed()) if may_go is None else query.where(may_go)


def _oldest(order: _Order, amount: ColumnElement[Any], series: Series, after: Row[Any] | None) -> Select[Any]:
    at, key = order
    stored = total_of(series).scalar_subquery()
    query = select(at.label("at"), key.label("id"), amount.label("amount"), stored.label("total")).order_by(*order)
    if after is None:
        return query
    # The first condition follows from the second; an index of the moments alone serves only the first.
    return query.where(at >= after.at, tuple_(*order) > tuple_(after.at, after.id))


def beyond(rows: Sequence[Row[Any]], excess: float) -> Sequence[Row[Any]]:
    """Returns: The first of the rows whose amounts cover an excess together; all, where that is not enough."""
    covered = 0.0
    for number, row in enumerate(rows):
        if covered >= excess:
            return rows[:number]
        covered += row.amount
    return rows
