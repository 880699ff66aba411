"""What ends the life of what is stored: each step in small batches, repeatable, counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TypeVar

from dramatiq.logging import get_logger
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.orm import Session

from .blobs import Found
from .captures import delete_captures
from .models import LIVE_STATUSES, Artifact, ArtifactStatus, RunStatus, TaskRun
from .spool import Spool
from .store import Store
from .worker_actors import delete_worker_actors

#: Rows or files handled at a time: small enough that no other writer waits for long.
BATCH_SIZE = 200

#: Captures handled at a time, as each may have a thousand permits.
_CAPTURE_BATCH_SIZE = 10

#: A run that seems to be running is kept this long at least, in seconds; its worker's disk may be gone for good.
_RUNNING_KEPT_S = 30 * 86400.0

#: An actor that workers had is known this long at least, in seconds: they name theirs about once an hour.
_ACTORS_KEPT_S = 86400.0

_T = TypeVar("_T")


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
        self._expire()
        self._remove_orphaned_blobs()
        self._remove_runs()
        self._remove_captures()
        self._remove_worker_actors()
        self._remove_spool_entries()
        self.logger.info("Cleanup%s: %s", " (dry run)" if self.dry_run else "", self.counts)
        return self.counts

    def _expire(self) -> None:
        now = datetime.now(UTC)
        due = (Artifact.status.in_(LIVE_STATUSES), Artifact.expires_at <= now)
        if self.dry_run:
            with self.store.session() as session:
                count, size = session.execute(
                    select(func.count(), func.coalesce(func.sum(Artifact.size_bytes), 0)).where(*due)
                ).one()
            self._count(expired_artifacts=count, removed_blobs=count, freed_bytes=int(size or 0))
            return
        reason = f"Removed by the cleanup at {now:%Y-%m-%d %H:%M:%S} UTC, after its protection time."
        while True:
            with self.store.session() as session:
                batch = session.execute(select(Artifact.artifact_id).where(*due).limit(BATCH_SIZE)).scalars().all()
                started_s = time.perf_counter()
                expired = session.execute(
                    update(Artifact)
                    .where(Artifact.artifact_id.in_(batch), *due)  # Again: a run may just have been pinned.
                    .values(status=ArtifactStatus.EXPIRED, reason=reason)
                    .returning(Artifact.blob_name)
                    .execution_options(synchronize_session=False)
                )
                names = [name for (name,) in expired if name is not None]
            held_s = time.perf_counter() - started_s
            if not batch:
                return
            freed = self.store.blobs.delete(names)  # After the commit: a row never points at what is gone.
            self._count(expired_artifacts=len(names), removed_blobs=len(names), freed_bytes=freed)
            time.sleep(held_s)  # SQLite's other writers look for their turn now and then; half of the time is theirs.

    def _remove_orphaned_blobs(self) -> None:
        old = (found for found in self.store.blobs.scan() if found.modified_at < time.time() - self.protection_s)
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
        now = datetime.now(UTC)
        retention_s = self.store.settings.run_retention
        ended_before = now - timedelta(seconds=retention_s)
        started_before = now - timedelta(seconds=max(retention_s, _RUNNING_KEPT_S))
        live = select(Artifact.run_id).where(Artifact.run_id == TaskRun.run_id, Artifact.status.in_(LIVE_STATUSES))
        old = (
            or_(
                TaskRun.finished_at < ended_before,
                (TaskRun.status == RunStatus.RUNNING) & (TaskRun.started_at < started_before),
            ),
            TaskRun.started_at < ended_before,
            TaskRun.pinned_at.is_(None),
            ~live.exists(),
        )
        if self.dry_run:
            with self.store.session() as session:
                self._count(removed_runs=session.execute(select(func.count(TaskRun.run_id)).where(*old)).scalar_one())
            return
        while True:
            with self.store.session() as session:
                batch = session.execute(select(TaskRun.run_id).where(*old).limit(BATCH_SIZE)).scalars().all()
                session.execute(delete(TaskRun).where(TaskRun.run_id.in_(batch), *old))
            if not batch:
                return
            self._count(removed_runs=len(batch))

    def _remove_captures(self) -> None:
        if self.dry_run:
            return
        before = datetime.now(UTC) - timedelta(seconds=self.store.settings.run_retention)
        removed = _CAPTURE_BATCH_SIZE
        while removed == _CAPTURE_BATCH_SIZE:
            with self.store.session() as session:
                removed = delete_captures(session, before, _CAPTURE_BATCH_SIZE)
            self.logger.debug("Removed %d captures", removed)

    def _remove_worker_actors(self) -> None:
        if self.dry_run:
            return
        kept_s = max(self.store.settings.run_retention, _ACTORS_KEPT_S)
        with self.store.session() as session:
            removed = delete_worker_actors(session, datetime.now(UTC) - timedelta(seconds=kept_s))
        self.logger.debug("Removed %d actors that no worker has any more", removed)

    def _remove_spool_entries(self) -> None:
        before = time.time() - self.protection_s
        for removed in Spool(self.store.settings).remove_abandoned(before, dry_run=self.dry_run):
            self._count(removed_spool_entries=1, freed_bytes=removed)

    def _count(self, **more: int) -> None:
        for name, number in more.items():
            setattr(self.counts, name, getattr(self.counts, name) + number)
        if self.on_batch is not None:
            self.on_batch(self.counts)


def orphaned(session: Session, batch: Sequence[Found]) -> list[Found]:
    """Returns: Those files that no live artifact's row speaks for."""
    query = select(Artifact.blob_name).where(
        Artifact.artifact_id.in_({found.artifact_id for found in batch}), Artifact.status.in_(LIVE_STATUSES)
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
