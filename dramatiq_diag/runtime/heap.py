"""Reads how much memory of this process is live: in the C library's heap, and in Python's own allocator."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

#: The line of CPython's statistics that has the bytes in live objects of at most 512 bytes.
_SMALL_BYTES = re.compile(rb"^# bytes in allocated blocks +=[ ]+([0-9,]+)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Heap:
    """The live memory of the process at one moment."""

    small_bytes: int
    "The bytes in live objects of at most 512 bytes, which Python keeps apart from the C library's heap."
    in_use_bytes: int
    "The bytes of the C library's heap that are in use, with those that it mapped singly."
    free_bytes: int
    "The bytes that this heap keeps free: the kernel still counts those that were touched as the process's."

    @property
    def live_bytes(self) -> int:
        """All that is in use."""
        return self.small_bytes + self.in_use_bytes


class _Mallinfo2(ctypes.Structure):
    """The struct of mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


class HeapReader:
    """Reads the live memory of this process.

    It needs no right, and keeps the GIL meanwhile: all numbers are of one moment. Both readings walk the heap, which
    takes 20 us in a small process, some 300 us in one with 40 MB of small objects, and milliseconds with gigabytes.
    """

    def __init__(self) -> None:
        self._library = ctypes.PyDLL(None)  # Unlike a `CDLL` it does not let go of the GIL.
        self._mallinfo: Callable[[], _Mallinfo2] | None = getattr(self._library, "mallinfo2", None)
        if self._mallinfo is not None:
            self._mallinfo.restype = _Mallinfo2
        self._write_statistics = _statistics_of(self._library)
        self._has_small = sys.getallocatedblocks() > 0
        "Not with `PYTHONMALLOC=malloc`: then all objects are in the C library's heap."

    def read(self) -> Heap | None:
        """Returns: The live memory now.

        None where the platform does not tell (musl, macOS), and while something replaces Python's allocator, as
        tracemalloc does.
        """
        if self._mallinfo is None or (small_bytes := self._small_bytes()) is None:
            return None
        info = self._mallinfo()
        return Heap(small_bytes=small_bytes, in_use_bytes=info.uordblks + info.hblkhd, free_bytes=info.fordblks)

    def _small_bytes(self) -> int | None:
        if not self._has_small:
            return 0
        if self._write_statistics is None:
            return None
        text, length = ctypes.c_void_p(), ctypes.c_size_t()
        stream = self._library.open_memstream(ctypes.byref(text), ctypes.byref(length))
        if not stream:
            return None
        try:
            self._write_statistics(stream)
        finally:
            self._library.fclose(stream)
        try:
            found = _SMALL_BYTES.search(ctypes.string_at(text.value or 0, length.value)) if text.value else None
        finally:
            self._library.free(text)
        return None if found is None else int(found[1].replace(b",", b""))


def _statistics_of(library: ctypes.PyDLL) -> Callable[[int], object] | None:
    """Returns: The function of CPython behind `sys._debugmallocstats`, which writes to a C stream; None without it."""
    write = getattr(ctypes.pythonapi, "_PyObject_DebugMallocStats", None)
    if write is None or not hasattr(library, "open_memstream"):
        return None
    write.argtypes = [ctypes.c_void_p]
    library.open_memstream.restype = ctypes.c_void_p
    library.open_memstream.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    library.fclose.argtypes = [ctypes.c_void_p]
    library.free.argtypes = [ctypes.c_void_p]
    function: Callable[[int], object] = write
    return function
