"""Reads Range headers, and opens parts of files."""

from __future__ import annotations

import re
from typing import BinaryIO

from ...runtime.bounded_reading import RangeFile

# NOTE: RFC 9110, section 14.2, allows a server to ignore malformed headers and several ranges at once.
_ONE_RANGE = re.compile(r"bytes[ \t]*=[ \t]*([0-9]{0,40})-([0-9]{0,40})[ \t]*", re.IGNORECASE)

#: The most bytes of one read; waitress asks for as many as a socket might take, and reads the rest again.
_MAX_READ_BYTES = 1 << 18


class UnsatisfiableRangeError(ValueError):
    """The range begins behind the end of the file."""


def parse_range(header: str | None, size_bytes: int) -> range | None:
    """Reads a Range header.

    Returns:
      The requested offsets; or None for the whole file, if there is no header, a malformed one, or several ranges.

    Raises:
      UnsatisfiableRangeError: When the range is outside of the file.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None:
        return None
    first, last = match.groups()
    if first:
        return _from_first(int(first), int(last) if last else size_bytes, size_bytes)
    if not last:
        return None
    length = int(last)
    if length == 0:
        raise UnsatisfiableRangeError
    return range(max(0, size_bytes - length), size_bytes) if size_bytes else None


def _from_first(first: int, last: int, size_bytes: int) -> range | None:
    if first >= size_bytes:
        raise UnsatisfiableRangeError
    return range(first, min(last + 1, size_bytes)) if first <= last else None


class Slice(RangeFile):
    """A part of a file as a file of its own. Closing it closes the whole file.

    It is seekable, so that waitress sends it from its main loop. It has no descriptor, because servers with `sendfile`
    would send the file from its beginning.

    Parameters:
      file: The whole file.
      offsets: The offsets of the part.
    """

    def __init__(self, file: BinaryIO, offsets: range) -> None:
        super().__init__(len(offsets), _MAX_READ_BYTES)
        self._file = file
        self._start = offsets.start

    def read_range(self, start: int, stop: int) -> bytes:
        self._file.seek(self._start + start)
        return self._file.read(stop - start)

    def close(self) -> None:
        self._file.close()
        super().close()
