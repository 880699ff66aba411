"""The stacks of a running task, as a document and as a page."""

from __future__ import annotations

import falcon

from ...documents.stacks import StacksDocument, take_stacks
from ...reports.paths import shorten_paths
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from .base import Resource


class StacksResource(Resource):
    """The stacks of the worker process that executes a task."""

    @operation(
        "post",
        "/tasks/{task_id}/stacks/",
        answers={200: StacksDocument, **dict.fromkeys((403, 404, 409, 429, 504), PROBLEM)},
    )
    def on_post(self, req: falcon.Request, resp: falcon.Response, task_id: str) -> None:
        """Look at a running task: the stacks of its worker process, and what each thread waits for.

        The worker process is asked, and answers within 3 seconds. The task need not be diagnosed.
        """
        document = take_stacks(self._backend.store, task_id, self._backend.answer_wait_s)
        if wants_html(req):
            files = {frame["file"] for thread in document["threads"] for frame in thread["frames"]}
            self._backend.show(req, resp, "stacks.html", document=document, short=shorten_paths(files))
        else:
            resp.media = document
