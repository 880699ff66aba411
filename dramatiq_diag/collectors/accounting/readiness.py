"""Tells whether a coroutine could go on, but its event loop has not come to it yet."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import inspect
import sys
from typing import Any

from ...runtime.frames import Link

#: Through `PyDLL` the thread keeps the GIL; see `runtime.kept_file`.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None

_POLLIN = 1

#: The generator with which `asyncio.sleep(0)` lets others go first; None where it is not known.
_BARE_YIELD = getattr(getattr(asyncio.tasks, "__sleep0", None), "__code__", None)

#: The most timers of a loop that are looked through.
_MAX_TIMERS = 2000


class _PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


def can_go_on(innermost: Link, awaitable: Any) -> bool:
    """Returns: Whether a coroutine awaits nothing: it has not begun yet, or is in `asyncio.sleep(0)`.

    Parameters:
      innermost: The innermost of those that await each other.
      awaitable: What that one awaits.
    """
    (code, _), _, is_running = innermost
    if awaitable is not None or is_running:
        return False
    # A coroutine that has begun always awaits something. A generator may have yielded a future.
    return bool(code.co_flags & inspect.CO_COROUTINE) or code is _BARE_YIELD


def is_due(future: Any, holder: Any, *, is_busy: bool) -> bool:
    """Returns: Whether what is awaited has come: a result, the end of a sleep, or bytes of a connection.

    While the loop executes nothing, it waits for the system, and nothing has come.

    Parameters:
      future: The future that is awaited; None if it is not known.
      holder: The coroutine that awaits it.
      is_busy: Whether the event loop executes something at this moment.
    """
    if not isinstance(future, asyncio.Future):
        return False
    if asyncio.Future.done(future):
        return True
    if not is_busy:
        return False
    loop = future.get_loop()
    due_s = _timer_of(loop, future)
    return (due_s is not None and due_s <= loop.time()) or _has_bytes(holder)


def _timer_of(loop: Any, future: Any) -> float | None:
    """Returns: When a timer of the loop completes the future, as with `asyncio.sleep`; None if none does."""
    for handle in getattr(loop, "_scheduled", ())[:_MAX_TIMERS]:
        if any(argument is future for argument in getattr(handle, "_args", None) or ()):
            return float(handle.when())
    return None


def _has_bytes(holder: Any) -> bool:
    """Returns: Whether the stream that a suspended coroutine has could be read now."""
    for value in gc.get_referents(holder):
        if type(value) is asyncio.StreamReader and _LIBC is not None:
            transport = getattr(value, "_transport", None)
            sock = None if transport is None else transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                asked = _PollFd(sock.fileno(), _POLLIN, 0)
                return bool(_LIBC.poll(ctypes.byref(asked), 1, 0) > 0)
    return False
