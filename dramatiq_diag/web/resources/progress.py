"""Answers 202 while a report is rendered."""

from __future__ import annotations

import falcon

from ...reports.errors import RenderingInProgress
from ..backend import Backend
from ..http.documents import ProgressDocument
from ..http.negotiation import wants_html

#: Seconds after which to ask again.
_RETRY_AFTER_S = "1"


def answer_progress(
    backend: Backend, req: falcon.Request, resp: falcon.Response, progress: RenderingInProgress
) -> None:
    """Answers with a document, or with a page that reloads itself."""
    resp.status = falcon.HTTP_202
    resp.set_header("Retry-After", _RETRY_AFTER_S)
    document: ProgressDocument = {
        "status": "waiting" if progress.waiting else "rendering",
        "elapsed_s": round(progress.elapsed_s, 1),
        "limit_s": progress.limit_s,
    }
    if wants_html(req):
        resp.set_header("Refresh", _RETRY_AFTER_S)
        backend.show(req, resp, "progress.html", progress=document)
    else:
        resp.media = document
