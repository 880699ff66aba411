"""Reads memory of this process by address, also where it may be gone meanwhile."""

from __future__ import annotations

import os
import struct

from .kernel_files import KernelFiles

#: The most descriptors that are read of a call of `poll` or `select`.
_MAX_DESCRIPTORS = 64

#: The most bytes of a path.
_MAX_PATH = 4096

#: What a thread waits for on a descriptor: to read, to write.
Waited = tuple[int, bool]

_POLLIN, _POLLPRI, _POLLOUT = 1, 2, 4


class OwnMemory:
    """Reads by way of the kernel: a wrong address is an error there, and not the end of the process.

    Parameters:
      files: Reads /proc.
    """

    def __init__(self, files: KernelFiles) -> None:
        self._files = files

    def read(self, address: int, size: int) -> bytes:
        """Returns: Up to *size* bytes from an address; empty if they cannot be read."""
        return self._files.read_at("proc/self/mem", address, size) if 0 < address < 2**62 and size > 0 else b""

    def text(self, address: int) -> str:
        """Returns: The text up to the next zero byte; empty if it cannot be read."""
        page = 4096
        found = self.read(address, page - address % page)
        if b"\0" not in found:
            found += self.read(address + len(found), _MAX_PATH - len(found))
        return os.fsdecode(found.partition(b"\0")[0]) if b"\0" in found else ""

    def polled(self, address: int, count: int) -> list[Waited]:
        """Returns: The descriptors of the array that `poll` got, each with whether it waits to write."""
        data = self.read(address, 8 * min(count, _MAX_DESCRIPTORS))
        entries = struct.iter_unpack("=ihh", data[: len(data) // 8 * 8])
        return [(number, not events & (_POLLIN | _POLLPRI)) for number, events, _ in entries if number >= 0]

    def selected(self, count: int, to_read: int, to_write: int) -> list[Waited]:
        """Returns: The descriptors of the sets that `select` got, each with whether it waits to write."""
        reading = [(number, False) for number in self._bits(to_read, count)]
        return (reading + [(number, True) for number in self._bits(to_write, count)])[:_MAX_DESCRIPTORS]

    def seconds(self, address: int) -> float | None:
        """Returns: A `timespec` in seconds; None if it cannot be read."""
        data = self.read(address, 16)
        if len(data) != 16:
            return None
        whole, nanoseconds = struct.unpack("=qq", data)
        return int(whole) + int(nanoseconds) / 1e9

    def _bits(self, address: int, count: int) -> list[int]:
        data = int.from_bytes(self.read(address, (min(count, 1024) + 7) // 8), "little") if address else 0
        return [number for number in range(min(count, 1024)) if data >> number & 1]
