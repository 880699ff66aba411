"""Counts runs, artifacts and stored bytes in the transactions that change them, so that nobody has to count rows."""

from __future__ import annotations

import math
import uuid
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from ..statuses import DOWNLOADABLE_STATUSES, FAILED_STATUSES, ArtifactStatus, RunStatus
from ..text import MIB
from .columns import NAME_LENGTH
from .database import dialect_of, upserting_insert
from .models import Artifact, Counter, TaskRun, checked_per_row, is_live
from .records import FinishedRun, RunRecord
from .values import clean_text


class Series(StrEnum):
    """The meaning of a counter; the label of its row divides it further."""

    RUNS = "runs"
    "Runs that ended, by status. Like all that follow up to the artifacts it only grows."
    RUN_SECONDS = "run_seconds"
    "Durations, by bucket."
    RUN_QUEUE_SECONDS = "run_queue_seconds"
    "Times in the queue, by bucket."
    RUN_PEAK_RSS_BYTES = "run_peak_rss_bytes"
    "Peaks of the RSS, by bucket."
    ARTIFACTS = "artifacts"
    "Artifacts that came to a status, by status."
    STORED_RUNS = "stored_runs"
    "Rows of runs that have ended; no label. It falls when rows are removed, as all that follow do."
    STORED_FAILED_RUNS = "stored_failed_runs"
    "Those of them that failed or were interrupted; no label."
    STORED_ARTIFACTS = "stored_artifacts"
    "Artifacts with a blob, by name."
    STORED_BYTES = "stored_bytes"
    "The bytes of those blobs, by name."
    RECOUNTS = "recounts"
    "How often the counters of what is stored were mended; no actor and no label."


