"""One run's entry in the spool."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import to_json

from .errors import SpoolError

ENTRY_SUFFIX = "entry"

#: An entry of this size, or smaller, is of no run yet. One byte is left when it is emptied: a file that was cut to
#: nothing is written to the disk at once when it is closed, at least by ext4, and most entries do not live so long.
EMPTY_BYTES = 1

#: An entry larger than this is not one of ours, in bytes.
_MAX_ENTRY_BYTES = 256 * 1024**2

Record = dict[str, Any]


def checkpoint_kind(kind: str) -> str:
    """Returns: The kind of the file that stands in for an artifact's until that is saved."""
    return f"{kind}.part"


class Entry:
    """One run's entry: appended to while the run runs, read when it is published, then removed.

    Parameters:
      owner: The directory it stands in.
      run_id: The run's id, which names its files.
    """

    _descriptor = -1

    def __init__(self, owner: Path, run_id: uuid.UUID) -> None:
        self.owner = owner
        self.run_id = run_id
        self.error: OSError | None = None
        "What kept a record from being written."
        self._prefix = f"{owner}/{run_id}."  # Paths are made by the thousand a second, which pathlib is too slow for.
        self._held: list[bytes] | None = []
        self._tried: tuple[int, bytes] | None = None
        "How many of the lines held back are being written, and what that is."
        self._unwritten: list[bytes] = []

    def create(self) -> None:
        """Makes the file, and keeps it open for `append`."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            # On a task's thread an interrupt may strike after any call, and the descriptor would be lost before it is
            # noted. Here `map` makes the call and nothing can strike before the assignment.
            [self._descriptor] = map(os.open, (self._prefix + ENTRY_SUFFIX,), (flags,), (0o600,))
        except OSError as error:
            self.error = error

    def __del__(self) -> None:
        # An interrupt may strike when an entry was taken from those at hand and no run has noted it. The file stays
        # until the worker ends: a process that a task forks has copies of the entries, and must not remove any.
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def renewed(self) -> Entry:
        """Empties the file, and gives it to a new run: on many a disk that costs less than to remove it and make one.

        Raises:
          OSError: When that cannot be done; the entry may be empty by then.
        """
        entry = Entry(self.owner, uuid.uuid4())
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._prefix + ENTRY_SUFFIX, flags)
        try:
            os.ftruncate(descriptor, EMPTY_BYTES)
            os.rename(self._prefix + ENTRY_SUFFIX, entry._prefix + ENTRY_SUFFIX)
        except OSError:
            os.close(descriptor)
            raise
        entry._descriptor = descriptor
        return entry

    def append(self, *records: Record) -> None:
        """Appends records in one write, or with the next `write` while they are held back.

        What the disk does not take is kept in memory and published from there. An empty line goes before each record,
        so that one which a full disk tore spoils no other.

        Raises:
          TypeError, ValueError: When a record is not what JSON can hold.
        """
        lines = [b"\n%b\n" % _encode(record) for record in records]
        held = self._held
        if held is None:
            self._put(lines)
        else:
            held += lines

    def _put(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        try:
            if self._descriptor < 0 or os.write(self._descriptor, data) != len(data):
                self._unwritten += lines
        except OSError as error:
            self.error = error
            self._unwritten += lines

    def hold(self) -> None:
        """Holds back what is appended, until `write`: each write lets go of the GIL, and may wait to have it again."""
        if self._held is None:
            self._held = []

    def write(self) -> None:
        """Writes what was held back, in one go. An entry holds back from its creation.

        An interrupt of Dramatiq's may strike at any point, and right after the system call most of all: nothing is let
        go of before it is written, and the next call finds out what became of it.
        """
        held = self._held
        if held is None:
            return
        if self._tried is not None:
            (count, data), self._tried = self._tried, None
            if self._contains(data):
                del held[:count]
        while held:
            lines = held[:]
            self._tried = len(lines), b"".join(lines)
            self._put(lines)
            self._tried = None
            del held[: len(lines)]
        self._held = None
        if held:  # Another thread came in between.
            self._put(held)

    def _contains(self, data: bytes) -> bool:
        """Returns: Whether these lines are in the file."""
        try:
            with self.open(ENTRY_SUFFIX) as file:
                return data in file.read(_MAX_ENTRY_BYTES)
        except OSError:
            return False

    def close(self) -> None:
        """Ends the appending. What went into a file that someone removed meanwhile is kept in memory."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_nlink == 0:
                file.seek(0)
                self._unwritten.insert(0, file.read())

    @property
    def in_memory(self) -> bool:
        """Whether some of it is in memory alone, because the disk did not take it."""
        return bool(self._unwritten)

    def path(self, kind: str) -> Path:
        """Returns: Where the file of an artifact is to be written."""
        return Path(self._prefix + kind)

    def write_file(self, kind: str, text: str) -> None:
        """Writes a small file, whole or not at all; one that is there is replaced. Raises: OSError."""
        temporary = f"{self._prefix}{kind.partition('.')[0]}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            os.rename(temporary, self._prefix + kind)
        except OSError:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(temporary)
            raise

    def open(self, kind: str) -> BinaryIO:
        """Opens the file of an artifact, and nothing but a regular file. Raises: OSError."""
        descriptor = os.open(self._prefix + kind, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.path(kind)} is not a regular file")
        return open(descriptor, "rb")

    def size_bytes(self, kind: str) -> int:
        """Returns: The size of the file of an artifact; 0 where there is no regular file."""
        try:
            status = os.lstat(self._prefix + kind)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def records(self) -> list[Record]:
        """Returns: The records that can be read; torn and foreign lines are passed over.

        Raises:
          SpoolError: When the entry is too large to be one.
          OSError: When it cannot be read.
        """
        try:
            with self.open(ENTRY_SUFFIX) as file:
                data = file.read(_MAX_ENTRY_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            if not self._unwritten:
                raise
            data = b""
        if len(data) > _MAX_ENTRY_BYTES:
            raise SpoolError(f"{self.path(ENTRY_SUFFIX)} is too large for an entry.")
        return _parse_lines(data + b"".join(self._unwritten))

    def remove(self, kinds: Iterable[str]) -> None:
        """Removes files, the entry itself last: until then it can be published again. Raises: OSError."""
        self.remove_files(kind for kind in kinds if kind != ENTRY_SUFFIX)
        self.remove_files([ENTRY_SUFFIX])

    def remove_files(self, kinds: Iterable[str]) -> None:
        """Removes files of artifacts. Raises: OSError."""
        for kind in kinds:
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self._prefix + kind)


def _encode(record: Record) -> bytes:
    try:
        return to_json(record)  # Takes a third of the time of `json.dumps`, right after a task that had the caches.
    except ValueError:  # A text that is no Unicode, most likely; the other escapes it.
        return json.dumps(record, default=_text_of).encode()


def _text_of(value: object) -> str:
    if isinstance(value, datetime | uuid.UUID):
        return str(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def _parse_lines(data: bytes) -> list[Record]:
    parsed = (_parse(line) for line in data.split(b"\n") if line)
    return [record for record in parsed if isinstance(record, dict)]


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
