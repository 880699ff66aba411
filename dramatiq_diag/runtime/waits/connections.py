"""Finds the connection that a suspended coroutine waits for, by the objects that it refers to."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from typing import Any

#: Module and class of what has the transport of one connection, or has such an object.
_CARRIERS = {
    ("aiohttp.client_proto", "ResponseHandler"),
    ("aiohttp.streams", "StreamReader"),
    ("anyio._backends._asyncio", "SocketStream"),
    ("asyncpg.connection", "Connection"),
}

#: From a coroutine to a stream of aiohttp, to its protocol, and to its transport.
_MAX_STEPS = 2


def transport_of(holder: Any) -> Any:
    """Returns: The transport of the connection that a suspended coroutine has; None if there is none.

    Note:
      It looks at types alone before it knows an object, so that no code of the application runs.
    """
    return _transport_in(gc.get_referents(holder), _MAX_STEPS)


def _transport_in(values: Iterable[Any], steps: int) -> Any:
    """Returns: The first transport among the values, and behind them by so many steps; None if there is none."""
    for value in values:
        kind = type(value)
        if kind is asyncio.StreamReader or kind is asyncio.StreamReaderProtocol:
            value = value._transport
            kind = type(value)
        module = str(kind.__module__)
        if module == "builtins":  # As most are; it is asked for each wait of a coroutine.
            continue
        if _is_transport(kind, module):
            return value
        if steps and _is_carrier(kind):
            found = _transport_in(gc.get_referents(value), steps - 1)
            if found is not None:
                return found
    return None


def _is_transport(kind: type, module: str) -> bool:
    """Returns: Whether a class, of this module, is that of a transport of asyncio or uvloop."""
    if module == "uvloop.loop":  # They are no subclasses of asyncio's.
        return kind.__name__.endswith("Transport")
    return module.startswith("asyncio.") and issubclass(kind, asyncio.BaseTransport)


def _is_carrier(kind: type) -> bool:
    return any((str(each.__module__), each.__qualname__) in _CARRIERS for each in kind.__mro__)
