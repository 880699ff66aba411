"""Keeps counters of runs, artifacts and stored bytes; transactions add to them, so that nobody has to count rows."""

from __future__ import annotations

import math
import uuid
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from ..statuses import FAILED_STATUSES
from ..text import MIB
from .columns import NAME_LENGTH
from .database import dialect_of, upserting_insert
from .models import Counter
from .records import RunRecord
from .values import clean_text


class Series(StrEnum):
    """The meaning of a counter; the label of its row divides it further."""

    RUNS = "runs"
    "Runs that ended, by status. This series and the next four only grow."
    RUN_SECONDS = "run_seconds"
    "Durations, by bucket."
    RUN_QUEUE_SECONDS = "run_queue_seconds"
    "Times in the queue, by bucket."
    RUN_PEAK_RSS_BYTES = "run_peak_rss_bytes"
    "Peaks of the RSS, by bucket."
    ARTIFACTS = "artifacts"
    "Artifacts that came to a status, by status."
    STORED_RUNS = "stored_runs"
    "Rows of runs that have ended; no label. This series and the next three fall when rows are removed."
    STORED_FAILED_RUNS = "stored_failed_runs"
    "Those of them that failed or were interrupted; no label."
    STORED_ARTIFACTS = "stored_artifacts"
    "Artifacts with a blob, by name."
    STORED_BYTES = "stored_bytes"
    "The bytes of those blobs, by name."
    RECOUNTS = "recounts"
    "How often the counters of what is stored were mended; no actor and no label."


