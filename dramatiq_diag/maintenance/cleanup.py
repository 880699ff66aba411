"""What ends the life of what is stored: each step in small batches, repeatable, counted."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar, TypeVarTuple

from sqlalchemy import ColumnElement, Row, Select, delete, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from ..runtime.loggers import get_logger
from ..spool.directory import Spool
from ..statuses import ArtifactStatus, RunStatus
from ..store.blobs.base import Found
from ..store.captures import delete_captures
from ..store.models import Artifact, TaskRun, checked_per_row, is_live
from ..store.store import Store
from ..store.vacuum import give_back
from ..store.worker_actors import delete_worker_actors

#: Rows or files handled at a time: small enough that no other writer waits for long.
BATCH_SIZE = 200

#: Artifacts that expire in one transaction: while their files are unlinked, other writers have the database.
EXPIRY_BATCH_SIZE = 500

#: Rows whose ids are read at a time. One search for what is old serves many batches, as without statistics PostgreSQL
#: reads and sorts all that is old for each.
_CHUNK_SIZE = 10_000

#: SQLite's writers look whether the database is free at intervals; in the first 0.1 s of their wait these are no longer
#: than so many seconds.
_LOOK_INTERVAL_S = 0.025

#: Captures handled at a time, as each may have a thousand permits.
_CAPTURE_BATCH_SIZE = 10

#: A run that seems to be running is kept this long at least, in seconds; its worker's disk may be gone for good.
_RUNNING_KEPT_S = 30 * 86400.0

#: An actor that workers had is known this long at least, in seconds: they name theirs about once an hour.
_ACTORS_KEPT_S = 86400.0

_T = TypeVar("_T")
_Columns = TypeVarTuple("_Columns")


@dataclass(kw_only=True)
class Counts:
    """What a cleanup did, or with a dry run would do."""

    expired_artifacts: int = 0
    removed_blobs: int = 0
    freed_bytes: int = 0
    removed_runs: int = 0
    removed_spool_entries: int = 0

    @property
    def total(self) -> int:
        """All things done so far, for showing progress."""
        return self.expired_artifacts + self.removed_blobs + self.removed_runs + self.removed_spool_entries


class Cleanup:
    """One cleanup of a store.

    Parameters:
      store: The store.
      dry_run: Whether to count only.
      on_batch: Called with the counts after each batch.
    """

    def __init__(
        self, store: Store, *, dry_run: bool = False, on_batch: Callable[[Counts], None] | None = None
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.store = store
        self.dry_run = dry_run
        self.on_batch = on_batch
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
        chunk = self._read(query)
        while chunk:
            for batch in batched(chunk, EXPIRY_BATCH_SIZE):
                self._expire_batch([artifact_id for _, artifact_id in batch], reason)
            # PostgreSQL keeps the index entries of expired rows until a vacuum; the next chunk begins after them.
            chunk = self._read(query.where(Artifact.expires_at >= chunk[-1][0]))

    def _expire_batch(self, artifact_ids: Sequence[uuid.UUID], reason: str) -> None:
        expire = (
            update(Artifact)
            # The conditions are asked again: a run may just have been pinned.
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
        for batch in batched(old, BATCH_SIZE):
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
        chunk = self._read(query)
        while chunk:  # Each chunk begins after the one before, so that no run that stays is looked at twice.
            for batch in batched(chunk, BATCH_SIZE):
                self._remove_batch([run_id for _, run_id in batch], old)
            chunk = self._read(query.where(tuple_(*order) > tuple_(*chunk[-1])))

    def _remove_batch(self, run_ids: Sequence[uuid.UUID], old: Sequence[ColumnElement[bool]]) -> None:
        remove = delete(TaskRun).where(TaskRun.run_id.in_(run_ids), checked_per_row(*old))
        started_s = time.perf_counter()
        with self.store.session() as session:
            removed = session.execute(remove.execution_options(synchronize_session=False))
        committed_s = time.perf_counter()
        self._count(removed_runs=removed.rowcount)  # type: ignore[attr-defined]
        _let_others_write(started_s, committed_s)

    def _read(self, query: Select[*_Columns]) -> Sequence[Row[*_Columns]]:
        with self.store.session() as session:
            return session.execute(query.limit(_CHUNK_SIZE)).all()

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
    """Waits until other writers have had the database for as long as the batch had it, and for one look at least."""
    time.sleep(max(0.0, committed_s + max(committed_s - started_s, _LOOK_INTERVAL_S) - time.perf_counter()))


def orphaned(session: Session, batch: Sequence[Found]) -> list[Found]:
    """Returns: Those files that no live artifact's row speaks for."""
    query = select(Artifact.blob_name).where(
        Artifact.artifact_id.in_({found.artifact_id for found in batch}), checked_per_row(is_live(Artifact.status))
    )
    live = set(session.execute(query).scalars())
    return [found for found in batch if not (found.blob_of in live and (found.is_blob or found.is_rendered))]


def delete_orphans(store: Store, orphans: Sequence[Found]) -> tuple[list[Found], int]:
    """Unlinks orphans while nothing can be published, so that a blob whose row was on its way is put again.

    Returns:
      The files that were still orphans, and the bytes freed.
    """
    with store.exclusive() as session:
        certain = orphaned(session, orphans)
        return certain, store.blobs.delete_found(certain)


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields lists of up to *size* items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
