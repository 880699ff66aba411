"""Clients of servers as libraries that tests do without: their files, classes and functions have the same names."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

_SOURCES = {
    "/lib/aiohttp/client_proto.py": """
class ResponseHandler(asyncio.Protocol):
    __slots__ = ("transport", "waiter")

    def connection_made(self, transport):
        self.transport = transport
        self.waiter = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.waiter.set_result(data)
""",
    "/lib/aiohttp/streams.py": """
class StreamReader:
    __slots__ = ("_protocol",)

    def __init__(self, protocol):
        self._protocol = protocol

    async def _wait(self):
        waiter = self._protocol.waiter
        await waiter
""",
    "/lib/anyio/_backends/_asyncio.py": """
class StreamProtocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.read_event = asyncio.Event()

    def data_received(self, data):
        self.read_event.set()

class SocketStream:
    def __init__(self, transport, protocol):
        self._transport = transport
        self._protocol = protocol

    async def receive(self):
        await self._protocol.read_event.wait()
""",
    "/lib/asyncpg/connection.py": """
class Connection:
    __slots__ = ("_protocol", "_transport")

    def __init__(self, transport, protocol):
        self._transport = transport
        self._protocol = protocol

    async def _do_execute(self):
        await self._protocol.waiter
""",
}


def _module(path: str) -> Any:
    """Returns: What the file of a library defines."""
    name = path.removeprefix("/lib/").removesuffix(".py").replace("/", ".")
    names: dict[str, Any] = {"asyncio": asyncio, "__name__": name}
    exec(compile(_SOURCES[path], path, "exec"), names)
    return SimpleNamespace(**names)


async def wait_as_aiohttp(host: str, port: int) -> None:
    """Connects, and waits for an answer as aiohttp's client does."""
    handler = _module("/lib/aiohttp/client_proto.py").ResponseHandler
    transport, protocol = await asyncio.get_running_loop().create_connection(handler, host, port)
    await _module("/lib/aiohttp/streams.py").StreamReader(protocol)._wait()
    transport.close()


async def wait_as_anyio(host: str, port: int) -> None:
    """Does so as httpx does with anyio."""
    library = _module("/lib/anyio/_backends/_asyncio.py")
    transport, protocol = await asyncio.get_running_loop().create_connection(library.StreamProtocol, host, port)
    await library.SocketStream(transport, protocol).receive()
    transport.close()


async def wait_as_asyncpg(host: str, port: int) -> None:
    """Does so as asyncpg does in a query."""
    handler = _module("/lib/aiohttp/client_proto.py").ResponseHandler
    transport, protocol = await asyncio.get_running_loop().create_connection(handler, host, port)
    await _module("/lib/asyncpg/connection.py").Connection(transport, protocol)._do_execute()
    transport.close()
