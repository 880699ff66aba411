"""The page of one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import falcon
from sqlalchemy.orm import Session

from ...documents.artifacts import urls
from ...errors import BlobMissingError, StoreUnavailableError
from ...reports.accounting import EXPLANATIONS, Account, read_account
from ...reports.errors import ReportError
from ...reports.memray import VIEWS
from ...statuses import DOWNLOADABLE_STATUSES, MemoryRole, RunStatus
from ...store.attachments import AttachmentStanding, attachments_of
from ...store.attempts import Attempt, attempts_around, count_attempts
from ...store.models import Artifact
from ...store.reasons import shared_reason
from ...store.runs import RunFilter, all_artifacts_of, children_of, list_runs, overlapping_runs, parent_of, traceback_of
from ..backend import Backend
from .attach import attach_values
from .live import read_live

#: The attempts before and after the shown one that have a link each; besides, the first and the last have one.
_ATTEMPTS_AROUND = 5

#: The most bytes of a log that the page shows.
_MAX_LOG_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True)
class RunView:
    """The rows that the page of a run shows."""

    run: Attempt
    traceback: str | None
    artifacts: Sequence[Artifact]
    "Its own."
    attached: Sequence[Artifact]
    "Those of all its attachments."
    attempts: Sequence[Attempt]
    "The shown one, and those around it."
    attempt_count: int
    overlapping_runs: Sequence[Attempt]
    parent: Attempt | None
    children: Sequence[Attempt]
    attachments: Sequence[AttachmentStanding]
    run_before: Attempt | None
    "The previous run of the same actor, if it has ended."


def read_run_view(session: Session, run: Attempt) -> RunView:
    """Reads the rows for the page of a run."""
    artifacts = all_artifacts_of(session, run.run_id)
    before, _ = list_runs(session, RunFilter(actor_name=run.actor_name, started_before=run.started_at), 1)
    return RunView(
        run=run,
        traceback=traceback_of(session, run),
        artifacts=[artifact for artifact in artifacts if artifact.attachment_id is None],
        attached=[artifact for artifact in artifacts if artifact.attachment_id is not None],
        attempts=attempts_around(session, run.task_id, run.attempt, _ATTEMPTS_AROUND),
        attempt_count=count_attempts(session, run.task_id),
        overlapping_runs=overlapping_runs(session, run),
        parent=parent_of(session, run),
        children=children_of(session, run.run_id),
        attachments=attachments_of(session, run.run_id),
        run_before=next((other for other in before if other.status != RunStatus.RUNNING), None),
    )


def show_run(backend: Backend, req: falcon.Request, resp: falcon.Response, view: RunView) -> None:
    """Answers with the page: what happened, and each artifact as a picture or as the reason why there is none."""
    run = view.run
    is_running = run.status == RunStatus.RUNNING
    others = {artifact.name: artifact for artifact in view.artifacts}
    backend.show(
        req,
        resp,
        "run.html",
        **vars(view),
        **(read_live(backend, run.task_id, run.attempt) if is_running else {"live": None}),
        memory=others.pop("memory_profile", None),
        profile=others.pop("pyinstrument_profile", None),
        allocations=others.pop("memray_profile", None),
        accounting=others.pop("time_accounting", None),
        account=_account(backend, view.artifacts),
        explanations=EXPLANATIONS,
        others=others,
        files=_files(backend, req, view),
        has_files=any(artifact.status in DOWNLOADABLE_STATUSES for artifact in (*view.artifacts, *view.attached)),
        interruption=shared_reason(run.status, (artifact.reason for artifact in view.artifacts)),
        died_together=_died_together(run, view.overlapping_runs),
        memray_views=VIEWS,
        logs=_logs(backend, view.artifacts),
        bands=_bands(run, view.overlapping_runs),
        blobs_fault=backend.blobs_fault(),
        live_statuses=DOWNLOADABLE_STATUSES,
        trace_url=backend.settings.url_of_trace(run.trace_id),
        token=backend.signer.action_token(str(run.run_id)),
        attachment_urls={
            standing.attachment_id: urls(standing.artifacts, backend.signer, backend.base_url(req))
            for standing in view.attachments
        },
        **attach_values(backend, run.task_id),
    )


def _files(backend: Backend, req: falcon.Request, view: RunView) -> list[tuple[Artifact, str | None]]:
    """Returns: The artifacts that the table of the files has, each with its URL if it can be downloaded.

    Those of an attachment stand with the attachment, unless that is not shown any more.
    """
    shown = {standing.attachment_id for standing in view.attachments}
    listed = [*view.artifacts, *(artifact for artifact in view.attached if artifact.attachment_id not in shown)]
    base_url = backend.base_url(req)
    return [(artifact, urls([artifact], backend.signer, base_url).get(artifact.name)) for artifact in listed]


def _died_together(run: Attempt, others: Sequence[Attempt]) -> list[Attempt]:
    """Returns: The runs that the death of the same process for lack of memory ended, those that grew it first."""
    found = [other for other in others if other.memory_role is not None and run.memory_role is not None]
    return sorted(found, key=lambda other: (other.memory_role != MemoryRole.GROWER, other.started_at))


def _bands(run: Attempt, others: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Returns: The times of the other tasks of the process, in seconds since the start of this one."""
    if run.finished_at is None:
        return []

    def seconds(moment: datetime) -> float:
        return (moment - run.started_at).total_seconds()

    return [
        {
            "start_s": max(seconds(other.started_at), 0.0),
            "end_s": seconds(min(other.finished_at or run.finished_at, run.finished_at)),
            "label": f"{other.actor_name} {other.task_id}",
        }
        for other in others
    ]


def _account(backend: Backend, artifacts: Sequence[Artifact]) -> Account | None:
    """Returns: Where the time went; None if that cannot be read."""
    for artifact in artifacts:
        if artifact.name == "time_accounting" and artifact.blob_name and artifact.status in DOWNLOADABLE_STATUSES:
            unreadable = suppress(BlobMissingError, StoreUnavailableError, ReportError)
            with unreadable, backend.blobs.open(artifact.blob_name) as file:
                return read_account(file)
    return None


def _logs(backend: Backend, artifacts: Sequence[Artifact]) -> dict[str, str]:
    """Returns: Name of each artifact that is a text to read -> the end of the text."""
    logs = {}
    for artifact in artifacts:
        if artifact.media_type != "text/plain" or artifact.name == "memory_profile" or not artifact.blob_name:
            continue
        if artifact.status in DOWNLOADABLE_STATUSES:
            with suppress(BlobMissingError, StoreUnavailableError), backend.blobs.open(artifact.blob_name) as file:
                skipped_bytes = max(file.seek(0, os.SEEK_END) - _MAX_LOG_BYTES, 0)
                file.seek(skipped_bytes)
                text = file.read(_MAX_LOG_BYTES).decode("utf-8", "replace")
                note = f"(the first {skipped_bytes} bytes are in the file)\n" if skipped_bytes else ""
                logs[artifact.name] = note + text
    return logs
