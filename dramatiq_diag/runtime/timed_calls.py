"""Reads at planned moments which call of the kernel threads are in, on a thread of the C library that needs no GIL.

A thread of Python that waits for a moment needs the GIL before it can read anything. It gets the GIL when another
thread gives it up, and that one often does so to wait for something else: what is read then is of the moment after.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
import threading
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from .kept_file import KeptFile
from .thread_calls import ThreadCalls

_MAX_BYTES = 200
_TIMER_BYTES = 8

#: Arguments of `lio_listio`, and values of its requests.
_NO_WAIT, _READ, _NO_SIGNAL = 1, 0, 1

#: Arguments of `timerfd_create` and `timerfd_settime`. `time.perf_counter` reads the same clock on Linux.
_CLOCK_MONOTONIC, _ABSOLUTE = 1, 1

_NS = 1_000_000_000

#: The moment with which the order is tried is so far away, in seconds: however busy the machine is, it does not come.
_FAR_S = 3600.0

#: How many looks at the threads have to find none that could still run, the time between them, and the longest time
#: that they take, in seconds: a thread of C code may compute for ever.
_LOOKS, _LOOK_S, _LONGEST_S = 3, 0.001, 0.25


class _Event(ctypes.Structure):
    """`struct sigevent`."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signal", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("padding", ctypes.c_char * 48),
    ]


