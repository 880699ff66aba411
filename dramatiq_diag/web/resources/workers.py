"""The worker processes, and what they execute."""

from __future__ import annotations

import falcon

from ...documents.workers import WorkersDocument, workers_document
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import WorkersQuery
from .base import Resource


class WorkersResource(Resource):
    """The worker processes of the database, as they last reported themselves."""

    @operation("get", "/workers/", query=WorkersQuery, answers={200: WorkersDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the worker processes, with the tasks that they execute, diagnosed or not.

        A process reports itself every 5 seconds.
        """
        query = WorkersQuery.read(req)
        with self._backend.session() as session:
            document = workers_document(session, every_state=query.all, limit=query.limit)
        if wants_html(req):
            self._backend.show(req, resp, "workers.html", **document, is_all=query.all)
        else:
            resp.media = document
