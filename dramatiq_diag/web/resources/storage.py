"""What the store holds, and what the next cleanup removes of it."""

from __future__ import annotations

import falcon

from ...documents.storage import StorageDocument, storage_document
from ..http.negotiation import wants_html
from ..http.openapi import operation
from .base import Resource


class StorageResource(Resource):
    """The sizes of the store."""

    @operation("get", "/storage/", answers={200: StorageDocument})
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Get the bytes and runs that are stored, by actor and by collector, and what the next cleanup removes."""
        with self._backend.session() as session:
            document = storage_document(session, self._backend.settings)
        if wants_html(req):
            self._backend.show(req, resp, "storage.html", storage=document)
        else:
            resp.media = document
