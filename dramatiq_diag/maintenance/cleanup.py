"""Ends the life of what is stored: each step in small batches, repeatable, counted."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, or_, select, tuple_, update

from ..runtime.loggers import get_logger
from ..spool.directory import Spool
from ..statuses import ArtifactStatus, RunStatus
from ..store.captures import delete_captures
from ..store.models import Artifact, TaskRun, checked_per_row, is_live
from ..store.store import Store
from ..store.vacuum import give_back
from ..store.worker_actors import delete_worker_actors
from .orphans import BATCH_SIZE, batched, delete_orphans, orphaned

#: Artifacts that expire in one transaction, during which other writers wait. With 500 a million took 107 s in SQLite
#: and 134 s in PostgreSQL, and another writer waited 107 ms and 152 ms at most. A transaction of 300 takes about three
#: fifths of the time: computed from that, a writer waits below 100 ms, and a million takes about 140 s and 155 s. With
#: 200 a million would take more than 180 s, as the pause after each batch has a lower bound.
EXPIRY_BATCH_SIZE = 300

#: Rows whose ids are read at a time. One search for what is old serves many batches, as without statistics PostgreSQL
#: reads and sorts all that is old for each.
_CHUNK_SIZE = 10_000

#: The longest interval, in seconds, between the looks of a waiting SQLite writer in the first 0.1 s of its wait.
_LOOK_INTERVAL_S = 0.025

#: Captures deleted in one transaction.
_CAPTURE_BATCH_SIZE = 100

#: A run that seems to be running is kept this long at least, in seconds; its worker's disk may be gone for good.
_RUNNING_KEPT_S = 30 * 86400.0

#: An actor that workers had is known this long at least, in seconds: they name theirs about once an hour.
_ACTORS_KEPT_S = 86400.0


@dataclass(kw_only=True)
class Counts:
    """The counts of a cleanup; of a dry run, the counts that a cleanup would have."""

    expired_artifacts: int = 0
    removed_blobs: int = 0
    freed_bytes: int = 0
    removed_runs: int = 0
    removed_spool_entries: int = 0

    @property
    def total(self) -> int:
        """The sum of all steps so far, for showing progress."""
        return self.expired_artifacts + self.removed_blobs + self.removed_runs + self.removed_spool_entries


class Cleanup:
    """One cleanup of a store.

    Parameters:
      store: The store.
      dry_run: Whether to count only.
      on_batch: Called with the counts after each batch.
      batch_size: Rows or files handled at a time.
      expiry_batch_size: Artifacts that expire in one transaction.
    """

    def __init__(
        self,
        store: Store,
        *,
        dry_run: bool = False,
        on_batch: Callable[[Counts], None] | None = None,
        batch_size: int = BATCH_SIZE,
        expiry_batch_size: int = EXPIRY_BATCH_SIZE,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.store = store
        self.dry_run = dry_run
        self.on_batch = on_batch
        self._batch_size = batch_size
        self._expiry_batch_size = expiry_batch_size
        self.counts = Counts()
        self.now = datetime.min.replace(tzinfo=UTC)
        "When it began, by the database's clock."
        self.protection_s = store.settings.orphan_protection_time

    def run(self) -> Counts:
        """Expires artifacts, removes orphaned blobs, old runs and abandoned spool entries.

        Returns:
          The counts.

        Raises:
          StoreMismatchError: When blob root and database are not of one store; nothing was changed.
          StoreError: When the store cannot be used; what was done until then is done.
        """
        self.store.open()
        self.store.check_identity()
        self.now = self.store.now()
        self._expire()
        self._remove_orphaned_blobs()
        self._remove_runs()
        self._remove_captures()
        self._remove_worker_actors()
        self._remove_spool_entries()
        if not self.dry_run:
            give_back(self.store.engine)
        self.logger.info("Cleanup%s: %s", " (dry run)" if self.dry_run else "", self.counts)
        return self.counts

    def _expire(self) -> None:
        if self.dry_run:
            total = select(func.count(), func.coalesce(func.sum(Artifact.size_bytes), 0)).where(*self._due())
            with self.store.session() as session:
                count, size = session.execute(total).one()
            self._count(expired_artifacts=count, removed_blobs=count, freed_bytes=int(size or 0))
            return
        reason = f"Removed by the cleanup at {self.now:%Y-%m-%d %H:%M:%S} UTC, after its protection time."
        query = select(Artifact.expires_at, Artifact.artifact_id).where(*self._due()).order_by(Artifact.expires_at)
        # PostgreSQL keeps the index entries of expired rows until a vacuum; the next chunk begins after them.
        for ids in self._batches(query, self._expiry_batch_size, lambda last: Artifact.expires_at >= last[0]):
            self._expire_batch(ids, reason)

    def _expire_batch(self, artifact_ids: Sequence[uuid.UUID], reason: str) -> None:
        expire = (
            update(Artifact)
            # With the conditions once more: a run may just have been pinned.
            .where(Artifact.artifact_id.in_(artifact_ids), checked_per_row(*self._due()))
            .values(status=ArtifactStatus.EXPIRED, reason=reason)
            .returning(Artifact.blob_name)
            .execution_options(synchronize_session=False)
        )
        started_s = time.perf_counter()
        with self.store.session() as session:
            names = [name for (name,) in session.execute(expire) if name is not None]
        committed_s = time.perf_counter()
        freed = self.store.blobs.delete(names)  # After the commit: a row never points at what is gone.
        self._count(expired_artifacts=len(names), removed_blobs=len(names), freed_bytes=freed)
        _let_others_write(started_s, committed_s)

    def _due(self) -> tuple[ColumnElement[bool], ...]:
        return is_live(Artifact.status), Artifact.expires_at <= self.now

    def _remove_orphaned_blobs(self) -> None:
        before = self.now.timestamp() - self.protection_s
        old = (found for found in self.store.blobs.scan() if found.modified_at < before)
        for batch in batched(old, self._batch_size):
            with self.store.session() as session:
                orphans = orphaned(session, batch)
            if not orphans:
                continue
            if self.dry_run:
                freed = sum(found.size_bytes for found in orphans)
            else:
                orphans, freed = delete_orphans(self.store, orphans)
            self._count(removed_blobs=len(orphans), freed_bytes=freed)
        if not self.dry_run:
            self.store.blobs.remove_empty_days()

    def _remove_runs(self) -> None:
        old = self._old_runs()
        if self.dry_run:
            with self.store.session() as session:
                self._count(removed_runs=session.execute(select(func.count(TaskRun.run_id)).where(*old)).scalar_one())
            return
        order = TaskRun.started_at, TaskRun.run_id
        query = select(*order).where(*old).order_by(*order)
        # Each chunk begins after the one before, so that no run that stays is looked at twice.
        for ids in self._batches(query, self._batch_size, lambda last: tuple_(*order) > tuple_(*last)):
            self._remove_batch(ids, old)

    def _remove_batch(self, run_ids: Sequence[uuid.UUID], old: Sequence[ColumnElement[bool]]) -> None:
        remove = delete(TaskRun).where(TaskRun.run_id.in_(run_ids), checked_per_row(*old))
        started_s = time.perf_counter()
        with self.store.session() as session:
            removed = session.execute(remove.execution_options(synchronize_session=False))
        committed_s = time.perf_counter()
        self._count(removed_runs=removed.rowcount)  # type: ignore[attr-defined]
        _let_others_write(started_s, committed_s)

    def _batches(
        self, query: Select[Any, Any], size: int, after: Callable[[Row[Any, Any]], ColumnElement[bool]]
    ) -> Iterator[list[uuid.UUID]]:
        """Yields the ids that a query for moments and ids finds. Each chunk begins *after* the last row before."""
        page = query
        while True:
            with self.store.session() as session:
                chunk = session.execute(page.limit(_CHUNK_SIZE)).all()
            if not chunk:
                return
            yield from batched((row_id for _, row_id in chunk), size)
            page = query.where(after(chunk[-1]))

    def _old_runs(self) -> tuple[ColumnElement[bool], ...]:
        """Returns: The conditions of runs whose rows go.

        By the clocks of their hosts they ended long ago. As these may be wrong, what counts as well is when their
        artifacts were published, by the database's clock.
        """
        retention_s = self.store.settings.run_retention
        before = self.now - timedelta(seconds=retention_s)
        started_before = self.now - timedelta(seconds=max(retention_s, _RUNNING_KEPT_S))
        kept = select(Artifact.run_id).where(
            Artifact.run_id == TaskRun.run_id, or_(is_live(Artifact.status), Artifact.published_at > before)
        )
        return (
            or_(
                TaskRun.finished_at < before,
                (TaskRun.status == RunStatus.RUNNING) & (TaskRun.started_at < started_before),
            ),
            TaskRun.started_at < before,
            TaskRun.pinned_at.is_(None),
            ~kept.exists(),
        )

    def _remove_captures(self) -> None:
        if self.dry_run:
            return
        removed = _CAPTURE_BATCH_SIZE
        while removed == _CAPTURE_BATCH_SIZE:
            with self.store.session() as session:
                removed = delete_captures(session, self.store.settings.run_retention, _CAPTURE_BATCH_SIZE)
            self.logger.debug("Removed %d captures", removed)

    def _remove_worker_actors(self) -> None:
        if self.dry_run:
            return
        with self.store.session() as session:
            removed = delete_worker_actors(session, max(self.store.settings.run_retention, _ACTORS_KEPT_S))
        self.logger.debug("Removed %d actors that no worker has any more", removed)

    def _remove_spool_entries(self) -> None:
        # The spool is on this host's own disk, and so are the times of its files of this host's clock.
        before = time.time() - self.protection_s
        for removed in Spool(self.store.settings).remove_abandoned(before, dry_run=self.dry_run):
            self._count(removed_spool_entries=1, freed_bytes=removed)

    def _count(self, **more: int) -> None:
        for name, number in more.items():
            setattr(self.counts, name, getattr(self.counts, name) + number)
        if self.on_batch is not None:
            self.on_batch(self.counts)


def _let_others_write(started_s: float, committed_s: float) -> None:
    """Waits for as long as the batch had the database, and for one look of other writers at least."""
    time.sleep(max(0.0, committed_s + max(committed_s - started_s, _LOOK_INTERVAL_S) - time.perf_counter()))
