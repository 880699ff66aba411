"""Makes the JSON documents of runs and artifacts, for HTTP and the command line."""

from __future__ import annotations

from typing import NotRequired

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..statuses import MemoryRole, RunStatus
from ..store.attachments import attachments_of
from ..store.attempts import Attempt, list_attempts
from ..store.models import TaskRun
from ..store.runs import RunFilter, Sort, artifacts_of, children_of, list_runs, parent_of, traceback_of
from .artifacts import ArtifactDocument, artifact_document, urls
from .attachments import AttachmentDocument, attachment_document
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
    "Null while it goes on, and of an interrupted run of which nothing was published: how it ended is not known."
    duration_ms: float | None
    "The time of the actor's function alone, in milliseconds: `finished_at` less `started_at`."
    collection_ms: float | None
    "What the collectors took of the task's thread besides, before the function and after it, in milliseconds."
    queue_wait_ms: float | None
    "From the moment when the message was due until a worker took it up, in milliseconds; null where unknown."
    peak_rss_bytes: int | None
    "The largest RSS of the process while the task ran, in bytes."
    cpu_ms: float | None
    "The CPU time of the task's own thread, or of the steps of its coroutine, in milliseconds; null where unknown."
    run_queue_ms: float | None
    "For how long its thread could run and had no processor, in milliseconds; null where unknown."
    gc_ms: float | None
    "The time of Python's garbage collector on its thread, a part of `cpu_ms`; null where unknown."
    throttled_ms: float | None
    "For how long the kernel kept the container from its processors meanwhile; null without such a limit."
    touched_bytes: int | None
    "The memory that its thread touched first, in bytes; null where unknown. It does not say who keeps it."
    major_faults: int | None
    "The page faults of its thread that had to wait for a disk; null where unknown."
    memory_role: MemoryRole | None
    "Whether it grew the process that was killed for its memory, or was a victim; null where that is not known."
    death_reason: str | None
    "What is known of the death of its process, in sentences; null for a run that ended."
    hostname: str
    pid: int
    worker_id: UuidText | None
    "The worker process, as GET /workers/ names it; null where unknown."
    exception: ExceptionDocument | None
    overlapped_task_ids: list[str]
    "Tasks that the same process ran meanwhile."
    is_stuck: bool
    "Whether it runs and has lasted much longer than its actor usually takes."
    pinned: bool
    "Whether the cleanup leaves it alone."
    parent_run_id: UuidText | None
    "The run that sent the task, where that was diagnosed as well; its own row may be gone."
    trace_id: str | None
    "The trace that it is part of, in 32 hexadecimal digits; null where unknown."
    span_id: str | None
    "Its own span in that trace, or where it has none its sender's, in 16 hexadecimal digits."
    release: str | None
    "The release of the application; null where unknown."
    href: HrefText
    "The path of the task."


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
    attachments: list[AttachmentDocument]
    "What was attached to the run while it ran, the newest first; at most 50."
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
        RunDocument,
        run,
        exception=exception,
        is_stuck=bool(run.is_stuck),
        pinned=run.pinned_at is not None,
        href=task_href(run.task_id),
    )


def absence(name: str, run: TaskRun, which: str = "this run") -> str:
    """Returns: Why a run has no artifact of that name, as a sentence."""
    if run.status == RunStatus.RUNNING:
        return f"{name} is not there yet: {which} goes on. If it is collected, it appears when the run has ended."
    if run.finished_at is None:
        return f"Whether {name} was collected is not known: nothing of {which} was published."
    return f"{name} was not collected for {which}."


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
        "traceback": traceback_of(session, chosen),
        "artifacts": [artifact_document(artifact) for artifact in artifacts],
        "attachments": [
            attachment_document(standing, signer, base_url) for standing in attachments_of(session, chosen.run_id)
        ],
        "parent": None if parent is None else run_document(parent),
        "children": [run_document(child) for child in children_of(session, chosen.run_id)],
    }