class _Request(ctypes.Structure):
    """`struct aiocb` of glibc, where pointers have 64 bits."""

    _fields_ = [
        ("descriptor", ctypes.c_int),
        ("operation", ctypes.c_int),
        ("priority", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
        ("event", _Event),
        ("internal", ctypes.c_void_p),
        ("absolute_priority", ctypes.c_int),
        ("policy", ctypes.c_int),
        ("error", ctypes.c_int),
        ("returned", ctypes.c_ssize_t),
        ("offset", ctypes.c_longlong),
        ("reserved", ctypes.c_char * 32),
    ]


_REQUEST_BYTES = 168


class _AioSettings(ctypes.Structure):
    """`struct aioinit`."""

    _fields_ = [
        ("threads", ctypes.c_int),
        ("requests", ctypes.c_int),
        ("unused", ctypes.c_int * 4),
        ("idle_s", ctypes.c_int),
        ("reserved", ctypes.c_int),
    ]


class _TimerSettings(ctypes.Structure):
    """`struct itimerspec`."""

    _fields_ = [(name, ctypes.c_long) for name in ("again_s", "again_ns", "first_s", "first_ns")]


class Moment(NamedTuple):
    """What threads were in at one moment."""

    at_s: float
    "The moment, by `time.perf_counter`."
    until_s: float
    "The end of the time that it stands for; that begins with the end of the one before."
    lines: dict[int, bytes]
    "Native id of each thread -> its line, as `ThreadCalls.line` has it."


class TimedCalls:
    """Moments at which the lines of threads are read. For one thread alone, which blocks signals; see `opened`.

    Note:
      POSIX asynchronous I/O executes lists of requests. glibc does so on threads of its own; it is told to use a single
      one, which takes the requests in their order. Each moment is a list: the read of a timer, which blocks until then,
      and the reads of the files. Two requests for one descriptor would not keep this order, so each place for a moment
      has descriptors of its own.
    """

    #: The process whose glibc has the thread. In a child of it glibc would still count on it, and execute nothing.
    _pid: int | None = None

    #: The places whose requests have not ended. glibc writes into their buffers, also if they were not closed.
    _under_way: ClassVar[set[_Place]] = set()

    def __init__(self, prompt: Any, patient: Any, places: int) -> None:
        self._free = [_Place(prompt, patient) for _ in range(places)]
        self._planned: list[_Place] = []

    @classmethod
    def opened(cls, places: int) -> TimedCalls | None:
        """Returns: Places for so many moments; None without glibc, in a child of a process that had one, or where the
        system refuses.
        """
        if TimedCalls._pid not in (None, os.getpid()) or ctypes.sizeof(_Request) != _REQUEST_BYTES:
            return None
        try:
            prompt, patient = _libraries()
            if TimedCalls._pid is None:
                prompt.aio_init(ctypes.byref(_AioSettings(threads=1, requests=64, idle_s=1)))
                TimedCalls._pid = os.getpid()
            opened = cls(prompt, patient, places)
        except (OSError, AttributeError):
            return None
        if opened._keeps_order():
            return opened
        opened.close()
        return None

    def _keeps_order(self) -> bool:
        """Returns: False where the application had asynchronous I/O before, and glibc has several threads for it.

        Then another thread does the read behind a timer that has not ended. A busy machine may let that one wait for a
        processor: so the threads are looked at until all are blocked. Several times, as glibc's first one begins the
        second one.
        """
        until_s = time.perf_counter() + _LONGEST_S
        self.plan(until_s + _FAR_S, until_s + _FAR_S, {threading.get_native_id()})
        (place,) = self._planned
        lines = ThreadCalls()
        looks = 0
        while looks < _LOOKS and not place.is_any_done() and time.perf_counter() < until_s:
            time.sleep(_LOOK_S)
            looks = looks + 1 if _are_blocked(lines) else 0
        is_kept = not place.is_any_done()
        place.set_timer(time.perf_counter())
        self.take(1)
        return is_kept

    @property
    def planned(self) -> int:
        """How many moments are planned and were not taken yet."""
        return len(self._planned)

    @property
    def free(self) -> int:
        """How many more can be planned."""
        return len(self._free)

    def plan(self, at_s: float, until_s: float, native_ids: Collection[int]) -> None:
        """Plans a moment after all that are planned.

        Parameters:
          at_s: The moment, by `time.perf_counter`.
          until_s: The end of the time that it stands for.
          native_ids: The threads.

        Raises:
          OSError: The C library takes no more requests.
        """
        place = self._free[0]
        self._under_way.add(place)
        place.submit(at_s, until_s, frozenset(native_ids))
        self._planned.append(self._free.pop(0))

    def take(self, count: int) -> list[Moment]:
        """Waits for the first planned moments. Returns: These, and the further ones that have passed."""
        if self._planned:
            self._planned[min(count, len(self._planned)) - 1].wait()
        found = []
        while self._planned and self._planned[0].is_done():
            place = self._planned.pop(0)
            found.append(place.moment())
            self._free.append(place)
            self._under_way.discard(place)
        return found

    def close(self) -> None:
        """Waits for all that is planned, and closes the descriptors."""
        self.take(self.planned)
        if TimedCalls._pid == os.getpid():  # In a child glibc's lock may be held for ever.
            for place in self._free:
                place.forget()
        self._free.clear()


class _Place:
    """The requests of one moment, which are used again for others."""

    def __init__(self, prompt: Any, patient: Any) -> None:
        self._prompt, self._patient = prompt, patient
        timer = prompt.timerfd_create(_CLOCK_MONOTONIC, os.O_CLOEXEC)
        if timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._timer = KeptFile(timer, _TIMER_BYTES)
        self._files: dict[int, KeptFile | None] = {}
        self._requests: Any = ()
        self._pointers: Any = None
        self._buffers: list[Any] = []
        self._read: list[int] = []
        "The threads whose lines are read, in the order of the requests."
        self._at_s = self._until_s = 0.0

    def submit(self, at_s: float, until_s: float, native_ids: frozenset[int]) -> None:
        # glibc looks at a request once more after it has ended, before it releases the lock that `lio_listio` takes.
        ended = self._requests, self._pointers, self._buffers
        if native_ids != self._files.keys() or not self._requests:
            self._prepare(native_ids)
        self._at_s, self._until_s = at_s, until_s
        self.set_timer(at_s)
        if self._prompt.lio_listio(_NO_WAIT, self._pointers, len(self._requests), None) < 0:
            error = ctypes.get_errno()
            self.wait()  # Some requests may have been taken.
            raise OSError(error, "lio_listio")
        del ended

    def set_timer(self, at_s: float) -> None:
        """Sets when the timer ends, also while it is read."""
        seconds, nanoseconds = divmod(int(at_s * _NS), _NS)
        first = _TimerSettings(first_s=seconds, first_ns=nanoseconds)
        if self._prompt.timerfd_settime(self._timer.descriptor, _ABSOLUTE, ctypes.byref(first), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def forget(self) -> None:
        """Forgets the requests, which have ended."""
        # There is nothing to cancel: the call waits for glibc's lock; see `submit`.
        self._prompt.aio_cancel(self._timer.descriptor, None)
        self._requests, self._pointers, self._buffers = (), None, []

    def _prepare(self, native_ids: frozenset[int]) -> None:
        for native_id in self._files.keys() - native_ids:
            del self._files[native_id]
        for native_id in native_ids - self._files.keys():
            self._files[native_id] = KeptFile.opened(Path(f"/proc/self/task/{native_id}/syscall"), _MAX_BYTES)
        opened = {native_id: file for native_id, file in self._files.items() if file is not None}
        descriptors = [self._timer.descriptor, *(file.descriptor for file in opened.values())]
        self._read = list(opened)
        self._buffers = [ctypes.create_string_buffer(_MAX_BYTES) for _ in descriptors]
        self._requests = (_Request * len(descriptors))()
        for request, descriptor, buffer in zip(self._requests, descriptors, self._buffers, strict=True):
            request.descriptor, request.operation, request.event.notify = descriptor, _READ, _NO_SIGNAL
            request.buffer, request.size = ctypes.addressof(buffer), _MAX_BYTES
        self._pointers = (ctypes.c_void_p * len(descriptors))(*map(ctypes.addressof, self._requests))

    def is_done(self) -> bool:
        return all(request.error != errno.EINPROGRESS for request in self._requests)

    def is_any_done(self) -> bool:
        return any(request.error != errno.EINPROGRESS for request in self._requests)

    def wait(self) -> None:
        for request, at in zip(
            reversed(self._requests), reversed(self._pointers), strict=True
        ):  # The last one is last.
            while request.error == errno.EINPROGRESS:
                self._patient.aio_suspend(ctypes.byref(ctypes.c_void_p(at)), 1, None)  # A signal may end it early.

    def moment(self) -> Moment:
        lines = dict.fromkeys(self._files, b"")
        for native_id, request, buffer in zip(self._read, self._requests[1:], self._buffers[1:], strict=True):
            lines[native_id] = buffer.raw[: max(request.returned, 0)]
        return Moment(self._at_s, self._until_s, lines)


def _are_blocked(lines: ThreadCalls) -> bool:
    """Returns: Whether no thread but those of Python runs, or waits for a processor."""
    of_python = {thread.native_id for thread in threading.enumerate()}
    others = set(map(int, os.listdir("/proc/self/task"))) - of_python
    return not any(lines.line(native_id).startswith(b"running") for native_id in others)


def _libraries() -> tuple[Any, Any]:
    """Returns: glibc's asynchronous I/O, by calls that keep the GIL, and by calls that give it up.

    Raises: OSError or AttributeError where there is no glibc.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, "only Linux has timers as files")
    libc = ctypes.PyDLL(None, use_errno=True)
    _ = libc.gnu_get_libc_version  # Another C library takes lists of requests in another order.
    name = None if hasattr(libc, "aio_init") else "librt.so.1"  # Before glibc 2.34 it was a library of its own.
    return ctypes.PyDLL(name, use_errno=True), ctypes.CDLL(name, use_errno=True)
