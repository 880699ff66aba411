"""Tells whether the server, its database and its blobs answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from typing import get_args

import falcon
from dramatiq.logging import get_logger
from sqlalchemy import text

from ...errors import DiagnosticsError, StoreUnavailableError
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
    """The store. The answer is public, so it has only names; the log has the reasons.

    Parameters:
      backend: The backend.
      wait_s: The longest wait for a part, in seconds, where it is not that of the backend.
    """

    def __init__(self, backend: Backend, wait_s: Mapping[Part, float] | None = None) -> None:
        super().__init__(backend)
        self._logger = get_logger(__name__, type(self))
        waits_s = dict.fromkeys(get_args(Part), backend.probe_wait_s) | dict(wait_s or {})
        self._database = _Part("database", waits_s["database"])
        self._blobs = _Part("blobs", waits_s["blobs"])

    @operation("get", "/readyz", answers={200: ReadyDocument, 503: ReadyDocument}, open_to_all=True)
    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say whether the database and the blobs answer, or which of them does not."""
        failing: list[Part] = []
        if not self._answers(self._database, self._ask_database):
            failing.append("database")
        if not self._answers(
            self._blobs, self._backend.blobs.see_root if failing else self._backend.store.check_identity
        ):
            failing.append("blobs")
        document: ReadyDocument = {"status": "unavailable" if failing else "ok", "failing": failing}
        resp.media = document
        if failing:
            resp.status = HTTPStatus.SERVICE_UNAVAILABLE

    def _answers(self, part: _Part, ask: Callable[[], object]) -> bool:
        try:
            part.ask(ask)
        except DiagnosticsError as error:
            self._logger.warning("Not ready, as the %s cannot be used: %s", part.name, error)
            return False
        return True

    def _ask_database(self) -> None:
        with self._backend.session() as session:
            session.execute(text("SELECT 1"))


class _Part:
    """Asks one part on a thread of its own: no time-out ends a call of a frozen server or disk.

    One question is open at a time, and further probes wait for its answer. So a part that hangs costs one thread,
    however many probes come.

    Parameters:
      name: The name of the part.
      wait_s: The longest wait for an answer, in seconds.
    """

    def __init__(self, name: Part, wait_s: float) -> None:
        self.name = name
        self._wait_s = wait_s
        self._lock = threading.Lock()
        self._open: Future[object] | None = None

    def ask(self, question: Callable[[], object]) -> None:
        """Asks. Raises: StoreUnavailableError when there is no answer in time; and what the question raises."""
        with self._lock:
            if self._open is None or self._open.done():
                self._open = _called_on_thread(question)
            answer = self._open
        try:
            answer.result(self._wait_s)
        except TimeoutError as error:
            raise StoreUnavailableError(f"It did not answer within {self._wait_s:g} s.") from error


def _called_on_thread(call: Callable[[], object]) -> Future[object]:
    future: Future[object] = Future()

    def make() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for.
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=make, name="dramatiq_diag.readiness", daemon=True).start()
    return future
