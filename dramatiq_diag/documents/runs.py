"""Makes the JSON documents of runs and artifacts, for HTTP and the command line."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import NotRequired

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from ..store.attempts import Attempt, list_attempts
from ..store.models import Artifact
from ..store.runs import RunFilter, Sort, artifacts_of, children_of, list_runs, parent_of, traceback_of
from .fields import HrefText, Timestamp, UuidText, described, document_of, task_href
from .signing import Signer


@described
class ExceptionDocument(TypedDict):
    """What a run raised."""

    type: str
    message: str


@described
class RunDocument(TypedDict):
    """A run: one attempt to execute a task."""

    run_id: UuidText
    task_id: str
    actor_name: str
    queue_name: str
    attempt: int
    "The rank of the run among the task's runs by start, from 1."
    status: RunStatus
    started_at: Timestamp
    finished_at: Timestamp | None
    duration_ms: float | None
    "The time of the actor's function alone, in milliseconds: `finished_at` less `started_at`."
    collection_ms: float | None
    "What the collectors took of the task's thread besides, before the function and after it, in milliseconds."
    peak_rss_bytes: int | None
    "The largest RSS of the process while the task ran, in bytes."
    hostname: str
    pid: int
    exception: ExceptionDocument | None
    overlapped_task_ids: list[str]
    "Tasks that the same process ran meanwhile."
    pinned: bool
    "Whether the cleanup leaves it alone."
    parent_run_id: UuidText | None
    "The run that sent the task, where that was diagnosed as well; its own row may be gone."
    href: HrefText
    "The path of the task."


@described
class ArtifactDocument(TypedDict):
    """An artifact: what one collector left of one run."""

    artifact_id: UuidText
    name: str
    status: ArtifactStatus
    reason: str | None
    "In words; null where the status is `stored`."
    filename: str
    media_type: str
    stored_as: str | None
    "The stored form's name, where the download is rendered from a smaller one."
    size_bytes: int | None
    "The size of the stored form in bytes."
    sha256: str | None
    expires_at: Timestamp | None
    "When the cleanup may remove it; null where there is nothing to remove, or the run is pinned."


@described
class RunsDocument(TypedDict):
    """A page of runs."""

    runs: list[RunDocument]
    next: str | None
    "The `cursor` of the next page; null on the last one."


@described
class TaskDocument(TypedDict):
    """A page of a task's runs, first attempt first."""

    task_id: str
    runs: list[RunDocument]
    next: NotRequired[str]
    "The `cursor` of the next page; absent on the last one."


@described
class ArtifactsDocument(TypedDict):
    """One run with its artifacts."""

    urls: dict[str, str]
    "Artifact name -> the signed URL of each that can be downloaded now."
    run: RunDocument
    traceback: str | None
    "Of the exception, where there was one."
    artifacts: list[ArtifactDocument]
    parent: RunDocument | None
    "The run that sent the task, where that is known and its row is still there."
    children: list[RunDocument]
    "The diagnosed runs of the tasks that it sent, by start; at most 100."


def run_document(run: Attempt) -> RunDocument:
    """Returns: RUN, as docs/http.md describes it."""
    exception: ExceptionDocument | None = None
    if run.exception_type is not None:
        exception = {"type": run.exception_type, "message": run.exception_message or ""}
    return document_of(
        RunDocument, run, exception=exception, pinned=run.pinned_at is not None, href=task_href(run.task_id)
    )


def absence(name: str, status: str, which: str = "this run") -> str:
    """Returns: Why a run of this status has no artifact of that name, as a sentence."""
    if status == RunStatus.RUNNING:
        return f"{name} is not there yet: {which} goes on, and what is collected of it appears when it has ended."
    return f"{name} was not collected for {which}."


def artifact_document(artifact: Artifact) -> ArtifactDocument:
    """Returns: ARTIFACT, as docs/http.md describes it."""
    return document_of(ArtifactDocument, artifact)


def runs_document(
    session: Session, wanted: RunFilter, limit: int, cursor: str | None, sort: Sort = Sort.NEWEST
) -> RunsDocument:
    """Returns: A page of runs. Raises: ValueError for a cursor that is not ours, or of another order."""
    runs, following = list_runs(session, wanted, limit, cursor, sort)
    return {"runs": [run_document(run) for run in runs], "next": following}


def task_document(session: Session, task_id: str, limit: int, cursor: str | None = None) -> TaskDocument | None:
    """Returns: A page of a task's runs, first attempt first; None for a task that nothing was collected for.

    Raises:
      ValueError: When the cursor is not one of ours.
    """
    runs, following = list_attempts(session, task_id, limit, cursor)
    if not runs and cursor is None:
        return None
    document: TaskDocument = {"task_id": task_id, "runs": [run_document(run) for run in runs]}
    if following is not None:
        document["next"] = following
    return document


def artifacts_document(session: Session, chosen: Attempt, signer: Signer, base_url: str) -> ArtifactsDocument:
    """Returns: The artifacts of one run with their URLs."""
    artifacts = artifacts_of(session, [chosen.run_id])[chosen.run_id]
    parent = parent_of(session, chosen)
    return {
        "urls": urls(artifacts, signer, base_url),
        "run": run_document(chosen),
        "traceback": traceback_of(session, chosen.run_id),
        "artifacts": [artifact_document(artifact) for artifact in artifacts],
        "parent": None if parent is None else run_document(parent),
        "children": [run_document(child) for child in children_of(session, chosen.run_id)],
    }


def urls_of_runs(
    session: Session, run_ids: Sequence[uuid.UUID], signer: Signer, base_url: str
) -> Mapping[str, dict[str, str]]:
    """Returns: Run id -> the `urls` of that run."""
    found = artifacts_of(session, run_ids)
    return {str(run_id): urls(artifacts, signer, base_url) for run_id, artifacts in found.items()}


def urls(artifacts: Sequence[Artifact], signer: Signer, base_url: str) -> dict[str, str]:
    """Returns: Artifact name -> the signed URL of each that can be downloaded now."""
    return {
        artifact.name: base_url + signer.url_path(str(artifact.artifact_id), artifact.filename)
        for artifact in artifacts
        if artifact.status in DOWNLOADABLE_STATUSES
    }
