"""Turns errors into answers: documents of the type `application/problem+json`, or pages."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import falcon
from dramatiq.logging import get_logger

from ..documents.stacks import NoAnswerError, StackRefusedError
from ..errors import DiagnosticsError, NotInstalledError, StoreError
from ..reports.errors import TooManyRenderingsError
from ..store.attachments import AttachmentRequestError, NothingRunsError
from ..store.captures import CaptureRequestError, TooManyCapturesError
from ..store.pins import RunIsPinnedError, RunIsRunningError
from ..store.questions import NotExecutedError, TooManyQuestionsError
from .backend import Backend
from .http.negotiation import wants_html
from .http.rfc9457 import PROBLEM_TYPE, problem_detail, problem_document

#: The errors that refuse a request -> the status of the answer, which has the text of the error.
_REFUSALS: dict[type[Exception], HTTPStatus] = {
    AttachmentRequestError: HTTPStatus.BAD_REQUEST,
    CaptureRequestError: HTTPStatus.BAD_REQUEST,
    NotExecutedError: HTTPStatus.NOT_FOUND,
    NothingRunsError: HTTPStatus.NOT_FOUND,
    RunIsPinnedError: HTTPStatus.CONFLICT,
    RunIsRunningError: HTTPStatus.CONFLICT,
    StackRefusedError: HTTPStatus.CONFLICT,
    TooManyCapturesError: HTTPStatus.CONFLICT,
    TooManyQuestionsError: HTTPStatus.TOO_MANY_REQUESTS,
    NoAnswerError: HTTPStatus.GATEWAY_TIMEOUT,
}


class Problems:
    """Falcon's error handlers. They log faults of the server, and tell the client only what it may know."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._logger = get_logger(__name__, type(self))

    def install(self, app: falcon.App[falcon.Request, falcon.Response]) -> None:
        """Installs the handlers in the app."""
        app.set_error_serializer(self._serialize)
        app.add_error_handler(Exception, self._unexpected)
        app.add_error_handler(DiagnosticsError, self._failed)
        app.add_error_handler(_REFUSALS, self._refused)
        app.add_error_handler((StoreError, NotInstalledError, TooManyRenderingsError), self._unavailable)

    def _serialize(self, req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
        status = HTTPStatus(error.status_code)
        if wants_html(req):
            detail = error.description or problem_detail(status)
            self._backend.show(req, resp, "problem.html", status=status, detail=detail)
        else:
            resp.content_type = PROBLEM_TYPE
            resp.data = problem_document(status, error.description)

    def _refused(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        status = next(status for kind, status in _REFUSALS.items() if isinstance(error, kind))
        raise falcon.HTTPError(status, description=str(error)) from error

    def _unexpected(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        self._logger.error("%s %r failed", req.method, req.path, exc_info=error)
        raise falcon.HTTPInternalServerError(description="The request failed; the server's log has the cause.")

    def _failed(self, req: falcon.Request, resp: falcon.Response, error: DiagnosticsError, params: Any) -> None:
        self._logger.warning("%s %r failed: %s", req.method, req.path, error)
        raise falcon.HTTPInternalServerError(description=str(error))

    def _unavailable(self, req: falcon.Request, resp: falcon.Response, error: Exception, params: Any) -> None:
        self._logger.warning("%s %r cannot be answered now: %s", req.method, req.path, error)
        raise falcon.HTTPServiceUnavailable(description=str(error))
