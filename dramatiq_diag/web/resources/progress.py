"""How far a rendering is, for whoever waits for it."""

from __future__ import annotations

import falcon

from ...reports.queue import RenderingInProgress
from ..backend import Backend
from ..http.documents import ProgressDocument
from ..http.negotiation import wants_html

#: Seconds after which to ask again.
_AGAIN_AFTER_S = 1


def answer_progress(
    backend: Backend, req: falcon.Request, resp: falcon.Response, progress: RenderingInProgress
) -> None:
    """Answers 202: a page that asks again by itself, or a document."""
    resp.status = falcon.HTTP_202
    resp.set_header("Retry-After", str(_AGAIN_AFTER_S))
    document: ProgressDocument = {
        "status": "waiting" if progress.waiting else "rendering",
        "elapsed_s": round(progress.elapsed_s, 1),
        "limit_s": progress.limit_s,
    }
    if wants_html(req):
        resp.set_header("Refresh", str(_AGAIN_AFTER_S))
        backend.pages.show(req, resp, "progress.html", backend.mount(req), progress=document)
    else:
        resp.media = document
