"""Checks the length of the headers and the requested host before anything of a request is parsed."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from wsgiref.types import StartResponse, WSGIEnvironment

from ...settings import Settings
from .hosts import HostNames
from .rfc9457 import PROBLEM_TYPE, problem_document

#: The most bytes of all headers together, names and values. Browsers send 1 to 2 KiB.
MAX_HEADERS_BYTES = 16 * 1024

#: The headers without the prefix `HTTP_` in WSGI.
_OTHER_HEADERS = ("CONTENT_TYPE", "CONTENT_LENGTH")


def reason_against(environ: WSGIEnvironment, names: HostNames) -> tuple[HTTPStatus, str] | None:
    """Returns: The status and the reason if a request is refused by its headers, otherwise None.

    Parameters:
      names: The host names under which the app answers.
    """
    if _headers_bytes(environ) > MAX_HEADERS_BYTES:
        detail = f"The headers of a request may have at most {MAX_HEADERS_BYTES} bytes together."
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail
    if environ.get("HTTP_HOST", "") not in names:
        detail = (
            f"This server does not answer under this Host. Use localhost, set {Settings.variable('public_url')} to its "
            f"public address, or add the host to {Settings.variable('allowed_hosts')}."
        )
        return HTTPStatus.MISDIRECTED_REQUEST, detail
    return None


def refuse(environ: WSGIEnvironment, start_response: StartResponse, status: HTTPStatus, detail: str) -> Iterable[bytes]:
    """Answers with a problem document, as a WSGI application does."""
    body = problem_document(status, detail)
    headers = [
        ("Content-Type", PROBLEM_TYPE),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    start_response(f"{status.value} {status.phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def _headers_bytes(environ: WSGIEnvironment) -> int:
    return sum(
        len(name) + len(value)
        for name, value in environ.items()
        if (name.startswith("HTTP_") or name in _OTHER_HEADERS) and isinstance(value, str)
    )
