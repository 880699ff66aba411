"""Two runs compared, once what is needed of both is rendered."""

from __future__ import annotations

import time
import uuid
from typing import BinaryIO

import falcon
from sqlalchemy.orm import Session

from ...documents.runs import run_document
from ...reports.cache import format_of
from ...reports.charts import Spec, flame_chart, memory_chart
from ...reports.comparison import PARTS, UNREADABLE, ComparedRun, Comparison, ComparisonDocument, compare_runs
from ...reports.queue import RenderingInProgress
from ...reports.tree_diff import difference_boxes
from ...statuses import DOWNLOADABLE_STATUSES
from ...store.models import Artifact
from ...store.runs import artifacts_of, find_run
from ..backend import Backend
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, PROGRESS, operation
from ..http.queries import CompareQuery
from .progress import answer_progress

#: Seconds that a request waits for what is rendered before it is told how far that is.
_WAIT_S = 2.0


class CompareResource:
    """Two runs side by side."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @operation(
        "get",
        "/compare/",
        query=CompareQuery,
        answers={200: ComparisonDocument, 202: PROGRESS, 400: PROBLEM, 404: PROBLEM},
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Compare two runs: their memory, and which functions took more time or held more memory."""
        query = CompareQuery.read(req)
        with self._backend.session() as session:
            a, b = _compared(session, query.a), _compared(session, query.b)
        self._begin_all(a, b)
        give_up_at = time.monotonic() + _WAIT_S
        try:
            comparison = compare_runs(
                a, b, lambda artifact, form: self._open(artifact, form, max(give_up_at - time.monotonic(), 0.0))
            )
        except RenderingInProgress as progress:
            answer_progress(self._backend, req, resp, progress)
            return
        if wants_html(req):
            self._show(req, resp, comparison)
        else:
            resp.media = comparison.document

    on_head = on_get

    def _begin_all(self, *runs: ComparedRun) -> None:
        """Has everything rendered that is needed, before the first of it is waited for."""
        for run in runs:
            for name, form in PARTS.values():
                artifact = run.artifacts.get(name)
                if artifact is not None and artifact.status in DOWNLOADABLE_STATUSES:
                    try:
                        self._open(artifact, form, 0.0).close()
                    except (RenderingInProgress, *UNREADABLE):  # The second look tells.
                        continue

    def _open(self, artifact: Artifact, form: str, wait_s: float) -> BinaryIO:
        return self._backend.renderings.open(artifact, format_of(artifact, form), wait_s)

    def _show(self, req: falcon.Request, resp: falcon.Response, comparison: Comparison) -> None:
        document = comparison.document
        memory = document["memory"]
        curves = [(which, samples) for which, samples in (("A", memory["a"]), ("B", memory["b"])) if samples]
        self._backend.pages.show(
            req,
            resp,
            "compare.html",
            self._backend.mount(req),
            **document,
            charts={part: _flames(comparison, part) for part in ("time", "allocations")},
            memory_chart=memory_chart(curves),
        )


def _compared(session: Session, run_id: uuid.UUID) -> ComparedRun:
    run = find_run(session, run_id)
    if run is None:
        raise falcon.HTTPNotFound(description=f"There is no run {run_id}, or its record was removed long ago.")
    artifacts = artifacts_of(session, [run_id])[run_id]
    return ComparedRun(run=run_document(run), artifacts={artifact.name: artifact for artifact in artifacts})


def _flames(comparison: Comparison, part: str) -> Spec | None:
    if part not in comparison.trees:
        return None
    a, b = comparison.trees[part]
    return flame_chart(difference_boxes(a["tree"], b["tree"]), a["unit"])
