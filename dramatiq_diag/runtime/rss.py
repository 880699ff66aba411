"""Reads the resident set size (RSS) of this process."""

from __future__ import annotations

import os

import psutil

#: Its second number is the RSS in pages; see proc(5).
_STATM = "/proc/self/statm"


class RssReader:
    """Reads the RSS of the process that made it; made after the fork.

    psutil opens, reads and closes a file in five system calls. A task's thread gives up the GIL in each of them, and
    may wait for it afterwards. So the file is kept open, and one call reads it.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._descriptor: int | None = None
        try:
            self._descriptor = os.open(_STATM, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # Not Linux.
            return
        self._page_bytes = os.sysconf("SC_PAGESIZE")

    def rss_bytes(self) -> int:
        """Returns: The RSS now. `ru_maxrss` would never fall."""
        if self._descriptor is None:
            return int(self._process.memory_info().rss)
        return int(os.pread(self._descriptor, 100, 0).split()[1]) * self._page_bytes

    def close(self) -> None:
        """Closes the file."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)
