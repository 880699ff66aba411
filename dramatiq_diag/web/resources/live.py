"""A task while it is executed: what it does and what was collected so far, as a document and as a page."""

from __future__ import annotations

import falcon

from ...documents.live import LiveDocument, live_document
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import LiveQuery
from ..pages.live import show_live
from .base import Resource

_UNKNOWN = "No live worker process reports that it executes this task, and nothing was ever collected for it."


class LiveResource(Resource):
    """What a task does now, and what was collected of it so far."""

    @operation(
        "get",
        "/tasks/{task_id}/live/",
        query=LiveQuery,
        answers={200: LiveDocument, **dict.fromkeys((400, 404, 429), PROBLEM)},
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """Watch a running task: its stack, and what was collected of it so far.

        The answer comes at once, with what the worker process has told last. Asked every 2 seconds, it stays about a
        second old; 10 seconds after the last request the worker process stops looking. The task need not be diagnosed.
        """
        document = live_document(self._backend.store, task_id, LiveQuery.read(req).attempt)
        if document is None:
            raise falcon.HTTPNotFound(description=_UNKNOWN)
        if wants_html(req):
            show_live(self._backend, req, resp, document)
        else:
            resp.media = document
