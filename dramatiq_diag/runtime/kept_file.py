"""Reads small files of the kernel that are kept open, without giving up the GIL."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

#: Through `PyDLL` the thread keeps the GIL. Python's own functions give it up, and wait for it after each call.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None
if _LIBC is not None:  # So that a call need not find out how to pass its arguments.
    _LIBC.open.argtypes = ctypes.c_char_p, ctypes.c_int
    _LIBC.pread.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long
    _LIBC.readlink.argtypes = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t

_MAX_LINK_BYTES = 500


class KeptFile:
    """A file that is closed with this object; any thread may read it. See `KeptFile.opened`.

    Parameters:
      descriptor: Its descriptor.
      max_bytes: The most bytes that are read.
    """

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self.descriptor = descriptor
        self._max_bytes = max_bytes
        self._buffer = ctypes.c_char * max_bytes
        self._link = _link_of(descriptor)

    @classmethod
    def opened(cls, path: Path, max_bytes: int) -> KeptFile | None:
        """Returns: The file; None where there is no such file, or no descriptor is left."""
        if _LIBC is None:
            return None
        descriptor = _LIBC.open(os.fsencode(path), os.O_RDONLY | os.O_CLOEXEC)
        return None if descriptor < 0 else cls(descriptor, max_bytes)

    def read(self) -> bytes:
        """Returns: Its bytes now, up to the first null byte; empty if they cannot be read."""
        assert _LIBC is not None
        buffer = self._buffer()  # Two threads may read at once. All of it is zero.
        _LIBC.pread(self.descriptor, buffer, self._max_bytes, 0)
        return buffer.value

    def __del__(self) -> None:
        # An application that closes all descriptors, as daemons do, may have another file under this number.
        if self._link and _link_of(self.descriptor) == self._link:
            with suppress(OSError):
                os.close(self.descriptor)


def _link_of(descriptor: int) -> bytes:
    """Returns: What the kernel says is open under a number; empty if nothing is."""
    assert _LIBC is not None
    buffer = ctypes.create_string_buffer(_MAX_LINK_BYTES)
    count = _LIBC.readlink(b"/proc/self/fd/%d" % descriptor, buffer, _MAX_LINK_BYTES)
    return buffer.raw[: max(count, 0)]
