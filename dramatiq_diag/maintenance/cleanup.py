"""Removes what has expired, in small batches. A cleanup that died is finished by the next one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, select, tuple_, update
from sqlalchemy.orm import Session

from ..runtime.loggers import get_logger
from ..settings import Settings
from ..spool.delivery import Delivery
from ..spool.directory import Spool
from ..statuses import ArtifactStatus, RunStatus
from ..store.captures import delete_captures
from ..store.counting import count_removed, count_removed_runs
from ..store.forecast import forecast
from ..store.given_up import give_up_not_executed, give_up_silent, is_given_up, not_executed
from ..store.heap_windows import delete_windows
from ..store.models import Artifact, TaskRun, checked_per_row
from ..store.questions import delete_questions
from ..store.retention import (
    has_live_artifact,
    is_due,
    is_old,
    may_be_removed,
    may_expire,
    oldest_artifacts,
    oldest_runs,
)
from ..store.row_locks import lock_runs
from ..store.store import Store
from ..store.vacuum import give_back
from ..store.worker_actors import delete_worker_actors
from ..store.workers import delete_old_workers
from .bounds import remove_beyond
from .orphans import BATCH_SIZE, batched, delete_orphans, live_among, orphaned
from .pace import Pace

#: Artifacts that expire in one transaction at most; see `Pace`. With 200 a million would take more than 180 s, as the
#: pause after each batch has a lower bound.
EXPIRY_BATCH_SIZE = 500

#: Rows whose ids are read at a time. One search for old rows serves many batches: without statistics PostgreSQL reads
#: and sorts all old rows for each search.
CHUNK_SIZE = 10_000

#: The least seconds for which a reported actor stays known: workers report theirs about once an hour.
_ACTORS_KEPT_S = 86400.0

_GiveUp = Callable[[Session, Sequence[uuid.UUID], datetime], None]


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
      batch_size: Rows or files handled at a time, at most.
      expiry_batch_size: Artifacts that expire in one transaction, at most.
      chunk_size: Rows whose ids are read at a time.
    """

    def __init__(
        self,
        store: Store,
        *,
        dry_run: bool = False,
        on_batch: Callable[[Counts], None] | None = None,
        batch_size: int = BATCH_SIZE,
        expiry_batch_size: int = EXPIRY_BATCH_SIZE,
        chunk_size: int = CHUNK_SIZE,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.store = store
        self.dry_run = dry_run
        self.on_batch = on_batch
        self._batch_size = batch_size
        self._expiry, self._removal, self._orphans = Pace(expiry_batch_size), Pace(batch_size), Pace(batch_size)
        self._chunk_size = chunk_size
        self.counts = Counts()
        self.now = datetime.min.replace(tzinfo=UTC)
        "When it began, by the database's clock."
        self.protection_s = store.settings.orphan_protection_time

    def run(self) -> Counts:
        """Expires artifacts, removes old runs, orphaned blobs and abandoned spool entries, and keeps the bounds.

        It also ends the rows of runs that began more than a day ago, if their worker is silent, or lives and does not
        execute them.

        What is past its time goes first, then the oldest runs beyond `max_runs`, then the oldest artifacts beyond
        `max_bytes`.

        Returns:
          The counts.

        Raises:
          StoreMismatchError: When blob root and database are not of one store; nothing was changed.
          StoreError: When the store cannot be used; what was done until then is done.
        """
        # It claims no blob root: it stores no blob, and the one of this host need not be the one of the workers.
        self.store.check_identity()
        self.now = self.store.now()
        if self.dry_run:
            self._foretell()
        else:
            self._expire()
            self._give_up_runs()
            self._remove_runs()
            self._keep_max_runs()
            self._keep_max_bytes()
            self._remove_windows()
        self._remove_orphaned_blobs()
        self._remove_cached_files()
        self._remove_spool_entries()
        if not self.dry_run:
            self._remove_from_small_tables()
            give_back(self.store.engine)
        self.logger.info("Cleanup%s: %s", " (dry run)" if self.dry_run else "", self.counts)
        return self.counts

    def _foretell(self) -> None:
        with self.store.session() as session:
            found = forecast(session, self.store.settings, self.now)
        for removal in (found.by_time, found.by_max_runs, found.by_max_bytes):
            self._count(
                expired_artifacts=removal.artifact_count,
                removed_blobs=removal.artifact_count,
                freed_bytes=removal.size_bytes,
                removed_runs=removal.run_count,
            )

    def _expire(self) -> None:
        due = is_due(self.now)
        reason = self._reason("after its protection time")
        query = select(Artifact.expires_at, Artifact.artifact_id).where(*due).order_by(Artifact.expires_at)
        # PostgreSQL keeps the index entries of expired rows until a vacuum; the next chunk begins after them.
        for ids in self._batches(query, self._expiry, lambda last: Artifact.expires_at >= last[0]):
            self._expire_batch(ids, due, reason)

    def _expire_batch(
        self, artifact_ids: Sequence[uuid.UUID], conditions: Sequence[ColumnElement[bool]], reason: str
    ) -> int:
        """Expires artifacts. Returns: Their sizes together, in bytes."""
        expire = (
            update(Artifact)
            # With the conditions once more: a run may just have been pinned.
            .where(Artifact.artifact_id.in_(artifact_ids), checked_per_row(*conditions))
            .values(status=ArtifactStatus.EXPIRED, reason=reason)
            .returning(Artifact.artifact_id, Artifact.blob_name, Artifact.size_bytes)
        )
        with self._expiry.timed(), self.store.session() as session:
            expired = session.execute(expire).all()
            count_removed(session, [row.artifact_id for row in expired], ArtifactStatus.EXPIRED)
            sizes = {row.blob_name: row.size_bytes or 0 for row in expired if row.blob_name is not None}
        self.store.blobs.delete([*sizes])  # After the commit: a row never points at what is gone.
        self._count(expired_artifacts=len(sizes), removed_blobs=len(sizes), freed_bytes=sum(sizes.values()))
        self._expiry.let_others_write()
        return sum(row.size_bytes or 0 for row in expired)

    def _keep_max_bytes(self) -> None:
        bound = self.store.settings.max_bytes
        reason = self._reason(f"as more is stored than {Settings.variable('max_bytes')} allows: {bound} bytes")

        def expire(artifact_ids: Sequence[uuid.UUID]) -> int:
            return self._expire_batch(artifact_ids, may_expire(), reason)

        remove_beyond(self.store, bound, oldest_artifacts, expire, self._expiry, self._chunk_size)

    def _keep_max_runs(self) -> None:
        bound = self.store.settings.max_runs
        reason = self._reason(f"as more runs are stored than {Settings.variable('max_runs')} allows: {bound}")

        def remove(run_ids: Sequence[uuid.UUID]) -> int:
            live = select(Artifact.artifact_id).where(Artifact.run_id.in_(run_ids), checked_per_row(*may_expire()))
            with self.store.session() as session:
                artifact_ids = session.execute(live).scalars().all()
            for ids in self._expiry.batched(artifact_ids):
                self._expire_batch(ids, may_expire(), reason)
            return self._remove_batch(run_ids, (*may_be_removed(), ~has_live_artifact()))

        remove_beyond(self.store, bound, oldest_runs, remove, self._removal, self._chunk_size)

    def _reason(self, text: str) -> str:
        return f"Removed by the cleanup at {self.now:%Y-%m-%d %H:%M:%S} UTC, {text}."

    def _remove_orphaned_blobs(self) -> None:
        before = self.now.timestamp() - self.protection_s
        old = (found for found in self.store.blobs.scan() if found.modified_at < before)
        for batch in self._orphans.batched(old):
            with self.store.session() as session:
                orphans = orphaned(session, batch)
            if not orphans:
                continue
            if self.dry_run:
                freed = sum(found.size_bytes for found in orphans)
            else:
                with self._orphans.timed():
                    orphans, freed = delete_orphans(self.store, orphans)
                self._orphans.let_others_write()
            self._count(removed_blobs=len(orphans), freed_bytes=freed)
        if not self.dry_run:
            self.store.blobs.remove_empty_days()

    def _remove_cached_files(self) -> None:
        """Removes the files of expired or deleted artifacts from this host's cache. Even before that none is served."""
        for batch in batched(self.store.cache.entries(), self._batch_size):
            with self.store.session() as session:
                live = live_among(session, {entry.source_id for entry in batch})
            ended = [entry for entry in batch if entry.source_id not in live]
            if not self.dry_run:
                self.store.cache.remove(entry.name for entry in ended)
            self._count(freed_bytes=sum(entry.size_bytes for entry in ended))

    def _give_up_runs(self) -> None:
        """Ends the rows of old runs whose worker was not heard of for a day, or does not know them any more."""
        for ids in self._batches_of_runs(is_given_up(self.now)):
            self._give_up_batch(ids, give_up_silent)
        with self.store.session() as session:
            unknown = not_executed(session, self.now)
        for ids in self._removal.batched(unknown):
            self._give_up_batch(ids, give_up_not_executed)

    def _give_up_batch(self, run_ids: Sequence[uuid.UUID], give_up: _GiveUp) -> None:
        with self._removal.timed(), self.store.session() as session:
            give_up(session, run_ids, self.now)
        self._removal.let_others_write()
        self._count()

    def _remove_runs(self) -> None:
        old = is_old(self.store.settings, self.now)
        for ids in self._batches_of_runs(old):
            self._remove_batch(ids, old)

    def _batches_of_runs(self, conditions: Sequence[ColumnElement[bool]]) -> Iterator[list[uuid.UUID]]:
        """Yields the ids of the runs that meet the conditions, the oldest first."""
        order = TaskRun.started_at, TaskRun.run_id
        query = select(*order).where(*conditions).order_by(*order)
        # Each chunk begins after the one before, so that no run that stays is looked at twice.
        return self._batches(query, self._removal, lambda last: tuple_(*order) > tuple_(*last))

    def _remove_batch(self, run_ids: Sequence[uuid.UUID], conditions: Sequence[ColumnElement[bool]]) -> int:
        """Removes the rows of runs. Returns: The number of them."""
        remove = (
            delete(TaskRun)
            .where(TaskRun.run_id.in_(run_ids), checked_per_row(*conditions))
            .returning(TaskRun.actor_name, TaskRun.status)
        )
        with self._removal.timed(), self.store.session() as session:
            lock_runs(session, run_ids)  # An artifact may just be published, which the row would take along.
            removed = session.execute(remove).all()
            count_removed_runs(session, ((name, status) for name, status in removed if status != RunStatus.RUNNING))
        self._count(removed_runs=len(removed))
        self._removal.let_others_write()
        return len(removed)

    def _batches(
        self, query: Select[Any, Any], pace: Pace, after: Callable[[Row[Any, Any]], ColumnElement[bool]]
    ) -> Iterator[list[uuid.UUID]]:
        """Yields the ids that a query for moments and ids finds. Each chunk begins *after* the last row before."""
        page = query
        while True:
            with self.store.session() as session:
                chunk = session.execute(page.limit(self._chunk_size)).all()
            if not chunk:
                return
            yield from pace.batched(row_id for _, row_id in chunk)
            page = query.where(after(chunk[-1]))

    def _remove_windows(self) -> None:
        """Removes windows of the live memory after the run retention. A process makes some 2,000 in a year."""
        while True:
            with self._removal.timed(), self.store.session() as session:
                removed = delete_windows(session, self.store.settings.run_retention, self._batch_size)
            self._removal.let_others_write()
            if removed < self._batch_size:
                return
            self._count()

    def _remove_from_small_tables(self) -> None:
        """Removes old captures, actors that no worker has any more, reports of workers, and questions."""
        retention_s = self.store.settings.run_retention
        # A transaction each, and a pause after it: a statement takes longest when it is executed for the first time, as
        # SQLAlchemy builds it then. Nobody else writes into SQLite between a transaction's first change and its end.
        removals: dict[str, Callable[[Session], int]] = {
            "captures": partial(delete_captures, kept_s=retention_s),
            "actors of workers": partial(delete_worker_actors, kept_s=max(retention_s, _ACTORS_KEPT_S)),
            "reports of workers": delete_old_workers,
            "questions": delete_questions,
        }
        for what, remove in removals.items():
            with self._removal.timed(), self.store.session() as session:
                removed = remove(session)
            self.logger.debug("Removed %d %s", removed, what)
            self._removal.let_others_write()

    def _remove_spool_entries(self) -> None:
        # The spool is on this host's own disk: the times of its files are by this host's clock.
        before = time.time() - self.protection_s
        spool = Spool(self.store.settings)
        # After an outage of the database old entries are whole, and nobody has published them yet.
        delivery = Delivery(spool, self.store)
        sizes_bytes: Iterator[int]
        if self.dry_run:
            found = spool.abandoned(before, self.store.store_id)
            sizes_bytes = (size_bytes for entry, size_bytes in found if not delivery.can_read(entry))
        else:
            sizes_bytes = spool.remove_abandoned(before, self.store.store_id, delivery.salvage_owner)
        for size_bytes in sizes_bytes:
            self._count(removed_spool_entries=1, freed_bytes=size_bytes)

    def _count(self, **more: int) -> None:
        for name, number in more.items():
            setattr(self.counts, name, getattr(self.counts, name) + number)
        if self.on_batch is not None:
            self.on_batch(self.counts)
