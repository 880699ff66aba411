"""Lets HTTP requests ask for diagnostics of the tasks that they send, in an ASGI application such as FastAPI."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .policy.http_header import HEADER, KEY_HEADER, RESULT_HEADER
from .policy.propagation import asking_for
from .settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApplication = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class DiagnosticsMiddleware:
    """Reads `X-Task-Diagnostics`: messages that are enqueued while the request is handled carry the names in it.

    So do messages of asyncio tasks that the request starts, and of the framework's threads for functions that are not
    async, as far as context variables are passed on.

    Parameters:
      app: The application.
      settings: The settings; by default those of the environment. They say which names are allowed, and with which key.
      open_to_all: Whether anybody may ask where no `request_key` is set; otherwise nobody may then.

    Raises:
      SettingsError: When the environment has a value that is not allowed.
    """

    def __init__(self, app: AsgiApplication, settings: Settings | None = None, *, open_to_all: bool = False) -> None:
        self._app = app
        self._policy = Settings.load(settings).header_policy(open_to_all=open_to_all)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        decision = None
        if scope["type"] == "http":
            decision = self._policy.decide(_header(scope, HEADER), _header(scope, KEY_HEADER))
        if decision is None:
            await self._app(scope, receive, send)
            return
        result = (RESULT_HEADER.lower().encode(), decision.result.encode())

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), result]}
            await send(message)

        if not decision.names:
            await self._app(scope, receive, tell)
            return
        with asking_for(decision.names):
            await self._app(scope, receive, tell)


def _header(scope: MutableMapping[str, Any], name: str) -> bytes | None:
    wanted = name.lower().encode()
    found = [value for header, value in scope["headers"] if header.lower() == wanted]
    return b",".join(found) if found else None