#: The upper bounds of the buckets of each histogram, inclusive, without the infinite one. Other bounds are other rows.
BUCKETS: Mapping[Series, Sequence[float]] = {
    Series.RUN_SECONDS: (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
    Series.RUN_QUEUE_SECONDS: (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0),
    Series.RUN_PEAK_RSS_BYTES: tuple(float(size * MIB) for size in (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)),
}

#: The label of the row that has the sum of a histogram's values.
SUM = "sum"

#: The most names of actors and queues whose clean form is cached: each run adds to eleven counters or more.
_MAX_NAMES = 1024

Key = tuple[str, str, Series, str]
"Actor, queue, series and label: the primary key, in the order in which rows are locked."


@dataclass(frozen=True, kw_only=True)
class Exemplar:
    """A run that stands for all runs of its bucket."""

    run_id: uuid.UUID
    trace_id: str | None
    value: float
    at: datetime | None
    "When it ended, by the clock of its host."


@dataclass(kw_only=True)
class Changes:
    """What a transaction adds to counters."""

    amounts: dict[Key, float] = field(default_factory=dict)
    exemplars: dict[Key, Exemplar] = field(default_factory=dict)

    def add(self, actor_name: str, queue_name: str, series: Series, label: str, amount: float = 1.0) -> Key:
        """Adds to a counter. Returns: Its key."""
        key = _clean_name(actor_name), _clean_name(queue_name), series, label
        self.amounts[key] = self.amounts.get(key, 0.0) + amount
        return key

    def observe(self, run: RunRecord, series: Series, value: float | None) -> None:
        """Adds a value to a histogram; None is not counted."""
        if value is None or not math.isfinite(value):
            return
        key = self.add(run.actor_name, run.queue_name, series, bucket_label(series, value))
        self.add(run.actor_name, run.queue_name, series, SUM, value)
        self.exemplars[key] = Exemplar(run_id=run.run_id, trace_id=run.trace_id, value=value, at=run.finished_at)

    def add_stored(self, actor_name: str, status: str, count: int = 1) -> None:
        """Adds the row of a run that has ended. With -1 as count it is subtracted."""
        self.add(actor_name, "", Series.STORED_RUNS, "", count)
        if status in FAILED_STATUSES:
            self.add(actor_name, "", Series.STORED_FAILED_RUNS, "", count)

    def add_blobs(self, actor_name: str, artifact_name: str, count: int, size_bytes: int) -> None:
        """Adds artifacts that have a blob, and the bytes of these; both are negative where they are subtracted."""
        self.add(actor_name, "", Series.STORED_ARTIFACTS, artifact_name, count)
        self.add(actor_name, "", Series.STORED_BYTES, artifact_name, size_bytes)

    def write(self, session: Session) -> None:
        """Writes them to the rows, as the last statement of a transaction: other writers wait for these rows.

        All writers lock the rows in the same order, so none can deadlock.
        """
        rows = [self._row(key, amount) for key, amount in sorted(self.amounts.items()) if amount]
        if rows:
            session.connection().execute(_upsert(dialect_of(session)), rows)

    def _row(self, key: Key, amount: float) -> dict[str, Any]:
        exemplar = self.exemplars.get(key)
        return {
            **dict(zip(_KEY_COLUMNS, map(str, key), strict=True)),
            "value": amount,
            **{column: getattr(exemplar, name, None) for column, name in _EXEMPLAR_COLUMNS.items()},
        }


@lru_cache(_MAX_NAMES)
def _clean_name(name: str) -> str:
    return clean_text(name, NAME_LENGTH)


_EXEMPLAR_COLUMNS = {f"exemplar_{field.name}": field.name for field in fields(Exemplar)}
_KEY_COLUMNS = ("actor_name", "queue_name", "series", "label")


@cache
def _upsert(dialect: str) -> Any:
    """Builds the statement that adds to counters, once: that takes SQLAlchemy longer than the database takes for it."""
    row = upserting_insert(dialect, Counter)
    has_exemplar = row.excluded.exemplar_run_id.is_not(None)
    table = Counter.__table__.c
    kept = {name: case((has_exemplar, row.excluded[name]), else_=table[name]) for name in _EXEMPLAR_COLUMNS}
    return row.on_conflict_do_update(
        index_elements=_KEY_COLUMNS,
        set_={"value": Counter.value + row.excluded.value, **kept},
    )


def bucket_label(series: Series, value: float) -> str:
    """Returns: The label of the bucket that a value falls into."""
    bounds = BUCKETS[series]
    place = bisect_left(bounds, value)
    return "+Inf" if place == len(bounds) else str(bounds[place])


def stored_runs(session: Session) -> dict[str, tuple[int, int]]:
    """Returns: Actor -> the rows of its runs that have ended, and how many of them failed or were interrupted."""
    series = Series.STORED_RUNS, Series.STORED_FAILED_RUNS
    query = select(Counter.actor_name, Counter.series, Counter.value).where(Counter.series.in_(series))
    values = {(actor_name, name): round(value) for actor_name, name, value in session.execute(query)}
    return {name: (values.get((name, series[0]), 0), values.get((name, series[1]), 0)) for name, _ in values}


def read_stored(session: Session) -> dict[Key, int]:
    """Returns: The counters of what is stored."""
    series = Series.STORED_RUNS, Series.STORED_FAILED_RUNS, Series.STORED_ARTIFACTS, Series.STORED_BYTES
    query = select(Counter.actor_name, Counter.queue_name, Counter.series, Counter.label, Counter.value)
    found = session.execute(query.where(Counter.series.in_(series)))
    return {(actor, queue, Series(name), label): round(value) for actor, queue, name, label, value in found}


def claim_recount(session: Session, number: int) -> bool:
    """Claims the mending of counters, so that two processes that found the same difference do not both add it.

    Parameters:
      session: The transaction that mends them.
      number: How often they had been mended when they were compared with the rows.

    Returns:
      False where they were mended since.
    """
    row = upserting_insert(dialect_of(session), Counter)
    claim = row.values(actor_name="", queue_name="", series=Series.RECOUNTS, label="", value=1.0).on_conflict_do_update(
        index_elements=_KEY_COLUMNS, set_={"value": Counter.value + 1}, where=Counter.value == number
    )
    return session.execute(claim.returning(Counter.value)).first() is not None


def total(session: Session, series: Series) -> int:
    """Returns: The sum of all counters of a series."""
    return round(session.execute(total_of(series)).scalar_one())


def total_of(series: Series) -> Select[float]:
    """Returns: The query of the sum of all counters of a series."""
    return select(func.coalesce(func.sum(Counter.value), 0)).where(Counter.series == series)


def read_counters(session: Session) -> Sequence[Any]:
    """Returns: All rows, by series, actor, queue and label."""
    order = Counter.series, Counter.actor_name, Counter.queue_name, Counter.label
    return session.execute(select(Counter.__table__).order_by(*order)).all()
