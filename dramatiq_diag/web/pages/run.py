"""The page of one run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import falcon
from sqlalchemy.orm import Session

from ...documents.runs import ArtifactsDocument, RunDocument, run_document, runs_document
from ...errors import BlobMissingError, StoreUnavailableError
from ...reports.memray import VIEWS
from ...statuses import DOWNLOADABLE_STATUSES, RunStatus
from ...store.attempts import Attempt, attempts_around, count_attempts
from ...store.models import Artifact
from ...store.reasons import shared_reason
from ...store.runs import RunFilter, artifacts_of, overlapping_runs
from ..backend import Backend

#: So many attempts before and after the shown one have a link each; of the others the first and the last.
_ATTEMPTS_AROUND = 5

#: The most bytes of a log that its page shows; the file has all.
_MAX_LOG_BYTES = 64 * 1024


def show_run(
    backend: Backend,
    session: Session,
    req: falcon.Request,
    resp: falcon.Response,
    chosen: Attempt,
    document: ArtifactsDocument,
) -> None:
    """Answers with the page: what happened, and a picture of each artifact or the reason why there is none."""
    run = document["run"]
    run_id = uuid.UUID(run["run_id"])
    around = attempts_around(session, run["task_id"], run["attempt"], _ATTEMPTS_AROUND)
    overlapping = [run_document(other) for other in overlapping_runs(session, chosen)]
    artifacts = {artifact["name"]: artifact for artifact in document["artifacts"]}
    backend.pages.show(
        req,
        resp,
        "run.html",
        backend.mount(req),
        run=run,
        interruption=shared_reason(run["status"], (artifact["reason"] for artifact in document["artifacts"])),
        attempts=[run_document(attempt) for attempt in around],
        attempt_count=count_attempts(session, run["task_id"]),
        traceback=document["traceback"],
        artifacts=document["artifacts"],
        memory=artifacts.pop("memory_profile", None),
        profile=artifacts.pop("pyinstrument_profile", None),
        capture=artifacts.pop("memray_profile", None),
        capture_views=VIEWS,
        others=artifacts,
        logs=_logs(backend, artifacts_of(session, [run_id])[run_id]),
        urls=document["urls"],
        blobs_fault=backend.blobs_fault(),
        live_statuses=DOWNLOADABLE_STATUSES,
        overlapping_runs=overlapping,
        parent=document["parent"],
        children=document["children"],
        bands=_bands(run, overlapping),
        run_before=_run_before(session, run),
        token=backend.signer.action_token(run["run_id"]),
    )


def _bands(run: RunDocument, overlapping: list[RunDocument]) -> list[dict[str, Any]]:
    """Returns: When the other tasks of the process ran, in seconds since this one's start."""
    if run["finished_at"] is None:
        return []
    end_s = _seconds(run, run["finished_at"])
    return [
        {
            "start_s": max(_seconds(run, other["started_at"]), 0.0),
            "end_s": min(_seconds(run, other["finished_at"]) if other["finished_at"] else end_s, end_s),
            "label": f"{other['actor_name']} {other['task_id']}",
        }
        for other in overlapping
    ]


def _seconds(run: RunDocument, timestamp: str) -> float:
    return (datetime.fromisoformat(timestamp) - datetime.fromisoformat(run["started_at"])).total_seconds()


def _run_before(session: Session, run: RunDocument) -> RunDocument | None:
    """Returns: The run of the same actor that started before, if it has ended."""
    wanted = RunFilter(actor_name=run["actor_name"], started_before=datetime.fromisoformat(run["started_at"]))
    found = runs_document(session, wanted, 1, None)["runs"]
    return next((other for other in found if other["status"] != RunStatus.RUNNING), None)


def _logs(backend: Backend, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Returns: Name of each artifact that is text to be read -> its end."""
    logs = {}
    for artifact in artifacts:
        if artifact.media_type != "text/plain" or artifact.name == "memory_profile" or not artifact.blob_name:
            continue
        if artifact.status in DOWNLOADABLE_STATUSES:
            with suppress(BlobMissingError, StoreUnavailableError), backend.blobs.open(artifact.blob_name) as file:
                skipped_bytes = max(file.seek(0, os.SEEK_END) - _MAX_LOG_BYTES, 0)
                file.seek(skipped_bytes)
                text = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
                logs[artifact.name] = (
                    f"(the first {skipped_bytes} bytes are in the file)\n{text}" if skipped_bytes else text
                )
    return logs
