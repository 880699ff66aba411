"""Writes rows and blobs together, and keeps database and blob root to one store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ..errors import BlobMissingError, StoreMismatchError
from ..runtime.loggers import get_logger
from ..settings import Settings
from ..statuses import DOWNLOADABLE_STATUSES, RunStatus
from .blobs import blob_store_of
from .blobs.base import RootId
from .clock import Clock
from .models import Artifact, StoreState, TaskRun, is_live
from .records import ArtifactRecord, FinishedRun, RunRecord, artifact_id
from .slots import claim_slots
from .transactions import Transactions

#: A cleanup that was enqueued so many seconds in the future was noted by a wrong clock.
_WRONG_BY_S = 300.0


def _identity(session: Session) -> RootId:
    store_id, root_id = session.execute(select(StoreState.store_id, StoreState.blob_root_id)).one()
    return RootId(store_id=store_id, root_id=root_id)


class Store(Transactions):
    """The database and the blob root of one set of settings; it opens itself when it is first used."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.logger = get_logger(__name__, type(self))
        self.blobs = blob_store_of(settings)
        self._identity: RootId | None = None
        "The ids of this store and its blob root, once the root was looked at."
        insert: Any = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[settings.database.get_backend_name()]
        run, artifact = insert(TaskRun), insert(Artifact)  # Both dialects spell `ON CONFLICT` alike.
        self._upsert_run = run.on_conflict_do_update(
            index_elements=[TaskRun.run_id],
            set_={name: column for name, column in run.excluded.items() if name not in ("pinned_at", "capture_id")},
            where=TaskRun.status == RunStatus.RUNNING,
        )
        # A second try replaces the row, as the entry may have grown meanwhile. It never replaces the row of an artifact
        # that expired or was deleted, and a try without the file, which left the spool after the first try, replaces
        # nothing. A live artifact without an expiry is of a pinned run, and stays without.
        expires_at = case((Artifact.expires_at.is_not(None), artifact.excluded.expires_at))
        self._upsert_artifact = artifact.on_conflict_do_update(
            index_elements=[Artifact.artifact_id],
            set_={**artifact.excluded, "expires_at": expires_at},
            where=and_(is_live(Artifact.status), is_live(artifact.excluded.status)),
        )

    def open(self) -> None:
        """Opens the database and claims the blob root, unless both was done before.

        Raises:
          NotInstalledError: When the database's driver is missing.
          SchemaError: When the schema is not the one needed.
          StoreUnavailableError: When the database or the blob root cannot be used.
        """
        self.open_database()
        if self._identity is None:
            self.claim_blobs()

    def reopen(self) -> None:
        super().reopen()
        self._identity = None

    def claim_blobs(self) -> None:
        """Claims the blob root.

        A database has one root. One that looks unused is not claimed for a database that has one already, or that
        knows of blobs: its disk may not be mounted.

        Raises:
          StoreUnavailableError: When the database or the blob root cannot be used.
        """
        identity = self.identity()
        if identity.root_id is None and (self.blobs.read_id() is not None or not self._has_blobs()):
            self.claim_root()
        else:
            self._identity = identity

    def store_id(self) -> uuid.UUID:
        """Returns: The id of this store, as the database has it."""
        return self.identity().store_id

    def identity(self) -> RootId:
        """Returns: The id of this store and of its blob root, as the database has them."""
        with self.session() as session:
            return _identity(session)

    def claim_root(self, *, instead: bool = False) -> None:
        """Makes the blob root this database's, unless it has another. Of processes that start at once the first wins.

        The root has its id before the database knows it: after a death in between the next process finds the id there.

        Parameters:
          instead: Whether an unused root takes the place of the one that was claimed before.
        """
        if instead and self.blobs.read_id() is not None:
            return
        with self.exclusive() as session:
            identity = _identity(session)
            if identity.root_id is None or instead:
                root_id = self.blobs.claim(identity.store_id)
                if root_id is not None:
                    session.execute(update(StoreState).values(blob_root_id=root_id))
            self._identity = _identity(session)

    def check_identity(self) -> None:
        """Compares the two halves of the store.

        Raises:
          StoreMismatchError: When the blob root is another store's, or not the one that was claimed; or it has no id,
            though there are blobs or the database has a root.
        """
        found, expected = self.blobs.read_id(), self.identity()
        if found is not None:
            self.blobs.verify(expected.store_id, expected.root_id)
        elif next(self.blobs.scan(), None) is not None:
            raise StoreMismatchError(
                f"The blobs in {self.blobs.root} are of a store that is not known, "
                f"the database is {expected.store_id}. {StoreMismatchError()}"
            )
        elif expected.root_id is not None or self._has_blobs():
            raise StoreMismatchError(
                f"The blob directory {self.blobs.root} is empty, and the database has one that is not; nothing was "
                "changed. Mount it or set DRAMATIQ_DIAG_BLOB_URL; if its files are lost: "
                "dramatiq-diag check --fix --blobs-lost"
            )

    def _has_blobs(self) -> bool:
        """Returns: Whether a row says that a blob is stored."""
        live = select(Artifact.artifact_id).where(is_live(Artifact.status), Artifact.blob_name.is_not(None))
        query = live.order_by(Artifact.expires_at).limit(1)  # By the index of the live artifacts.
        with self.session() as session:
            return session.execute(query).first() is not None

    def announce(self, runs: Sequence[RunRecord]) -> set[uuid.UUID]:
        """Makes running runs visible, and claims the slots of captures; one that is already there stays as it is.

        Returns:
          The ids of the runs for which their capture has no slot. They have lost it for good.
        """
        if not runs:
            return set()
        with self.session() as session:
            session.connection().execute(self._upsert_run, [run.row() for run in runs])
            return claim_slots(session, runs)

    def publish(self, runs: Sequence[FinishedRun]) -> None:
        """Stores finished runs: blobs first and synced, then all rows in one transaction. Repeating does no harm.

        Before that a captured run is announced, if it was not: one without a slot has no blobs that only its capture
        asked for.

        Raises:
          StoreError: When nothing was stored, or some blobs without their rows; publish again.
        """
        lost = self.announce([finished.run.as_running() for finished in runs if finished.run.needs_slot])
        kept = (finished.without_its_capture() if finished.run.run_id in lost else finished for finished in runs)
        runs = [finished for finished in kept if finished is not None]
        if not runs:
            return
        self.open()
        identity = self._identity or self.identity()
        self.blobs.verify(identity.store_id, identity.root_id)
        rows = [self._put(finished, artifact) for finished in runs for artifact in finished.artifacts]
        names = [row["blob_name"] for row in rows if row["blob_name"] is not None]
        if names:
            self.blobs.sync(names)
            # The root may have been unmounted meanwhile, and the blobs written to the mount point.
            self.blobs.verify(identity.store_id, identity.root_id)
        with self.session() as session:
            # Waits for `exclusive`, not for others.
            now = session.execute(select(Clock(session).now).where(StoreState.id == 1).with_for_update(read=True))
            self._set_times(runs, rows, now.scalar_one())
            connection = session.connection()
            connection.execute(self._upsert_run, [finished.run.row() for finished in runs])
            if rows:
                connection.execute(self._upsert_artifact, rows)
            ended = self._ended(session, rows)
        self.blobs.delete(ended)
        if any(self.blobs.size_bytes(name) is None for name in names if name not in ended):
            raise BlobMissingError("A cleanup took a blob for an orphan before its row was there; publish again.")

    def _ended(self, session: Session, rows: Sequence[dict[str, Any]]) -> list[str]:
        """Returns: The blobs just put whose artifacts expired or were deleted before: these never come back."""
        names = {row["artifact_id"]: row["blob_name"] for row in rows if row["blob_name"] is not None}
        if not names:
            return []
        query = select(Artifact.artifact_id).where(Artifact.artifact_id.in_(names), ~is_live(Artifact.status))
        return [names[artifact_id] for artifact_id in session.execute(query).scalars()]

    def _put(self, finished: FinishedRun, artifact: ArtifactRecord) -> dict[str, Any]:
        row: dict[str, Any] = {
            "artifact_id": artifact_id(finished.run.run_id, artifact.name),
            "run_id": finished.run.run_id,
            "name": artifact.name,
            "status": artifact.status,
            "reason": artifact.reason,
            "filename": artifact.filename,
            "media_type": artifact.media_type,
            "stored_as": artifact.stored_as,
            "blob_name": None,
            "size_bytes": None,
            "sha256": None,
            "expires_at": None,
        }
        if artifact.open is not None and artifact.status in DOWNLOADABLE_STATUSES:
            with artifact.open() as source:
                blob = self.blobs.put(row["artifact_id"], source, finished.run.started_at.astimezone(UTC).date())
            row["blob_name"], row["size_bytes"], row["sha256"] = blob.name, blob.size_bytes, blob.sha256
        return row

    def _set_times(self, runs: Sequence[FinishedRun], rows: Sequence[dict[str, Any]], now: datetime) -> None:
        """Sets when each artifact was published and expires.

        By the clock of its host a run may have ended later than *now*, the database's: then it is kept longer.
        """
        ends = {finished.run.run_id: finished.run.finished_at or now for finished in runs}
        protection = timedelta(seconds=self.settings.orphan_protection_time)
        for row in rows:
            row["published_at"] = now
            if row["blob_name"] is not None:
                row["expires_at"] = max(ends[row["run_id"]], now) + protection

    def claim_cleanup(self) -> bool:
        """Claims the next cleanup: one process of all that share the database gets it, once per interval.

        Returns:
          True for the process that is to enqueue the cleanup; False when none is due.
        """
        with self.session() as session:
            clock = Clock(session)
            due = or_(
                StoreState.last_cleanup_at.is_(None),
                StoreState.last_cleanup_at <= clock.after(-self.settings.cleanup_interval),
                StoreState.last_cleanup_at > clock.after(_WRONG_BY_S),
            )
            if session.execute(select(StoreState.id).where(due)).first() is None:
                return False
            claimed = session.execute(update(StoreState).where(due).values(last_cleanup_at=clock.now))
            return bool(claimed.rowcount)  # type: ignore[attr-defined]

    def release_cleanup(self) -> None:
        """Makes the cleanup due again, after its message could not be enqueued."""
        with self.session() as session:
            session.execute(update(StoreState).values(last_cleanup_at=None))
