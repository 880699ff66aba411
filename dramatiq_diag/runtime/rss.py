"""Reads the resident set size (RSS) of this process."""

from __future__ import annotations

from mmap import PAGESIZE
from pathlib import Path

import psutil

from .kept_file import KeptFile

#: Its second number is the RSS in pages; see proc(5).
_STATM = Path("/proc/self/statm")
_MAX_BYTES = 200


class RssReader:
    """Reads the RSS of the process that made it; made after the fork.

    psutil opens, reads and closes a file in five system calls. A thread gives up the GIL in each of them, and may wait
    for it afterwards. So the file is kept open, and one call reads it without giving up the GIL.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._file = KeptFile.opened(_STATM, _MAX_BYTES)

    def rss_bytes(self) -> int:
        """Returns: The RSS now. `ru_maxrss` would never fall."""
        pages = b"" if self._file is None else self._file.read()
        return int(pages.split()[1]) * PAGESIZE if pages else int(self._process.memory_info().rss)

    def close(self) -> None:
        """Closes the file."""
        self._file = None
