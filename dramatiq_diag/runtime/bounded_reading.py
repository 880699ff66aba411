"""Reads files of any size with bounded memory."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes that are read at once. `file.read(n)` allocates n bytes first, even for a short file, and memray would show
#: them as the peak of the task that runs meanwhile.
PIECE_BYTES = 64 * 1024


def read_up_to(file: BinaryIO, max_bytes: int) -> bytes:
    """Returns: The rest of a file, up to *max_bytes*."""
    found = bytearray()
    while piece := file.read(min(PIECE_BYTES, max_bytes - len(found))):
        found += piece
    return bytes(found)


def contains(file: BinaryIO, data: bytes) -> bool:
    """Reads the rest of a file. Returns: Whether it contains these bytes."""
    before = b""
    while piece := file.read(PIECE_BYTES):
        before += piece
        if data in before:
            return True
        before = before[max(len(before) - len(data) + 1, 0) :]
    return False


def lines(file: BinaryIO, max_line_bytes: int, max_bytes: int) -> Iterator[bytes | None]:
    """Reads the lines in the rest of a file.

    Parameters:
      file: The file.
      max_line_bytes: The most bytes of a line.
      max_bytes: The most bytes that are read.

    Yields:
      Each line without its end; None for a line that is too long.
    """
    rest, is_skipping = b"", False
    while piece := file.read(min(PIECE_BYTES, max_bytes)):
        max_bytes -= len(piece)
        whole = (rest + piece).split(b"\n")
        rest = whole.pop()
        if is_skipping and whole:
            del whole[0]
            is_skipping = False
        for line in whole:
            yield line if len(line) <= max_line_bytes else None
        if is_skipping:
            rest = b""
        elif len(rest) > max_line_bytes:
            rest, is_skipping = b"", True
            yield None
    if rest:
        yield rest


class PiecesFile(io.RawIOBase):
    """A readable file whose bytes come from an iterator.

    Parameters:
      pieces: The bytes, in order. If it has a `close`, it is closed with the file.
    """

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer)
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = memoryview(piece)
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        super().close()


class RangeFile(io.RawIOBase):
    """A readable and seekable file over *size_bytes* bytes that are read range by range.

    Parameters:
      size_bytes: The size of the file.
      max_read_bytes: The most bytes of one read.
    """

    def __init__(self, size_bytes: int, max_read_bytes: int) -> None:
        super().__init__()
        self._size_bytes = size_bytes
        self._max_read_bytes = max_read_bytes
        self._position = 0

    def read_range(self, start: int, stop: int) -> bytes | memoryview:
        """Returns: The bytes from one offset up to another; fewer where the source has become shorter."""
        raise NotImplementedError

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        target = memoryview(buffer).cast("B")
        stop = min(self._position + min(len(target), self._max_read_bytes), self._size_bytes)
        if stop <= self._position:
            return 0
        part = self.read_range(self._position, stop)
        target[: len(part)] = part
        self._position += len(part)
        return len(part)
