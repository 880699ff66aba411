"""The records that are published: a run, its artifacts, and both together."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, BinaryIO

from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, MemoryRole, RunStatus
from .values import clean_text, task_key

#: The reason of an artifact that only a capture asked for, if the capture has no slot for the run.
NO_SLOT = "Dropped: the capture that asked for it had all its runs, or was ended, before this run was counted."


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """The fields of a run that are known when it starts."""

    run_id: uuid.UUID
    task_id: str
    actor_name: str
    queue_name: str
    started_at: datetime
    queue_wait_ms: float | None = None
    hostname: str
    pid: int
    worker_id: uuid.UUID | None = None
    parent_run_id: uuid.UUID | None = None
    capture_id: uuid.UUID | None = None
    trace_id: str | None = None
    span_id: str | None = None
    release: str | None = None
    without_capture: Collection[str] | None = None
    """The names of the artifacts that the run has even if its capture has no slot for it.

    None for a run that needs no slot: none asked for it, or an older version gave it a permit when it started.
    """
    is_attached: bool = False
    "Whether an attachment was made to it: then its row stays, with or without a slot."


@dataclass(frozen=True, kw_only=True)
class RunRecord(StartedRun):
    """A run as it goes into its row."""

    status: RunStatus
    finished_at: datetime | None = None
    duration_ms: float | None = None
    collection_ms: float | None = None
    peak_rss_bytes: int | None = None
    cpu_ms: float | None = None
    run_queue_ms: float | None = None
    gc_ms: float | None = None
    throttled_ms: float | None = None
    touched_bytes: int | None = None
    major_faults: int | None = None
    memory_role: MemoryRole | None = None
    death_reason: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None
    exception_traceback: str | None = None
    overlapped_task_ids: Sequence[str] = ()

    @property
    def stays_without_slot(self) -> bool:
        """Whether anything of it is stored if its capture has no slot for it."""
        return bool(self.without_capture) or self.is_attached

    @property
    def needs_slot(self) -> bool:
        """Whether a slot of its capture is to be claimed before it counts as captured."""
        return self.capture_id is not None and self.without_capture is not None

    def as_running(self) -> RunRecord:
        """Returns: The record of the same run before its end."""
        known = {field.name: getattr(self, field.name) for field in fields(StartedRun)}
        return RunRecord(**known, status=RunStatus.RUNNING)

    def row(self) -> dict[str, Any]:
        """Returns: The columns. A capture is named once it has a slot."""
        columns = vars(self) | {
            "capture_id": None if self.needs_slot else self.capture_id,
            "task_key": task_key(self.task_id),
            "overlapped_task_ids": [clean_text(task_id) for task_id in self.overlapped_task_ids],
        }
        del columns["without_capture"], columns["is_attached"]
        return columns


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

    @property
    def opener(self) -> Callable[[], BinaryIO] | None:
        """Opens the file that is to be stored; None where none is."""
        return self.open if self.status in DOWNLOADABLE_STATUSES else None

    def row(self, run_id: uuid.UUID, attachment_id: uuid.UUID | None = None) -> dict[str, Any]:
        """Returns: The columns of an artifact without a blob."""
        blob = dict.fromkeys(("blob_name", "size_bytes", "sha256", "expires_at"))
        key = artifact_id(attachment_id or run_id, self.name)
        columns = vars(self) | blob | {"artifact_id": key, "run_id": run_id, "attachment_id": attachment_id}
        del columns["open"]
        return columns


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """A finished run with its artifacts, which are published together; or an attachment with its own."""

    run: RunRecord
    "The run; as one that goes on, where these are the artifacts of an attachment."
    artifacts: Sequence[ArtifactRecord]
    held_bytes: int = 0
    "About how much memory its texts take until it is published."
    attachment_id: uuid.UUID | None = None
    "The attachment that the artifacts are of; None for those of the run itself."
    is_cut_short: bool = False
    "Whether its entry has no end: its worker seems to have died. It never takes the place of what is published."

    def without_its_capture(self) -> FinishedRun | None:
        """Returns: The run with only what it has without a slot of its capture; None if it has nothing then."""
        if self.attachment_id is not None:
            return self
        kept = self.run.without_capture or ()
        if not self.run.stays_without_slot:
            return None
        artifacts = [
            artifact
            if artifact.name in kept
            else replace(artifact, status=ArtifactStatus.DROPPED, reason=NO_SLOT, open=None)
            for artifact in self.artifacts
        ]
        return replace(self, artifacts=artifacts)


def artifact_id(owner_id: uuid.UUID, name: str) -> uuid.UUID:
    """Returns: The id of an artifact of a run or an attachment: the same however often it is published."""
    return uuid.uuid5(owner_id, name)
