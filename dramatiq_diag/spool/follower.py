"""Reads the entry of a running run while it grows: each time what was appended since the time before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .entry import ENTRY_SUFFIX, Entry
from .lines import MAX_LINE_BYTES, parse

#: The most that is read at once, in bytes; the rest is read the next time.
_MAX_READ_BYTES = 4 * 1024**2


class EntryFollower:
    """Reads the records of one entry, each once.

    Parameters:
      entry: The entry; another thread may append to it.
      max_read_bytes: The most that is read at once.
    """

    def __init__(self, entry: Entry, max_read_bytes: int = _MAX_READ_BYTES) -> None:
        self._entry = entry
        self._max_read_bytes = max_read_bytes
        self._read_bytes = self._read_pieces = 0

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields the records that came since the last call; none once the entry is removed."""
        yield from filter(None, map(parse, self._lines()))
        for piece in self._entry.in_memory_from(self._read_pieces):
            self._read_pieces += 1
            yield from filter(None, map(parse, piece.split(b"\n")))

    def _lines(self) -> Iterator[bytes]:
        try:
            file = self._entry.open(ENTRY_SUFFIX)
        except OSError:  # The run has ended and was published; or the disk takes nothing, and it is all in memory.
            return
        with file:
            file.seek(self._read_bytes)
            until = self._read_bytes + self._max_read_bytes
            while self._read_bytes < until:
                line = file.readline(MAX_LINE_BYTES)
                if not line.endswith(b"\n") and len(line) < MAX_LINE_BYTES:  # It is being written.
                    return
                self._read_bytes += len(line)
                yield line.rstrip(b"\n")
