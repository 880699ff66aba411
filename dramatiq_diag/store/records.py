"""The records that are published: a run, its artifacts, and both together."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, BinaryIO

from ..statuses import ArtifactStatus, RunStatus
from .values import clean_text, task_key

#: The reason of an artifact that only a capture asked for, where that has no slot for the run.
NO_SLOT = "Dropped: the capture that asked for it had all its runs, or was ended, before this run was counted."


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as it goes into its row."""

    run_id: uuid.UUID
    task_id: str
    actor_name: str
    queue_name: str
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None = None
    duration_ms: float | None = None
    collection_ms: float | None = None
    peak_rss_bytes: int | None = None
    hostname: str
    pid: int
    exception_type: str | None = None
    exception_message: str | None = None
    exception_traceback: str | None = None
    overlapped_task_ids: Sequence[str] = ()
    parent_run_id: uuid.UUID | None = None
    capture_id: uuid.UUID | None = None
    without_capture: Collection[str] | None = None
    """The names of the artifacts that the run has even if its capture has no slot for it.

    None for a run that needs no slot: none asked for it, or an older version gave it a permit when it started.
    """

    @property
    def needs_slot(self) -> bool:
        """Whether a slot of its capture is to be claimed before it counts as captured."""
        return self.capture_id is not None and self.without_capture is not None

    def as_running(self) -> RunRecord:
        """Returns: The record of the same run before its end."""
        identity = ("run_id", "task_id", "actor_name", "queue_name", "started_at", "hostname", "pid", "parent_run_id")
        values = {name: getattr(self, name) for name in (*identity, "capture_id", "without_capture")}
        return RunRecord(status=RunStatus.RUNNING, **values)

    def row(self) -> dict[str, Any]:
        """Returns: The columns. A capture is named once it has a slot."""
        columns = {name: value for name, value in vars(self).items() if name != "without_capture"}
        return {
            **columns,
            "capture_id": None if self.needs_slot else self.capture_id,
            "task_key": task_key(self.task_id),
            "overlapped_task_ids": [clean_text(task_id) for task_id in self.overlapped_task_ids],
        }


@dataclass(frozen=True, kw_only=True)
class ArtifactRecord:
    """An artifact on its way into the store."""

    name: str
    filename: str
    media_type: str
    stored_as: str | None
    status: ArtifactStatus
    reason: str | None = None
    open: Callable[[], BinaryIO] | None = None
    "Opens the file in the spool; None where there is no file."


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run with its artifacts, which are published together."""

    run: RunRecord
    artifacts: Sequence[ArtifactRecord]
    held_bytes: int = 0
    "The memory that its texts take until it is published, about."

    def without_its_capture(self) -> FinishedRun | None:
        """Returns: What is left where the capture has no slot for the run; None where that is nothing."""
        kept = self.run.without_capture
        if not kept:
            return None
        artifacts = [
            artifact
            if artifact.name in kept
            else replace(artifact, status=ArtifactStatus.DROPPED, reason=NO_SLOT, open=None)
            for artifact in self.artifacts
        ]
        return replace(self, artifacts=artifacts)


def artifact_id(run_id: uuid.UUID, name: str) -> uuid.UUID:
    """Returns: The id of an artifact: the same however often it is published."""
    return uuid.uuid5(run_id, name)
