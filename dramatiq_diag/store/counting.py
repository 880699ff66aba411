"""Counts what a transaction has changed: runs that ended, and artifacts that were published or lost their blobs."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from .counters import Changes, Series
from .models import Artifact, TaskRun
from .records import FinishedRun


def count_ended(ended: Collection[uuid.UUID], given_up: Collection[uuid.UUID], runs: Iterable[FinishedRun]) -> Changes:
    """Counts runs that a transaction brought to their end. Returns: The changes, to be written by the transaction.

    Parameters:
      ended: The ids of the runs that had not ended before: published twice, a run counts once.
      given_up: Those of them that `count_given_up` counted before.
      runs: The runs, and attachments, which are passed over.
    """
    changes = Changes()
    own = (finished.run for finished in runs if finished.attachment_id is None)
    for run in {run.run_id: run for run in own if run.run_id in ended}.values():
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
    return changes


def count_corrected(changes: Changes, corrected: Collection[uuid.UUID], runs: Iterable[FinishedRun]) -> None:
    """Adds runs that were stored as interrupted, and of which the true end came later: each was counted before."""
    own = (finished.run for finished in runs if finished.attachment_id is None)
    for run in {run.run_id: run for run in own if run.run_id in corrected}.values():
        changes.add_stored(run.actor_name, RunStatus.INTERRUPTED, -1)
        changes.add_stored(run.actor_name, run.status)


def count_artifacts(
    changes: Changes,
    ended: Collection[uuid.UUID],
    runs: Iterable[FinishedRun],
    rows: Iterable[Mapping[str, Any]],
    before: Mapping[uuid.UUID, int | None],
    after: Mapping[uuid.UUID, int | None],
) -> None:
    """Adds the artifacts that a transaction wrote: each new one by its status, and the change of their blobs.

    Parameters:
      changes: The changes so far.
      ended: The ids of the runs that had not ended before: their own artifacts are new.
      runs: The runs and attachments.
      rows: The rows of their artifacts.
      before: The stored sizes before that, but for the own artifacts of `ended`; see `stored_sizes`.
      after: Those of the same artifacts now. An entry may have grown since it was first published.
    """
    records = {finished.run.run_id: finished.run for finished in runs}
    for key, row in {row["artifact_id"]: row for row in rows}.items():
        run, is_attached = records[row["run_id"]], row["attachment_id"] is not None
        has_just_ended = row["run_id"] in ended
        if key not in before and (is_attached or has_just_ended):
            changes.add(run.actor_name, run.queue_name, Series.ARTIFACTS, row["status"])
        size_bytes = after.get(key)
        if has_just_ended and not is_attached and row["status"] in DOWNLOADABLE_STATUSES:
            size_bytes = row["size_bytes"] or 0
        if size_bytes is not None:
            old_bytes = before.get(key)
            changes.add_blobs(run.actor_name, row["name"], int(old_bytes is None), size_bytes - (old_bytes or 0))


def stored_sizes(session: Session, artifact_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, int | None]:
    """Locks artifacts. Returns: The size in bytes of the blob of each one that is stored; None where it has no blob."""
    if not artifact_ids:
        return {}
    query = select(Artifact.artifact_id, Artifact.status, Artifact.size_bytes)
    query = query.where(Artifact.artifact_id.in_(artifact_ids)).order_by(Artifact.artifact_id).with_for_update()
    found = session.execute(query)
    return {row.artifact_id: (row.size_bytes or 0) if row.status in DOWNLOADABLE_STATUSES else None for row in found}


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
