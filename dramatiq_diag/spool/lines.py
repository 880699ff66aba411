"""Writes the records of an entry as lines of JSON, and reads lines back, with memory that has a bound."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO

from pydantic_core import to_json

from ..runtime.bounded_reading import lines, read_up_to
from .schema import Record

#: A line longer than this is left out when an entry is read, in bytes. A record of the log takes half of it at most.
MAX_LINE_BYTES = 1024**2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes of an entry, in bytes."""

    text: int = 256 * 1024**2
    "The most that the texts of one run may take: what comes after that is left out."
    memory: int = 1024**2
    "The most that is kept in memory of one run, because the disk does not take it."
    head: int = 512 * 1024**2
    """Of an entry longer than head and tail together only these are read.

    Older versions wrote entries that were larger than `text`: 350 MiB for a task of 24 hours.
    """
    tail: int = 1024**2


LIMITS = Limits()

TOO_LARGE: dict[str, Any] = {"cut": "Its entry in the spool was too large to be read as a whole."}


def encode(record: Record) -> bytes:
    """Returns: A record as JSON. Raises: TypeError, ValueError when it is not what JSON can hold."""
    try:
        return to_json(record)  # Takes a third of the time of `json.dumps`, right after a task that filled the caches.
    except ValueError:  # A text that is no Unicode, most likely; the other escapes it.
        return json.dumps(record, default=_text_of).encode()


def _text_of(value: object) -> str:
    if isinstance(value, datetime | uuid.UUID):
        return str(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def cut_record(limits: Limits, *, is_large: bool) -> Record:
    """Returns: The record that stands for texts that were left out: they are too large, or the disk took no more."""
    if is_large:
        return {"cut": f"The spool keeps {limits.text} bytes of the texts of a run; the rest was left out."}
    kept = f"The disk took nothing more, and {limits.memory} bytes of a run are kept in memory"
    return {"cut": f"{kept}; the rest of its texts was left out."}


def read_lines(file: BinaryIO, limits: Limits) -> Iterator[bytes | None]:
    """Yields the lines of an entry; None where some were left out."""
    size_bytes = os.fstat(file.fileno()).st_size
    if size_bytes <= limits.head + limits.tail:
        yield from lines(file, MAX_LINE_BYTES, size_bytes)
        return
    yield from lines(file, MAX_LINE_BYTES, limits.head)
    yield None
    file.seek(size_bytes - limits.tail)
    file.readline(MAX_LINE_BYTES)  # The end of a line.
    yield from lines(file, MAX_LINE_BYTES, limits.tail)


def read_ends(file: BinaryIO, limits: Limits) -> bytes:
    """Returns: All lines of an entry, or the first and the last of a large one."""
    size_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size_bytes <= limits.memory:
        return read_up_to(file, size_bytes)
    half_bytes = limits.memory // 2
    head = read_up_to(file, half_bytes)
    file.seek(size_bytes - half_bytes)
    return b"\n".join((head, encode(cut_record(limits, is_large=False)), read_up_to(file, half_bytes)))


def parse(line: bytes) -> dict[str, Any] | None:
    """Returns: The record of a line, or None for an empty, a torn or a foreign line."""
    if not line:  # Each second line is: an append begins and ends with a line break.
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None