#: The upper bounds of the buckets of each histogram, inclusive, without the infinite one.
#: A change begins new rows.
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

    def add_resized(
        self,
        runs: Iterable[FinishedRun],
        rows: Mapping[uuid.UUID, Mapping[str, Any]],
        before: Mapping[uuid.UUID, int],
        after: Mapping[uuid.UUID, int],
    ) -> None:
        """Adds the difference that publishing once more makes: an entry may have grown meanwhile.

        Parameters:
          runs: The runs.
          rows: Artifact id -> the row that was written.
          before, after: The sizes of the blobs before and after that; see `live_sizes`.
        """
        actor_names = {finished.run.run_id: finished.run.actor_name for finished in runs}
        for artifact_id, size_bytes in after.items():
            row = rows[artifact_id]
            count = 0 if artifact_id in before else 1
            self.add_blobs(actor_names[row["run_id"]], row["name"], count, size_bytes - before.get(artifact_id, 0))

    def add_attached(self, runs: Iterable[FinishedRun], rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the new artifacts of attachments by their status; their blobs are added by `add_resized`."""
        names = {finished.run.run_id: (finished.run.actor_name, finished.run.queue_name) for finished in runs}
        for row in rows:
            self.add(*names[row["run_id"]], Series.ARTIFACTS, row["status"])

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
            "exemplar_run_id": None if exemplar is None else exemplar.run_id,
            "exemplar_trace_id": None if exemplar is None else exemplar.trace_id,
            "exemplar_value": None if exemplar is None else exemplar.value,
            "exemplar_at": None if exemplar is None else exemplar.at,
        }


@lru_cache(_MAX_NAMES)
def _clean_name(name: str) -> str:
    return clean_text(name, NAME_LENGTH)


_KEY_COLUMNS = ("actor_name", "queue_name", "series", "label")


@cache
def _upsert(dialect: str) -> Any:
    """Builds the statement that adds to counters, once: that takes SQLAlchemy longer than the database takes for it."""
    row = upserting_insert(dialect, Counter)
    has_exemplar = row.excluded.exemplar_run_id.is_not(None)
    columns = ("exemplar_run_id", "exemplar_trace_id", "exemplar_value", "exemplar_at")
    kept = {name: case((has_exemplar, row.excluded[name]), else_=Counter.__table__.c[name]) for name in columns}
    return row.on_conflict_do_update(
        index_elements=[Counter.actor_name, Counter.queue_name, Counter.series, Counter.label],
        set_={"value": Counter.value + row.excluded.value, **kept},
    )


def bucket_label(series: Series, value: float) -> str:
    """Returns: The label of the bucket that a value falls into."""
    bounds = BUCKETS[series]
    place = bisect_left(bounds, value)
    return "+Inf" if place == len(bounds) else str(bounds[place])


def count_published(
    ended: Collection[uuid.UUID],
    given_up: Collection[uuid.UUID],
    runs: Iterable[FinishedRun],
    rows: Iterable[Mapping[str, Any]],
) -> Changes:
    """Counts runs that a transaction brought to their end. Returns: The changes, to be written by the transaction.

    Parameters:
      ended: The ids of the runs that had not ended before: published twice, a run counts once.
      given_up: Those of them that `count_given_up` counted before.
      runs: The runs.
      rows: The rows of the artifacts of these and of other runs; those of attachments are not counted.
    """
    changes = Changes()
    own = (finished.run for finished in runs if finished.attachment_id is None)
    records = {run.run_id: run for run in own if run.run_id in ended}
    for run in records.values():
        if run.run_id in given_up:
            changes.add_stored(run.actor_name, RunStatus.INTERRUPTED, -1)
        else:
            changes.add(run.actor_name, run.queue_name, Series.RUNS, run.status)
        changes.add_stored(run.actor_name, run.status)
        duration_s = None if run.duration_ms is None else run.duration_ms / 1000
        queue_s = None if run.queue_wait_ms is None else run.queue_wait_ms / 1000
        changes.observe(run, Series.RUN_SECONDS, duration_s)
        changes.observe(run, Series.RUN_QUEUE_SECONDS, queue_s)
        changes.observe(run, Series.RUN_PEAK_RSS_BYTES, run.peak_rss_bytes)
    for row in rows:
        if row["run_id"] in records and row["attachment_id"] is None:
            run = records[row["run_id"]]
            changes.add(run.actor_name, run.queue_name, Series.ARTIFACTS, row["status"])
            if row["status"] in DOWNLOADABLE_STATUSES:
                changes.add_blobs(run.actor_name, row["name"], 1, row["size_bytes"] or 0)
    return changes


def count_given_up(session: Session, runs: Iterable[tuple[str, str]]) -> None:
    """Counts runs of which only the cleanup says that they ended, as the last statement of a transaction.

    Parameters:
      session: The transaction, which has changed their rows.
      runs: The actor and the queue of each.
    """
    changes = Changes()
    for actor_name, queue_name in runs:
        changes.add(actor_name, queue_name, Series.RUNS, RunStatus.INTERRUPTED)
        changes.add_stored(actor_name, RunStatus.INTERRUPTED)
    changes.write(session)


def live_sizes(session: Session, artifact_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int]:
    """Locks artifacts. Returns: The size in bytes of each one that has a blob."""
    if not artifact_ids:
        return {}
    query = select(Artifact.artifact_id, Artifact.size_bytes)
    query = query.where(Artifact.artifact_id.in_(artifact_ids), checked_per_row(is_live(Artifact.status)))
    found = session.execute(query.order_by(Artifact.artifact_id).with_for_update())
    return {artifact_id: size_bytes or 0 for artifact_id, size_bytes in found}


def count_removed(session: Session, artifact_ids: Collection[uuid.UUID], status: ArtifactStatus) -> None:
    """Counts artifacts that lost their blobs, as the last statement of a transaction.

    Parameters:
      session: The transaction, which has changed the rows.
      artifact_ids: Their ids.
      status: The status that they have now.
    """
    if not artifact_ids:
        return
    names = TaskRun.actor_name, TaskRun.queue_name, Artifact.name
    query = select(*names, func.count(), func.sum(Artifact.size_bytes))
    query = query.join(TaskRun, TaskRun.run_id == Artifact.run_id).where(Artifact.artifact_id.in_(artifact_ids))
    changes = Changes()
    for actor_name, queue_name, name, count, size_bytes in session.execute(query.group_by(*names)):
        changes.add(actor_name, queue_name, Series.ARTIFACTS, status, count)
        changes.add_blobs(actor_name, name, -count, -int(size_bytes or 0))
    changes.write(session)


def count_removed_runs(session: Session, removed: Iterable[tuple[str, str]]) -> None:
    """Counts rows of ended runs that were removed, as the last statement of a transaction.

    Parameters:
      session: The transaction, which has removed the rows.
      removed: The actor and the status of each.
    """
    changes = Changes()
    for actor_name, status in removed:
        changes.add_stored(actor_name, status, -1)
    changes.write(session)


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
        index_elements=list(_KEY_COLUMNS), set_={"value": Counter.value + 1}, where=Counter.value == number
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
    columns = *order, Counter.value, Counter.exemplar_run_id, Counter.exemplar_trace_id, Counter.exemplar_value
    return session.execute(select(*columns, Counter.exemplar_at).order_by(*order)).all()
