"""Runs and artifacts as the JSON documents that HTTP and the command line give."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from sqlalchemy.orm import Session

from .models import LIVE_STATUSES, Artifact
from .records import RankedRun, RunFilter, artifacts_of, choose_run, list_runs, runs_of_task
from .signing import Signer

Document = dict[str, Any]


def run_document(ranked: RankedRun) -> Document:
    """Returns: RUN, as the README describes it."""
    run = ranked.run
    failed = run.exception_type is not None
    return {
        "run_id": str(run.run_id),
        "task_id": run.task_id,
        "actor_name": run.actor_name,
        "queue_name": run.queue_name,
        "attempt": ranked.attempt,
        "status": str(run.status),
        "started_at": timestamp(run.started_at),
        "finished_at": timestamp(run.finished_at),
        "duration_ms": run.duration_ms,
        "peak_rss_bytes": run.peak_rss_bytes,
        "hostname": run.hostname,
        "pid": run.pid,
        "exception": {"type": run.exception_type, "message": run.exception_message or ""} if failed else None,
        "overlapped_task_ids": list(run.overlapped_task_ids),
        "href": task_href(run.task_id),
    }


def artifact_document(artifact: Artifact) -> Document:
    """Returns: ARTIFACT, as the README describes it."""
    return {
        "artifact_id": str(artifact.artifact_id),
        "name": artifact.name,
        "status": str(artifact.status),
        "reason": artifact.reason,
        "filename": artifact.filename,
        "media_type": artifact.media_type,
        "stored_as": artifact.stored_as,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "expires_at": timestamp(artifact.expires_at),
    }


def runs_document(session: Session, wanted: RunFilter, limit: int, cursor: str | None) -> Document:
    """Returns: A page of runs, newest first. Raises: ValueError for a cursor that is not ours."""
    runs, following = list_runs(session, wanted, limit, cursor)
    return {"runs": [run_document(run) for run in runs], "next": following}


def task_document(session: Session, task_id: str) -> Document | None:
    """Returns: The runs of a task, first attempt first, or None for a task that nothing was collected for."""
    runs = runs_of_task(session, task_id)
    return {"task_id": task_id, "runs": [run_document(run) for run in runs]} if runs else None


def artifacts_document(
    session: Session, task_id: str, attempt: int | None, signer: Signer, base_url: str
) -> Document | None:
    """Returns: The artifacts of one run of a task with their URLs, or None where there is no such run."""
    chosen = choose_run(runs_of_task(session, task_id), attempt)
    if chosen is None:
        return None
    artifacts = artifacts_of(session, [chosen.run.run_id])[chosen.run.run_id]
    return {
        "urls": urls(artifacts, signer, base_url),
        "run": run_document(chosen),
        "artifacts": [artifact_document(artifact) for artifact in artifacts],
    }


def urls_of_runs(
    session: Session, run_ids: Sequence[uuid.UUID], signer: Signer, base_url: str
) -> Mapping[str, Document]:
    """Returns: Run id -> the `urls` of that run."""
    found = artifacts_of(session, run_ids)
    return {str(run_id): urls(artifacts, signer, base_url) for run_id, artifacts in found.items()}


def urls(artifacts: Sequence[Artifact], signer: Signer, base_url: str) -> Document:
    """Returns: Artifact name -> the signed URL of each that can be downloaded now."""
    return {
        artifact.name: base_url + signer.url_path(str(artifact.artifact_id), artifact.filename)
        for artifact in artifacts
        if artifact.status in LIVE_STATUSES
    }


def task_href(task_id: str) -> str:
    """Returns: The path of a task; `profile_artifacts/` goes behind it."""
    return f"/tasks/{quote(task_id, safe='', errors='replace')}/"


def timestamp(moment: datetime | None) -> str | None:
    """Returns: RFC 3339 in UTC with microseconds and a Z."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
