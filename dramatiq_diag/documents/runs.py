"""Runs and artifacts as the JSON documents that HTTP and the command line give."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NotRequired
from urllib.parse import quote

from pydantic import ConfigDict, Field, with_config
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from ..store.attempts import Attempt, list_attempts
from ..store.models import Artifact
from ..store.runs import RunFilter, Sort, artifacts_of, children_of, list_runs, parent_of, traceback_of
from .signing import Signer

Document = dict[str, Any]

#: RFC 3339 in UTC with microseconds and a Z.
Timestamp = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
UuidText = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
#: What the server needs.
Part = Literal["database", "blobs"]
described = with_config(ConfigDict(use_attribute_docstrings=True))


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
    href: str
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


@described
class HealthDocument(TypedDict):
    """The server answers."""

    status: Literal["ok"]


@described
class ReadyDocument(TypedDict):
    """Whether what the server needs answers."""

    status: Literal["ok", "unavailable"]
    failing: list[Part]
    "What does not answer; empty where the status is `ok`."


@described
class ProgressDocument(TypedDict):
    """How far a rendering is; ask again after a second."""

    status: Literal["waiting", "rendering"]
    elapsed_s: float
    "Seconds since it was asked for."
    limit_s: float
    "Seconds after which it is given up."


@described
class ProblemDocument(TypedDict):
    """What went wrong, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: NotRequired[str]


def run_document(run: Attempt) -> RunDocument:
    """Returns: RUN, as the README describes it."""
    exception: ExceptionDocument | None = None
    if run.exception_type is not None:
        exception = {"type": run.exception_type, "message": run.exception_message or ""}
    return {
        "run_id": str(run.run_id),
        "task_id": run.task_id,
        "actor_name": run.actor_name,
        "queue_name": run.queue_name,
        "attempt": run.attempt,
        "status": RunStatus(run.status),
        "started_at": timestamp(run.started_at),
        "finished_at": None if run.finished_at is None else timestamp(run.finished_at),
        "duration_ms": run.duration_ms,
        "collection_ms": run.collection_ms,
        "peak_rss_bytes": run.peak_rss_bytes,
        "hostname": run.hostname,
        "pid": run.pid,
        "exception": exception,
        "overlapped_task_ids": list(run.overlapped_task_ids),
        "pinned": run.pinned_at is not None,
        "parent_run_id": None if run.parent_run_id is None else str(run.parent_run_id),
        "href": Href(task_href(run.task_id)),
    }


def absence(name: str, status: str, which: str = "this run") -> str:
    """Returns: Why a run of this status has no artifact of that name, as a sentence."""
    if status == RunStatus.RUNNING:
        return f"{name} is not there yet: {which} goes on, and what is collected of it appears when it has ended."
    return f"{name} was not collected for {which}."


def artifact_document(artifact: Artifact) -> ArtifactDocument:
    """Returns: ARTIFACT, as the README describes it."""
    return {
        "artifact_id": str(artifact.artifact_id),
        "name": artifact.name,
        "status": ArtifactStatus(artifact.status),
        "reason": artifact.reason,
        "filename": artifact.filename,
        "media_type": artifact.media_type,
        "stored_as": artifact.stored_as,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "expires_at": None if artifact.expires_at is None else timestamp(artifact.expires_at),
    }


def runs_document(
    session: Session, wanted: RunFilter, limit: int, cursor: str | None, sort: Sort = Sort.NEWEST
) -> RunsDocument:
    """Returns: A page of runs. Raises: ValueError for a cursor that is not ours, or of another order."""
    runs, following = list_runs(session, wanted, limit, cursor, sort)
    return {"runs": [run_document(run) for run in runs], "next": following}


def task_document(session: Session, task_id: str, limit: int, cursor: str | None = None) -> TaskDocument | None:
    """Reads a page of a task's runs, first attempt first.

    Returns:
      The page, or None for a task that nothing was collected for.

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


class Href(str):
    """A path in a document, as it is where the web part is not mounted below another path."""

    __slots__ = ()


def actor_href(actor_name: str) -> str:
    """Returns: The path of an actor."""
    return f"/actors/{quote(actor_name, safe='', errors='replace')}/"


def task_href(task_id: str) -> str:
    """Returns: The path of a task; `profile_artifacts/` goes behind it."""
    return f"/tasks/{quote(task_id, safe='', errors='replace')}/"


def mounted(document: Any, mount: str) -> Any:
    """Returns: A document in which every path begins with the one that the web part is mounted at."""
    if isinstance(document, Href):
        return mount + document
    if isinstance(document, dict):
        return {name: mounted(value, mount) for name, value in document.items()}
    if isinstance(document, list):
        return [mounted(value, mount) for value in document]
    return document


def timestamp(moment: datetime) -> str:
    """Returns: RFC 3339 in UTC with microseconds and a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
