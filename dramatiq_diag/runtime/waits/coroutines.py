"""Tells what a coroutine awaits: a future, a lock, a sleep, a socket, or its event loop, which another one blocks."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..frames import Place, future_of
from ..stacks import Branch
from .connections import transport_of
from .phrases import called_by_client
from .python import client_of, purpose_of_coroutine
from .services import service_at
from .wait import ThreadState, Wait, WaitKind

#: Ends of files and functions that call what an event loop executes. Without asyncio's own there is another loop, as
#: uvloop's, that is written in C.
_CALLERS = (("/asyncio/events.py", "Handle._run"), ("/dramatiq/asyncio.py", "EventLoopThread.run"))

#: A callback of a future that gets its result from an executor.
_CHAINED = "_chain_future.<locals>._call_check_cancel"


def executed_by_loop(places: Sequence[Place]) -> Sequence[Place]:
    """Returns: What an event loop executes at this moment, the innermost place first; empty if it executes nothing.

    Parameters:
      places: The stack of its thread, the innermost place first.
    """
    for file, function in _CALLERS:
        for at, (code, _) in enumerate(places):
            if code.co_qualname == function and code.co_filename.endswith(file):
                inner = places[:at]
                return () if inner and inner[-1][0].co_qualname.startswith("BaseEventLoop.run_") else inner
    return ()


def blocked_wait(executed: Sequence[Place], loop_state: ThreadState | None) -> Wait:
    """Returns: The wait for an event loop that executes something else.

    Parameters:
      executed: What it executes.
      loop_state: The state of its thread.
    """
    code, line = executed[-1]
    who = f"{code.co_qualname:.200} ({code.co_filename[-200:]}:{line or 0})"
    wait = None if loop_state is None else loop_state.wait
    does = f", which {wait.detail}" if wait else ""
    return Wait("loop", None, f"waits for the event loop, which is blocked by {who}{does}", None)


def awaited_wait(branch: Branch, places: Sequence[Place], loop_state: ThreadState | None) -> Wait:
    """Returns: What a coroutine awaits, while its event loop is free.

    Parameters:
      branch: One of its stacks.
      places: The same stack, the innermost place first.
      loop_state: The state of the thread of its event loop.
    """
    future = future_of(branch.awaitable)
    if _is_done(future):
        return Wait("loop", None, "can go on, and waits for its turn on the event loop")
    purpose = purpose_of_coroutine(places)
    if purpose is None and _is_of_executor(future):
        return Wait("future", None, "awaits the result of a function in a thread or process of a pool")
    if purpose is None or purpose.kind == "socket":
        detail = "awaits a future that nobody has completed yet" if purpose is None else purpose.detail
        kind: WaitKind = "future" if purpose is None else "socket"
        return _with_connection(Wait(kind, None, detail), branch, places, loop_state)
    return Wait(purpose.kind, None, purpose.detail)


def _with_connection(wait: Wait, branch: Branch, places: Sequence[Place], loop_state: ThreadState | None) -> Wait:
    """Returns: The wait with the connection that it is for: its own, or the only one that the event loop watches."""
    own = _peer_of(branch.holder) if wait.kind == "socket" else None
    watched = loop_state.wait.peer if loop_state and loop_state.wait and loop_state.wait.kind == "loop" else None
    peer, client = own or watched, client_of(places)
    if peer is None and client:
        return called_by_client(wait, places)
    if peer is None or (wait.kind == "socket" and not own and not client):
        return wait
    commonly = f", where {service} commonly listens" if (service := service_at(peer)) else ""
    if own:
        return called_by_client(replace(wait, detail=f"{wait.detail} of {peer}{commonly}", peer=peer), places)
    if client:
        detail = f"waits for {peer}{commonly}, the only connection that its event loop watches"
        return called_by_client(Wait("socket", None, detail, peer), places)
    return replace(wait, detail=f"{wait.detail}; its event loop watches one connection, to {peer}{commonly}", peer=peer)


def _is_done(future: Any) -> bool:
    """Returns: Whether a future is done; False for one of another library. No method of a subclass is called."""
    return isinstance(future, asyncio.Future) and asyncio.Future.done(future)


def _is_of_executor(future: Any) -> bool:
    callbacks = getattr(future, "_callbacks", None) or () if type(future) is asyncio.Future else ()
    return any(getattr(callback, "__qualname__", "") == _CHAINED for callback, _ in callbacks)


def _peer_of(holder: Any) -> str | None:
    """Returns: The other end of the stream or socket that a suspended coroutine has; None if there is none."""
    if (transport := transport_of(holder)) is not None:
        return _text_of(transport.get_extra_info("peername"))
    for value in gc.get_referents(holder):
        if type(value) is socket.socket and value.fileno() >= 0:
            try:
                return _text_of(value.getpeername())
            except OSError:  # It is not connected yet: its address is another value.
                continue
        if type(value) is tuple and len(value) in (2, 4) and isinstance(value[0], str) and isinstance(value[1], int):
            return _text_of(value)
    return None


def _text_of(address: Any) -> str | None:
    """Returns: An address of Python's sockets as `host:port`, or as the path of a Unix socket."""
    if isinstance(address, tuple) and len(address) >= 2:
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return address if isinstance(address, str) and address else None
