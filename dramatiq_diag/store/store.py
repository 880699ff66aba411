"""Writes the rows and the blobs of runs together."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, and_, case, false, or_, select, update
from sqlalchemy.orm import Session

from ..errors import BlobMissingError
from ..settings import Settings
from ..statuses import ArtifactStatus, RunStatus
from .attached_rows import protect_attached, unset_expiry_of_pinned
from .blobs import cache_of
from .blobs.base import NewBlob
from .blobs.headers import file_headers
from .clock import Clock
from .counting import count_artifacts, count_corrected, count_ended, stored_sizes
from .identity import IdentifiedStore
from .many_rows import ManyRows
from .memory_curves import write_curve
from .models import Artifact, StoreState, TaskRun, is_live
from .records import ArtifactRecord, FinishedRun, RunRecord
from .slots import claim_slots

#: A time of the last cleanup that is further in the future, in seconds, was written by a wrong clock.
_WRONG_BY_S = 300.0


def _row(finished: FinishedRun) -> dict[str, Any]:
    """Returns: The columns of a run, with the small curve of its memory log."""
    row: dict[str, Any] = {**finished.run.row(), "memory_curve": None}
    for artifact in finished.artifacts:
        if artifact.name == "memory_profile" and artifact.opener is not None:
            with artifact.opener() as file:
                row["memory_curve"] = write_curve(file)
    return row


def _headers(artifact: ArtifactRecord) -> dict[str, str]:
    """Returns: The headers of the stored file. A download that is rendered from it is another file."""
    if artifact.stored_as is not None:
        return file_headers("application/octet-stream", artifact.stored_as)
    return file_headers(artifact.media_type, artifact.filename)


#: The reason of an artifact of a run that only seemed to have died, if its worker had nothing more of it at the end.
_TAKEN = "Another process took what was there while the task ran, as if its worker had died."

#: The columns that a run keeps when it is published.
_KEPT = ("pinned_at", "capture_id", "given_up_at")


def _or_update(insert: Any, *where: ColumnElement[bool]) -> Any:
    changed = {name: column for name, column in insert.excluded.items() if name not in _KEPT}
    return insert.on_conflict_do_update(index_elements=[TaskRun.run_id], set_=changed, where=or_(*where))


def _or_update_running(insert: Any) -> Any:
    """Returns: The `insert` of a run, or the update of one that goes on."""
    return _or_update(insert, TaskRun.status == RunStatus.RUNNING)


def _or_end(insert: Any) -> Any:
    """Returns: The same, also for a run that was given up.

    It returns no run that had ended before, as its row stays as it is, and it was counted.
    """
    ended = _or_update(insert, TaskRun.status == RunStatus.RUNNING, TaskRun.finished_at.is_(None))
    return ended.returning(TaskRun.run_id, TaskRun.status, TaskRun.given_up_at)


def _or_correct(insert: Any) -> Any:
    """Returns: The `insert` of a run whose end is known, or the update of one that only seemed to have died.

    A salvager without its lock, as on a copy of its spool or across hosts, has published it while it went on.
    """
    seemed_dead = and_(
        TaskRun.status == RunStatus.INTERRUPTED,
        TaskRun.death_reason.is_not(None),
        insert.excluded.death_reason.is_(None),
    )
    return _or_update(insert, seemed_dead).returning(TaskRun.run_id)


def _or_lock(insert: Any) -> Any:
    """Returns: The `insert` of a run to which something was attached; a row that is there is locked and stays.

    So neither a pin nor a cleanup comes between this and the artifacts, nor the same attachment that is published twice
    at once.
    """
    unchanged = {"status": TaskRun.status}
    return insert.on_conflict_do_update(index_elements=[TaskRun.run_id], set_=unchanged, where=false())


def _or_replace_live(insert: Any) -> Any:
    """Returns: The `insert` of an artifact, or its update.

    A second try replaces the row, as the entry may have grown meanwhile. It never replaces the row of an artifact that
    expired or was deleted, and a try without the file, which left the spool after the first try, replaces nothing. A
    live artifact without an expiry belongs to a pinned run, and gets none. A failed one may have its file after all, if
    its worker only seemed to have died.
    """
    failed = Artifact.status == ArtifactStatus.FAILED
    expires_at = case((or_(Artifact.expires_at.is_not(None), failed), insert.excluded.expires_at))
    return insert.on_conflict_do_update(
        index_elements=[Artifact.artifact_id],
        set_={**insert.excluded, "expires_at": expires_at},
        where=and_(or_(is_live(Artifact.status), failed), is_live(insert.excluded.status)),
    )


class Store(IdentifiedStore):
    """The database and the blob root of one set of settings; it opens itself when it is first used."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.cache = cache_of(settings)
        "What this host has made or fetched of the blobs. A file of it is served only while the artifact's row is live."
        self._running_runs, self._ended_runs, self._corrected_runs, self._attached_runs = (
            ManyRows(cast(Table, TaskRun.__table__), finish)
            for finish in (_or_update_running, _or_end, _or_correct, _or_lock)
        )
        self._artifacts = ManyRows(cast(Table, Artifact.__table__), _or_replace_live)

    def announce(self, runs: Sequence[RunRecord]) -> set[uuid.UUID]:
        """Makes running runs visible, and claims the slots of captures; a run that has ended stays as it is.

        Returns:
          The ids of the runs for which their capture has no slot. They have lost it for good.
        """
        if not runs:
            return set()
        with self.session() as session:
            self._running_runs.execute(session.connection(), [run.row() for run in runs])
            return claim_slots(session, runs)

    def publish(self, runs: Sequence[FinishedRun]) -> None:
        """Stores finished runs: blobs first and synced, then all rows in one transaction. Repeating does no harm.

        What was cut short and is published already stays as it is: the entry may be that of a restored spool.
        Before that a captured run is announced, if it was not: one without a slot has no blobs that only its capture
        asked for.

        Raises:
          StoreError: When nothing was stored, or some blobs without their rows; publish again.
        """
        runs = self._unpublished(runs)
        lost = self.announce([finished.run.as_running() for finished in runs if finished.run.needs_slot])
        kept = (finished.without_its_capture() if finished.run.run_id in lost else finished for finished in runs)
        runs = [finished for finished in kept if finished is not None]
        if not runs:
            return
        self.open()
        self.verify_root()
        rows = self._put(runs)
        names = {row["artifact_id"]: row["blob_name"] for row in rows if row["blob_name"] is not None}
        if names:
            self.blobs.sync(names.values())
            # The root may have been unmounted meanwhile, and the blobs written to the mount point.
            self.verify_root()
        with self.session() as session:
            surplus = [names.pop(key) for key in self._write(session, runs, rows)]
        self.blobs.delete(surplus)
        if None in self.blobs.sizes_bytes([*names.values()]):
            raise BlobMissingError("A cleanup took a blob for an orphan before its row was there; publish again.")

    def _unpublished(self, runs: Sequence[FinishedRun]) -> Sequence[FinishedRun]:
        """Returns: The runs without those that were cut short and are published already, with all their artifacts."""
        cut_short = [finished for finished in runs if finished.is_cut_short]
        if not cut_short:
            return runs
        run_ids = {finished.run.run_id for finished in cut_short}
        own = {finished.run.run_id for finished in cut_short if finished.attachment_id is None}
        attachment_ids = {finished.attachment_id for finished in cut_short} - {None}
        ended = TaskRun.run_id.in_(own), TaskRun.status != RunStatus.RUNNING, TaskRun.finished_at.is_not(None)
        attached = Artifact.run_id.in_(run_ids), Artifact.attachment_id.in_(attachment_ids)
        with self.session() as session:
            published = {
                *session.execute(select(TaskRun.run_id).where(*ended)).scalars(),
                *session.execute(select(Artifact.attachment_id).where(*attached)).scalars(),
            }
        return [
            finished
            for finished in runs
            if not (finished.is_cut_short and (finished.attachment_id or finished.run.run_id) in published)
        ]

    def _write(
        self, session: Session, runs: Sequence[FinishedRun], rows: Sequence[dict[str, Any]]
    ) -> Sequence[uuid.UUID]:
        """Writes the rows of runs and of their artifacts, whose blobs were put, and counts them.

        Returns:
          The ids of the artifacts that had expired or were deleted before: they never come back, and need no blob.
        """
        # Waits for `exclusive`, not for others.
        now = session.execute(select(Clock(session).now).where(StoreState.id == 1).with_for_update(read=True))
        self._set_times(runs, rows, now.scalar_one())
        just_ended, given_up, corrected = self._write_runs(session, runs)
        # A run may be pinned before its own artifacts come only if it had ended before, or was given up.
        new = just_ended - given_up
        late = [row for row in rows if row["attachment_id"] is not None or row["run_id"] not in new]
        if late:
            unset_expiry_of_pinned(session, late)
        # A run ends once, so its own artifacts are new then. What is attached to it may have been published before.
        again = {row["artifact_id"] for row in rows if row["attachment_id"] or row["run_id"] not in just_ended}
        before = stored_sizes(session, again)
        if rows:
            self._artifacts.execute(session.connection(), rows)
        with_blob = [row["artifact_id"] for row in rows if row["blob_name"] is not None]
        if corrected:
            taken = Artifact.run_id.in_(corrected), Artifact.attachment_id.is_(None), is_live(Artifact.status)
            kept = Artifact.artifact_id.not_in(with_blob)
            session.execute(update(Artifact).where(*taken, kept).values(reason=_TAKEN))
        protect_attached(session, [finished.run for finished in runs], self.settings.orphan_protection_time)
        ended = select(Artifact.artifact_id).where(Artifact.artifact_id.in_(with_blob), ~is_live(Artifact.status))
        surplus = session.execute(ended).scalars().all() if with_blob else ()
        changes = count_ended(just_ended, given_up, runs)
        count_corrected(changes, corrected, runs)
        count_artifacts(changes, just_ended, runs, rows, before, stored_sizes(session, again))
        changes.write(session)
        return surplus

    def _write_runs(
        self, session: Session, runs: Sequence[FinishedRun]
    ) -> tuple[set[uuid.UUID], set[uuid.UUID], set[uuid.UUID]]:
        """Writes the rows of runs.

        Returns:
          The ids of those that had not ended before; those of them that were given up; those that seemed to have died.
        """
        connection, just_ended, given_up = session.connection(), set[uuid.UUID](), set[uuid.UUID]()
        corrected = set[uuid.UUID]()
        ended = [_row(finished) for finished in runs if finished.attachment_id is None]
        if ended:
            written = self._ended_runs.execute(connection, ended).all()
            # An entry that someone forged may say that its run is running.
            just_ended = {run_id for run_id, status, _ in written if status != RunStatus.RUNNING}
            given_up = {run_id for run_id, _, given_up_at in written if given_up_at is not None}
            written_ids = {run_id for run_id, _, _ in written}
            again = [row for row in ended if row["run_id"] not in written_ids]
            if again:
                corrected = {*self._corrected_runs.execute(connection, again).scalars()}
        attached = [finished.run.row() for finished in runs if finished.attachment_id is not None]
        if attached:
            # In one order: two transactions that lock the same runs would deadlock otherwise.
            attached.sort(key=itemgetter("run_id"))
            self._attached_runs.execute(connection, attached)
        return just_ended, given_up, corrected

    def _put(self, runs: Sequence[FinishedRun]) -> list[dict[str, Any]]:
        """Puts the blobs of artifacts. Returns: The rows of all artifacts, but for the times."""
        rows, blobs, with_blob = [], [], []
        for finished in runs:
            day = finished.run.started_at.astimezone(UTC).date()
            for artifact in finished.artifacts:
                row = artifact.row(finished.run.run_id, finished.attachment_id)
                rows.append(row)
                if artifact.opener is not None:
                    blobs.append(
                        NewBlob(
                            artifact_id=row["artifact_id"], open=artifact.opener, day=day, headers=_headers(artifact)
                        )
                    )
                    with_blob.append(row)
        for row, blob in zip(with_blob, self.blobs.put(blobs), strict=True):
            row["blob_name"], row["size_bytes"], row["sha256"] = blob.name, blob.size_bytes, blob.sha256
        return rows

    def _set_times(self, runs: Sequence[FinishedRun], rows: Sequence[dict[str, Any]], now: datetime) -> None:
        """Sets when each artifact was published and expires.

        By the clock of its host a run may have ended later than *now*, the database's: then it is kept longer.
        """
        ends = {finished.run.run_id: finished.run.finished_at for finished in runs if finished.run.finished_at}
        protection = timedelta(seconds=self.settings.orphan_protection_time)
        for row in rows:
            row["published_at"] = now
            if row["blob_name"] is not None:
                row["expires_at"] = max(ends.get(row["run_id"], now), now) + protection

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
            claim = update(StoreState).where(due).values(last_cleanup_at=clock.now)
            return session.connection().execute(claim).rowcount > 0

    def release_cleanup(self) -> None:
        """Makes the cleanup due again, after its message could not be enqueued."""
        with self.session() as session:
            session.execute(update(StoreState).values(last_cleanup_at=None))
