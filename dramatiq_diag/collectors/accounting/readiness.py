"""Tells whether a coroutine could go on, but its event loop has not come to it yet."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import inspect
import time
import weakref
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

from ...runtime.kept_file import LIBC
from ...runtime.waits.connections import transport_of

_POLLIN = 1

#: The generator with which `asyncio.sleep(0)` lets others go first; None where it is not known.
_BARE_YIELD = getattr(getattr(asyncio.tasks, "__sleep0", None), "__code__", None)


class _PollFd(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short)]


def can_go_on(code: CodeType, awaitable: Any) -> bool:
    """Returns: Whether a coroutine awaits nothing: it has not begun yet, or is in `asyncio.sleep(0)`.

    Parameters:
      code: That of the innermost of those that await each other, which does not run.
      awaitable: What that one awaits.
    """
    if awaitable is not None:
        return False
    # A coroutine that has begun always awaits something. A generator may have yielded a future.
    return bool(code.co_flags & inspect.CO_COROUTINE) or code is _BARE_YIELD


class Readiness:
    """Whether what is awaited has come: a result, the end of a sleep, or bytes of a connection.

    It can be asked until the next step of the coroutine, and keeps nothing of the application alive.

    Parameters:
      future: The future that is awaited; None if it is not known.
      holder: The coroutine that awaits it.
      reads: Whether the holder waits for bytes of its connection.
    """

    __slots__ = ("_future", "descriptor", "due_s")

    def __init__(self, future: Any, holder: Any, *, reads: bool = False) -> None:
        self._future = weakref.ref(future) if isinstance(future, asyncio.Future) else None
        self.descriptor: int | None = None
        "That of the connection which the holder reads."
        self.due_s: float | None = None
        "When a timer of the holder completes the future, as in `asyncio.sleep`, by `time.perf_counter`."
        for value in () if self._future is None else gc.get_referents(holder):
            if type(value) is asyncio.TimerHandle and any(argument is future for argument in value._args or ()):
                # The timer is known also after it has completed the future.
                self.due_s = time.perf_counter() + value.when() - future.get_loop().time()
        if reads:
            self.descriptor = _descriptor_of(transport_of(holder))

    @property
    def is_done(self) -> bool:
        """Whether the event loop knows that it has come."""
        future = None if self._future is None else self._future()
        return future is not None and asyncio.Future.done(future)

    def has_come(self, now_s: float, has_bytes: Mapping[int, bool], *, is_busy: bool) -> bool:
        """Returns: Whether it has come.

        Parameters:
          now_s: The time, by `time.perf_counter`.
          has_bytes: Descriptor -> whether there were bytes to read at that time. Others are asked now.
          is_busy: Whether the event loop executes something at this moment. If it does not, it waits for the system,
            and nothing has come.
        """
        if self.is_done:
            return True
        if not is_busy:
            return False
        if self.due_s is not None:
            return self.due_s <= now_s
        if self.descriptor is None:
            return False
        if self.descriptor in has_bytes:
            return has_bytes[self.descriptor]
        return have_bytes([self.descriptor])[self.descriptor]


def have_bytes(descriptors: Iterable[int]) -> dict[int, bool]:
    """Returns: Descriptor -> whether there are bytes to read."""
    asked = [_PollFd(descriptor, _POLLIN, 0) for descriptor in descriptors]
    if LIBC is not None and asked:
        LIBC.poll(polled := (_PollFd * len(asked))(*asked), len(asked), 0)
        asked = list(polled)
    return {each.fd: bool(each.revents & _POLLIN) for each in asked}


def _descriptor_of(transport: Any) -> int | None:
    """Returns: The descriptor of a transport, which is closed only after what awaits it; None if it has none."""
    sock = None if transport is None else transport.get_extra_info("socket")
    return sock.fileno() if sock is not None and sock.fileno() >= 0 else None
