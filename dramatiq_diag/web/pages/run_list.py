"""The page of a list of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import falcon
from sqlalchemy.orm import Session

from ...documents.run_figures import figures_of_list
from ...statuses import RunStatus
from ...store.attempts import Attempt
from ...store.runs import Sort, list_runs
from ..backend import Backend
from ..http.queries import RunsQuery
from .sparklines import sparklines

#: The most runs shown as running now.
_MAX_RUNNING = 20

#: Parameter -> its label as an active filter.
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
    "trace_id": "Trace",
    "stuck": "Stuck",
}


@dataclass(frozen=True, kw_only=True)
class RunList:
    """The rows of the page of a list of runs."""

    running: Sequence[Attempt]
    "The runs shown on top as running now."
    runs: Sequence[Attempt]
    "The others of this page of the list."
    next: str | None


def read_run_list(session: Session, query: RunsQuery) -> RunList:
    """Reads the rows for the page. Raises: ValueError for a cursor of another list or order."""
    runs, following = list_runs(session, query.wanted, query.limit, query.cursor, query.sort)
    running: list[Attempt] = []
    if query.cursor is None and query.status is None and query.stuck is None:
        running, _ = list_runs(session, replace(query.wanted, status=RunStatus.RUNNING), _MAX_RUNNING)
    on_top = {run.run_id for run in running}
    shown = [run for run in runs if run.run_id not in on_top]
    return RunList(running=running, runs=shown, next=following)


def show_run_list(
    backend: Backend, req: falcon.Request, resp: falcon.Response, query: RunsQuery, view: RunList
) -> None:
    """Answers with the page: the runs that are running now on top, then the requested runs."""
    given = {name: req.get_param(name) or "" for name in type(query).model_fields}
    backend.show(
        req,
        resp,
        "runs.html",
        query=query,
        given=given,
        chips=[(name, f"{label}: {given[name]}") for name, label in _LABELS.items() if given[name]],
        statuses=list(RunStatus),
        sorts=list(Sort),
        figures=figures_of_list(query.sort),
        **vars(view),
        sparklines=sparklines(view.runs),
    )
