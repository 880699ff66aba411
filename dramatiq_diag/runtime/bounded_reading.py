"""Reads what others wrote, with memory that does not grow with the size of it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: Bytes that are read at once. `file.read(n)` allocates n bytes first, however short the file is, and memray would show
#: that as the peak of the task that runs meanwhile.
PIECE_BYTES = 64 * 1024


def read_up_to(file: BinaryIO, max_bytes: int) -> bytes:
    """Reads a file to its end, or so many bytes of it."""
    found = bytearray()
    while piece := file.read(min(PIECE_BYTES, max_bytes - len(found))):
        found += piece
    return bytes(found)


def contains(file: BinaryIO, data: bytes) -> bool:
    """Reads a file on from where it stands. Returns: Whether these bytes come."""
    before = b""
    while piece := file.read(PIECE_BYTES):
        before += piece
        if data in before:
            return True
        before = before[max(len(before) - len(data) + 1, 0) :]
    return False


def lines(file: BinaryIO, max_line_bytes: int, max_bytes: int) -> Iterator[bytes | None]:
    """Reads lines from where a file stands.

    Parameters:
      file: The file.
      max_line_bytes: How long a line may be.
      max_bytes: How much is read.

    Yields:
      Each line without its end; None for one that is too long.
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
    """A file to read whose bytes are made piece by piece.

    Parameters:
      pieces: The bytes, in order; an iterator that has a `close` is closed with the file.
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
