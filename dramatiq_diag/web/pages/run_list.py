"""The page of a list of runs."""

from __future__ import annotations

import falcon
from sqlalchemy.orm import Session

from ...documents.runs import RunsDocument, runs_document
from ...statuses import RunStatus
from ...store.runs import RunFilter, Sort
from ..backend import Backend
from ..http.queries import RunsQuery
from .sparklines import HEIGHT, WIDTH, sparklines

#: The most runs shown as running now.
_MAX_RUNNING = 20


#: Parameter -> how a filter that is in use is called.
_LABELS = {
    "actor": "Actor",
    "queue": "Queue",
    "status": "Status",
    "task_id": "Task id",
    "since": "Since",
    "until": "Until",
    "min_duration_s": "Seconds, at least",
    "max_duration_s": "Seconds, at most",
    "min_peak_rss_mib": "Peak RSS in MiB, at least",
    "capture": "Capture",
}


def show_runs(
    backend: Backend,
    session: Session,
    req: falcon.Request,
    resp: falcon.Response,
    query: RunsQuery,
    document: RunsDocument,
) -> None:
    """Answers with the page: what is running now on top, then the runs that were asked for."""
    running = []
    if query.cursor is None and query.status is None:
        now = RunFilter(
            actor_name=query.actor, queue_name=query.queue, status=RunStatus.RUNNING, capture_id=query.capture
        )
        running = runs_document(session, now, _MAX_RUNNING, None)["runs"]
    shown = [run for run in document["runs"] if run["status"] != RunStatus.RUNNING or not running]
    backend.pages.show(
        req,
        resp,
        "runs.html",
        backend.mount(req),
        query=query,
        given={name: req.get_param(name) or "" for name in type(query).model_fields},
        chips=_chips(req),
        statuses=list(RunStatus),
        sorts=list(Sort),
        running=running,
        runs=shown,
        next=document["next"],
        sparklines=sparklines(backend, session, [run["run_id"] for run in shown]),
        sparkline_size=(WIDTH, HEIGHT),
    )


def _chips(req: falcon.Request) -> list[dict[str, str]]:
    """Returns: The filters in use: name of the parameter, and a text."""
    return [
        {"name": name, "text": f"{label}: {value}"} for name, label in _LABELS.items() if (value := req.get_param(name))
    ]
