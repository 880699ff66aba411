"""Reads small files of the kernel that are kept open, without giving up the GIL."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

#: Through `PyDLL` the thread keeps the GIL. Python's own functions give it up, and wait for it after each call.
LIBC = ctypes.PyDLL(None) if sys.platform == "linux" else None
#: Its arguments have no declared types: to convert them takes 5 us when the processor's caches have other code.
PREAD: Any = None if LIBC is None else LIBC.pread

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
        self._buffers: list[Any] = []
        "Those that no thread reads into just now."
        self._link = _link_of(descriptor)

    @classmethod
    def opened(cls, path: Path, max_bytes: int) -> KeptFile | None:
        """Returns: The file; None where there is no such file, or no descriptor is left."""
        if LIBC is None:
            return None
        descriptor = LIBC.open(os.fsencode(path), os.O_RDONLY | os.O_CLOEXEC)
        return None if descriptor < 0 else cls(descriptor, max_bytes)

    def read(self) -> bytes:
        """Returns: Its bytes now; empty if they cannot be read."""
        try:
            buffer = self._buffers.pop()
        except IndexError:
            buffer = ctypes.create_string_buffer(self._max_bytes)
        count = PREAD(self.descriptor, buffer, self._max_bytes, 0)
        text: bytes = buffer[:count] if count > 0 else b""
        self._buffers.append(buffer)
        return text

    def __del__(self) -> None:
        # An application that closes all descriptors, as daemons do, may have another file under this number.
        if self._link and _link_of(self.descriptor) == self._link:
            with suppress(OSError):
                os.close(self.descriptor)


def _link_of(descriptor: int) -> bytes:
    """Returns: What the kernel says is open under a number; empty if nothing is."""
    assert LIBC is not None
    buffer = ctypes.create_string_buffer(_MAX_LINK_BYTES)
    count = LIBC.readlink(b"/proc/self/fd/%d" % descriptor, buffer, _MAX_LINK_BYTES)
    return buffer.raw[: max(count, 0)]
