"""Whether the server answers."""

from __future__ import annotations

import falcon

from ..documents import HealthDocument
from .openapi import operation


class HealthResource:
    """Asks nothing of the store."""

    @operation("get", "/healthz", answers={200: HealthDocument}, open_to_all=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say that the server answers."""
        document: HealthDocument = {"status": "ok"}
        resp.media = document

    on_head = on_get
