"""Lets HTTP requests ask for diagnostics of the tasks that they send, in a WSGI application such as Flask or Django."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from .policy.http_header import HEADER, KEY_HEADER, RESULT_HEADER
from .policy.propagation import asking_for
from .settings import Settings

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class DiagnosticsMiddleware:
    """Reads `X-Task-Diagnostics`: messages that are enqueued while the request is handled carry the names in it.

    Parameters:
      app: The application.
      settings: The settings; by default those of the environment. They say which names are allowed, and with which key.
      open_to_all: Whether anybody may ask where no `request_key` is set; otherwise nobody may then.

    Raises:
      SettingsError: When the environment has a value that is not allowed.

    Note:
      Messages that the application enqueues from threads of its own carry nothing.
    """

    def __init__(self, app: WSGIApplication, settings: Settings | None = None, *, open_to_all: bool = False) -> None:
        self._app = app
        self._policy = Settings.load(settings).header_policy(open_to_all=open_to_all)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        decision = self._policy.decide(_header(environ, HEADER), _header(environ, KEY_HEADER))
        if decision is None:
            return self._app(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], exc_info: _ExcInfo | None = None) -> Any:
            return start_response(status, [*headers, (RESULT_HEADER, decision.result)], exc_info)

        if not decision.names:
            return self._app(environ, start)
        with asking_for(decision.names):
            return _Body(self._app(environ, start), decision.names)


class _Body:
    """The body of an answer. Messages that are enqueued while it is produced belong to the request as well."""

    def __init__(self, body: Iterable[bytes], names: tuple[str, ...]) -> None:
        self._body = body
        self._names = names
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with asking_for(self._names):
            if self._chunks is None:
                self._chunks = iter(self._body)
            return next(self._chunks)

    def close(self) -> None:
        """Closes the body, as WSGI demands."""
        close = getattr(self._body, "close", None)
        if close is not None:
            with asking_for(self._names):
                close()


def _header(environ: WSGIEnvironment, name: str) -> bytes | None:
    value = environ.get(f"HTTP_{name.upper().replace('-', '_')}")
    return value.encode("latin-1", "replace") if isinstance(value, str) else None
