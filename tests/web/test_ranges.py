"""Which part of a file a Range header asks for."""

from __future__ import annotations

import io
import os

import pytest

from dramatiq_diag.web.http.ranges import Slice, UnsatisfiableRangeError, parse_range


@pytest.mark.parametrize(
    ("header", "size_bytes", "expected"),
    [
        # From one offset to another, both included.
        ("bytes=0-0", 10, range(1)),
        ("bytes=2-5", 10, range(2, 6)),
        ("Bytes = 2-5 ", 10, range(2, 6)),
        ("bytes=9-9", 10, range(9, 10)),
        # Open, and past the end.
        ("bytes=4-", 10, range(4, 10)),
        ("bytes=4-99999999999999999999999999", 10, range(4, 10)),
        # The last bytes.
        ("bytes=-3", 10, range(7, 10)),
        ("bytes=-99", 10, range(10)),
        ("bytes=-5", 0, None),
        # Ignored: none, several, another unit, malformed.
        (None, 10, None),
        ("", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("items=0-1", 10, None),
        ("bytes", 10, None),
        ("bytes=-", 10, None),
        ("bytes=5-2", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=--5", 10, None),
        ("bytes=1.0-2", 10, None),
        ("bytes=٣-٤", 10, None),
        ("bytes=0-1\n", 10, None),
        ("bytes=" + "9" * 10_000 + "-", 10, None),
    ],
)
def test_a_range_is_read_or_ignored(header: str | None, size_bytes: int, expected: range | None) -> None:
    assert parse_range(header, size_bytes) == expected


@pytest.mark.parametrize(
    ("header", "size_bytes"), [("bytes=10-", 10), ("bytes=10-3", 10), ("bytes=0-", 0), ("bytes=-0", 9)]
)
def test_a_range_behind_the_end_cannot_be_satisfied(header: str, size_bytes: int) -> None:
    with pytest.raises(UnsatisfiableRangeError):
        parse_range(header, size_bytes)


def test_a_slice_is_a_file_of_its_own_and_closes_the_whole() -> None:
    whole = io.BytesIO(b"0123456789")
    part = Slice(whole, range(3, 7))
    assert (part.read(2), part.tell(), part.read(), part.read()) == (b"34", 2, b"56", b"")
    assert part.seek(-1, os.SEEK_END) == 3
    assert part.read(100) == b"6"
    assert part.seek(1) == 1
    assert part.seek(1, os.SEEK_CUR) == 2
    assert part.read() == b"56"
    assert part.seek(99) == 99
    assert part.read() == b""
    with pytest.raises(OSError, match="fileno"):
        part.fileno()
    part.close()
    assert whole.closed
