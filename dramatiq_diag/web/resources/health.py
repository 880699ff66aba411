"""Tells whether the server, its database and its blobs answer."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import falcon
from dramatiq.logging import get_logger
from sqlalchemy import text

from ...errors import DiagnosticsError
from ..backend import Backend
from ..http.documents import HealthDocument, Part, ReadyDocument
from ..http.openapi import operation
from .base import Resource


class HealthResource(Resource):
    """The server itself, without its store."""

    @operation("get", "/healthz", answers={200: HealthDocument}, open_to_all=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say that the server answers."""
        document: HealthDocument = {"status": "ok"}
        resp.media = document


class ReadyResource(Resource):
    """The store. The answer is public, so it has only names; the log has the reasons."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._logger = get_logger(__name__, type(self))

    @operation("get", "/readyz", answers={200: ReadyDocument, 503: ReadyDocument}, open_to_all=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say whether the database and the blobs answer, or which of them does not."""
        failing: list[Part] = []
        if not self._answers("database", self._ask_database):
            failing.append("database")
        if not self._answers("blobs", self._backend.blobs.see_root if failing else self._backend.check_blobs):
            failing.append("blobs")
        document: ReadyDocument = {"status": "unavailable" if failing else "ok", "failing": failing}
        resp.media = document
        if failing:
            resp.status = HTTPStatus.SERVICE_UNAVAILABLE

    def _answers(self, name: str, ask: Callable[[], object]) -> bool:
        try:
            ask()
        except DiagnosticsError as error:
            self._logger.warning("Not ready, as the %s cannot be used: %s", name, error)
            return False
        return True

    def _ask_database(self) -> None:
        with self._backend.session() as session:
            session.execute(text("SELECT 1"))
