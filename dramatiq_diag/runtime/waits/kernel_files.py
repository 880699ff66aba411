"""Reads files of /proc, most of them without giving up the GIL."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

#: Bytes that are read at once.
_PIECE_BYTES = 64 * 1024


class KernelFiles:
    """Reads files that the kernel makes when they are read, in a few microseconds each.

    Parameters:
      root: The directory that has `proc`.
      keeps_gil: Whether it keeps the GIL while it reads. Where the kernel may have to wait, as for the memory of
        another process, it must not: all threads of Python would wait as well.

    Note:
      Python's own functions give up the GIL at each call. A thread that waited for it then looks as if it ran; and if
      that one computes, this thread gets the GIL back 5 ms later, every time.
    """

    def __init__(self, root: Path, *, keeps_gil: bool) -> None:
        self._root = os.fsencode(root)
        is_linux = sys.platform == "linux"
        self._libc = ctypes.PyDLL(None, use_errno=True) if is_linux else None
        self._patient = self._libc if keeps_gil or not is_linux else ctypes.CDLL(None, use_errno=True)
        self.error = 0
        "The number of the error of the last call; 0 if there was none."

    def read(self, name: str, max_bytes: int = _PIECE_BYTES) -> bytes:
        """Returns: The first bytes of a file; empty if it cannot be read.

        Parameters:
          name: Its path below the root.
          max_bytes: The most bytes.
        """
        descriptor = self._open(name)
        if self._libc is None or self._patient is None or descriptor < 0:
            return b""
        data = b""
        buffer = ctypes.create_string_buffer(min(max_bytes, _PIECE_BYTES))
        while len(data) < max_bytes:
            count = self._checked(self._patient.read(descriptor, buffer, min(len(buffer), max_bytes - len(data))))
            if count <= 0:
                break
            data += buffer.raw[:count]
        self._libc.close(descriptor)
        return data

    def text(self, name: str, max_bytes: int = _PIECE_BYTES) -> str:
        """Returns: The same as a text in ASCII."""
        return self.read(name, max_bytes).decode("ascii", "replace")

    def read_at(self, name: str, offset: int, size: int) -> bytes:
        """Returns: Bytes from an offset; empty if they cannot be read."""
        descriptor = self._open(name)
        if self._libc is None or self._patient is None or descriptor < 0:
            return b""
        buffer = ctypes.create_string_buffer(size)
        count = self._checked(self._patient.pread(descriptor, buffer, size, ctypes.c_longlong(offset)))
        self._libc.close(descriptor)
        return buffer.raw[: max(count, 0)]

    def link(self, name: str) -> str:
        """Returns: The target of a symbolic link; empty if it cannot be read."""
        if self._patient is None:
            return ""
        buffer = ctypes.create_string_buffer(4096)
        count = self._checked(self._patient.readlink(self._path(name), buffer, len(buffer)))
        return os.fsdecode(buffer.raw[: max(count, 0)])

    def _open(self, name: str) -> int:
        if self._libc is None:
            self.error = errno.ENOSYS
            return -1
        return self._checked(self._libc.open(self._path(name), os.O_RDONLY | os.O_CLOEXEC))

    def path(self, name: str) -> str:
        """Returns: The whole path of a file."""
        return os.fsdecode(self._path(name))

    def _path(self, name: str) -> bytes:
        return os.path.join(self._root, os.fsencode(name))

    def _checked(self, result: int) -> int:
        self.error = ctypes.get_errno() if result < 0 else 0
        return result
