"""Reads small files of the kernel that are kept open, without giving up the GIL."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path

#: Through `PyDLL` the thread keeps the GIL. Python's own functions give it up, and wait for it after each read.
_LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None
if _LIBC is not None:  # So that a call need not find out how to pass its arguments.
    _LIBC.pread.argtypes = ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long


class KeptFile:
    """A file that is closed with this object. Each thread needs one of its own; see `KeptFile.opened`.

    Parameters:
      descriptor: Its descriptor.
      max_bytes: The most bytes that are read.
    """

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self.descriptor = descriptor
        self._max_bytes = max_bytes
        self._buffer = ctypes.create_string_buffer(max_bytes)
        self._address = ctypes.addressof(self._buffer)
        self._identity = _identity_of(descriptor)

    @classmethod
    def opened(cls, path: Path, max_bytes: int) -> KeptFile | None:
        """Returns: The file; None where there is no such file, or no descriptor is left."""
        if _LIBC is None:
            return None
        try:
            return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC), max_bytes)
        except OSError:
            return None

    def read(self) -> bytes:
        """Returns: Its bytes now; empty if they cannot be read."""
        assert _LIBC is not None
        count = _LIBC.pread(self.descriptor, self._address, self._max_bytes, 0)
        return self._buffer.raw[: max(count, 0)]

    def __del__(self) -> None:
        # An application that closes all descriptors, as daemons do, may have another file under this number.
        with suppress(OSError):
            if _identity_of(self.descriptor) == self._identity:
                os.close(self.descriptor)


def _identity_of(descriptor: int) -> tuple[int, int]:
    """Returns: The device and the inode of an open file. Raises: OSError where nothing is open."""
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
