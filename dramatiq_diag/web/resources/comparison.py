"""Two runs compared, after the formats that the comparison needs have been rendered."""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from typing import BinaryIO

import falcon
from sqlalchemy.orm import Session

from ...reports.cache import format_of
from ...reports.comparison import PARTS, UNREADABLE, ComparedRun, ComparisonDocument, compare_runs
from ...reports.errors import RenderingInProgress
from ...statuses import DOWNLOADABLE_STATUSES
from ...store.models import Artifact
from ...store.runs import artifacts_of, find_run
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, PROGRESS, operation
from ..http.queries import CompareQuery
from ..pages.comparison import show_comparison
from .base import Resource
from .progress import answer_progress


class CompareResource(Resource):
    """Two runs compared."""

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
        give_up_at = time.monotonic() + self._backend.wait_s

        def open_format(artifact: Artifact, name: str) -> BinaryIO:
            return self._open(artifact, name, max(give_up_at - time.monotonic(), 0.0))

        try:
            comparison = compare_runs(a, b, open_format, self._backend.max_compared_bytes)
        except RenderingInProgress as progress:
            answer_progress(self._backend, req, resp, progress)
            return
        if wants_html(req):
            show_comparison(self._backend, req, resp, a, b, comparison)
        else:
            resp.media = comparison.document

    def _begin_all(self, *runs: ComparedRun) -> None:
        """Begins to render all formats, before the first of them is waited for."""
        for run in runs:
            for name, format_name in PARTS.values():
                artifact = run.artifacts.get(name)
                if artifact is not None and artifact.status in DOWNLOADABLE_STATUSES:
                    with suppress(RenderingInProgress, *UNREADABLE):  # The comparison gets the same error.
                        self._open(artifact, format_name, 0.0).close()

    def _open(self, artifact: Artifact, format_name: str, wait_s: float) -> BinaryIO:
        return self._backend.renderings.open(artifact, format_of(artifact, format_name), wait_s)


def _compared(session: Session, run_id: uuid.UUID) -> ComparedRun:
    run = find_run(session, run_id)
    if run is None:
        raise falcon.HTTPNotFound(description=f"There is no run {run_id}, or its record was removed long ago.")
    artifacts = artifacts_of(session, [run_id])[run_id]
    return ComparedRun(run=run, artifacts={artifact.name: artifact for artifact in artifacts})
