"""Which actors leak memory, as a document and as a page."""

from __future__ import annotations

import falcon

from ...documents.leaks import LeaksDocument, leaks_document
from ...insights.stored_leaks import read_leaks
from ..http.negotiation import wants_html
from ..http.openapi import PROBLEM, operation
from ..http.queries import LeaksQuery
from ..pages.leaks import show_leaks
from .base import Resource
from .captures import form_subject


class LeaksResource(Resource):
    """The actors, and what their runs keep of the memory."""

    @operation("get", "/leaks/", query=LeaksQuery, answers={200: LeaksDocument, 400: PROBLEM})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """List the actors by what their runs keep of the memory, the leaking ones first.

        The newest 20,000 windows of the live memory count.
        """
        query = LeaksQuery.read(req)
        with self._backend.session() as session:
            report = read_leaks(session, query.since)
        if wants_html(req):
            show_leaks(self._backend, req, resp, report, form_subject)
        else:
            resp.media = leaks_document(report.findings)
