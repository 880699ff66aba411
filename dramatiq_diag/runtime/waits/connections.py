"""Finds the connection that a suspended coroutine waits for, by the objects that it refers to."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

#: Module and class of what has the transport of one connection, or has such an object.
_CARRIERS = (
    ("aiohttp.client_proto", "ResponseHandler"),
    ("aiohttp.streams", "StreamReader"),
    ("anyio._backends._asyncio", "SocketStream"),
    ("asyncpg.connection", "Connection"),
)

#: From a coroutine to a stream of aiohttp, to its protocol, and to its transport.
_MAX_STEPS = 2


def transport_of(holder: Any) -> Any:
    """Returns: The transport of the connection that a suspended coroutine has; None if there is none.

    Note:
      It looks at types alone before it knows an object, so that no code of the application runs.
    """
    return next(filter(None, map(_transport, gc.get_referents(holder))), None)


def _transport(value: Any, steps: int = _MAX_STEPS) -> Any:
    if type(value) in (asyncio.StreamReader, asyncio.StreamReaderProtocol):
        value = value._transport
    if is_transport(value):
        return value
    if steps == 0 or not any((each.__module__, each.__qualname__) in _CARRIERS for each in type(value).__mro__):
        return None
    return next(filter(None, (_transport(each, steps - 1) for each in gc.get_referents(value))), None)


def is_transport(value: Any) -> bool:
    """Returns: Whether it is a transport of asyncio or uvloop; no code of another class is to be called."""
    if str(type(value).__module__) == "uvloop.loop":  # They are no subclasses of asyncio's.
        return type(value).__name__.endswith("Transport")
    return str(type(value).__module__).startswith("asyncio.") and isinstance(value, asyncio.BaseTransport)
