"""The Host check: a page elsewhere whose name is made to point at this machine gets nothing (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import urlsplit
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ..settings import Settings
from .rfc9457 import PROBLEM_TYPE, problem_document

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]+)(?::[0-9]*)?")


class HostCheck:
    """A WSGI app in front of another that answers only under names this machine is known by, on any port.

    Parameters:
      app: The app behind it.
      names: Further names, besides those of the loopback address.
    """

    def __init__(self, app: WSGIApplication, names: Iterable[str]) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "[::1]", *(bracketed(name).lower() for name in names)}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        match = _HOST.fullmatch(environ.get("HTTP_HOST", ""))
        if match is not None and match[1].lower() in self._names:
            return self._app(environ, start_response)
        body = problem_document(
            HTTPStatus.MISDIRECTED_REQUEST,
            "This server does not answer under this Host; ask for localhost, or set "
            f"{Settings.variable('public_url')} to the address it is reached by.",
        )
        headers = [
            ("Content-Type", PROBLEM_TYPE),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        start_response("421 Misdirected Request", headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def is_loopback(host: str) -> bool:
    """Returns: Whether only this machine reaches a server bound to *host*."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bracketed(host: str) -> str:
    """Returns: The host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def known_names(settings: Settings, host: str) -> list[str]:
    """Returns: The names that a server bound to *host* is asked for by."""
    public = urlsplit(settings.public_url or "").hostname
    return [host] if public is None else [host, public]
