"""Writes and reads the spool entry of one run, and keeps in memory the records that the disk does not take."""

from __future__ import annotations

import os
import stat
import threading
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from ..runtime.bounded_reading import contains
from .lines import LIMITS, MAX_LINE_BYTES, TOO_LARGE, Limits, cut_record, encode, parse, read_ends, read_lines
from .schema import Record

ENTRY_SUFFIX = "entry"

#: An entry of this size, or smaller, belongs to no run yet. One byte is left when it is emptied: ext4, at least, writes
#: a file that was truncated to nothing to the disk as soon as it is closed, and most entries do not live so long.
EMPTY_BYTES = 1

#: How the file of an entry is opened.
_APPENDING = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Entry:
    """One run's entry: appended to while the run runs, read when it is published, then removed.

    Parameters:
      run_id: The run's id, which names its files.
      limits: How much of it is written, kept in memory, and read.
    """

    _descriptor = -1

    def __init__(self, owner: Path, run_id: uuid.UUID, limits: Limits = LIMITS) -> None:
        self.owner = owner
        self.run_id = run_id
        self.error: OSError | None = None
        "The last error of writing a record."
        self._prefix = f"{owner}/{run_id}."  # Paths are made by the thousand a second, which pathlib is too slow for.
        self._held: list[bytes] | None = []
        self._tried: tuple[int, bytes] | None = None
        "The number of held lines that are being written, and their bytes."
        self._unwritten: list[bytes] = []
        self._limits = limits
        self.memory_bytes = 0
        "The bytes that are in memory alone, because the disk did not take them."
        self.is_declined = False
        "Whether it stays in memory, as the spool is full. No collector of its run starts."
        self._is_without_file = False
        "Whether its file could not be made."
        self._is_parked = False
        "Whether its file is closed until `reopen`."
        # Threads that append and the one that closes the file: between a look at the descriptor and the write, another
        # file might get the same number. The kernel lets appends to one file wait for each other as well.
        self._lock = threading.Lock()
        self._text_bytes = 0
        self._is_cut = False

    def create(self) -> None:
        """Makes the file, and keeps it open for `append`."""
        flags = _APPENDING | os.O_CREAT | os.O_EXCL
        try:
            # On a task's thread an interrupt may strike between a call and the assignment: the descriptor would leak.
            # `map` makes the call in C, and no interrupt can strike between it and the assignment.
            [self._descriptor] = map(os.open, (self._prefix + ENTRY_SUFFIX,), (flags,), (0o600,))
        except OSError as error:
            self.error = error
            self._is_without_file = True

    def __del__(self) -> None:
        # An interrupt may strike after an entry was taken from the pool and before a run has it. The file stays until
        # the worker ends: a process that a task forks has copies of the entries, and must not remove any.
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def recycled(self) -> Entry:
        """Empties the file, and gives it to a new run. On many disks that costs less than to make another one.

        Raises:
          OSError: When that cannot be done; the entry may be empty by then.
        """
        entry = Entry(self.owner, uuid.uuid4(), self._limits)
        descriptor = os.open(self._prefix + ENTRY_SUFFIX, _APPENDING)
        try:
            os.ftruncate(descriptor, EMPTY_BYTES)
            os.rename(self._prefix + ENTRY_SUFFIX, entry._prefix + ENTRY_SUFFIX)
        except OSError:
            os.close(descriptor)
            raise
        entry._descriptor = descriptor
        return entry

    def append(self, *records: Record) -> None:
        """Appends records in one write, or with the next `flush` while they are held back.

        Lines that the disk does not take are kept in memory and published from there. An empty line precedes each
        record, so that a line which a full disk tore spoils no other.

        Raises:
          TypeError, ValueError: When a record is not what JSON can hold.
        """
        lines, is_cut = [], self._is_cut
        for record in records:
            line = b"\n%b\n" % encode(record)
            if "to" in record:
                self._text_bytes += len(line)
                has_room = self.memory_bytes + len(line) <= self._limits.memory
                if self._text_bytes <= self._limits.text and has_room:
                    lines.append(line)
                    continue
                if is_cut:
                    continue
                cut = cut_record(self._limits, is_large=self._text_bytes > self._limits.text)
                line, is_cut = b"\n%b\n" % encode(cut), True
            lines.append(line)
        held = self._held
        if held is None:
            self._put(lines)
        else:
            held += lines
        self._is_cut = is_cut

    def _put(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        try:
            with self._lock:
                is_written = self._descriptor >= 0 and os.write(self._descriptor, data) == len(data)
            if not is_written:
                self._keep(lines)
        except OSError as error:
            self.error = error
            self._keep(lines)

    def _keep(self, lines: list[bytes]) -> None:
        self._unwritten += lines
        self.memory_bytes += sum(map(len, lines))

    def buffer(self) -> None:
        """Holds records back until `flush`: each write releases the GIL, and may wait to get it again."""
        if self._held is None:
            self._held = []

    def flush(self) -> None:
        """Writes the records that were held back, in one write. A new entry holds records back.

        An interrupt of Dramatiq may strike at any point, most likely right after the system call. So no line is dropped
        before it is written, and the next call checks whether the previous write was done.
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
        if held:  # Another thread has appended in between.
            self._put(held)

    def _contains(self, data: bytes) -> bool:
        """Returns: Whether these lines are in the file, at its end."""
        try:
            with self.open(ENTRY_SUFFIX) as file:
                # Behind the lines there may be what other threads appended: less than the longest line.
                file.seek(max(file.seek(0, os.SEEK_END) - len(data) - MAX_LINE_BYTES, 0))
                return contains(file, data)
        except OSError:
            return False

    def close(self) -> None:
        """Closes the file. The content of a file that someone removed meanwhile is kept in memory."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            return
        with open(descriptor, "rb") as file:
            if os.fstat(descriptor).st_nlink == 0:
                data = read_ends(file, self._limits)
                self._unwritten.insert(0, data)
                self.memory_bytes += len(data)

    def park(self) -> None:
        """Closes the file until `reopen`, so that many entries may wait. What is appended meanwhile stays in memory.

        A file that someone removed is left open: its content could not be read again.
        """
        with self._lock:
            if self._descriptor < 0 or os.fstat(self._descriptor).st_nlink == 0:
                return
            descriptor, self._descriptor, self._is_parked = self._descriptor, -1, True
            os.close(descriptor)

    def reopen(self) -> bool:
        """Opens the file of an entry that was parked. Returns: False where someone has removed it meanwhile."""
        if not self._is_parked:
            return True
        self._is_parked = False
        try:
            self._descriptor = os.open(self._prefix + ENTRY_SUFFIX, _APPENDING)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            self.error = error  # What is appended stays in memory.
        return True

    @property
    def in_memory(self) -> bool:
        """Whether some of it is in memory alone, because the disk did not take it."""
        return bool(self._unwritten)

    def in_memory_from(self, place: int) -> list[bytes]:
        """Returns: The lines that are in memory alone, without the first *place* pieces."""
        return self._unwritten[place:]

    def path(self, suffix: str) -> Path:
        """Returns: Where the file of an artifact is to be written."""
        return Path(self._prefix + suffix)

    def write_file(self, suffix: str, text: str | Iterable[str]) -> None:
        """Writes a file, whole or not at all; one that is there is replaced. Raises: OSError."""
        temporary = f"{self._prefix}{suffix.partition('.')[0]}.tmp"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.writelines([text] if isinstance(text, str) else text)
            os.rename(temporary, self._prefix + suffix)
        except BaseException:  # Also one of the iterable: a file that stays would make every later call fail.
            with suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(temporary)
            raise

    def open(self, suffix: str) -> BinaryIO:
        """Opens the file of an artifact, and nothing but a regular file. Raises: OSError."""
        descriptor = os.open(self._prefix + suffix, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.path(suffix)} is not a regular file")
        return open(descriptor, "rb")

    def size_bytes(self, suffix: str) -> int:
        """Returns: The size of the file of an artifact; 0 where there is no regular file."""
        try:
            status = os.lstat(self._prefix + suffix)
        except OSError as error:
            if self._is_absent(error):
                return 0
            raise
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def written_at(self) -> datetime | None:
        """Returns: When it was last written to, by the clock of its file system; None where there is no file."""
        try:
            return datetime.fromtimestamp(os.lstat(self._prefix + ENTRY_SUFFIX).st_mtime, UTC)
        except OSError:
            return None

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields the records that can be read, without torn and foreign lines.

        A record `cut`, with the reason, stands for lines that had to be left out.

        Raises:
          OSError: When the entry cannot be read.
        """
        try:
            with self.open(ENTRY_SUFFIX) as file:
                for line in read_lines(file, self._limits):
                    if line is None:
                        yield TOO_LARGE
                    elif (record := parse(line)) is not None:
                        yield record
        except OSError as error:
            if not (self._unwritten and self._is_absent(error)):
                raise
        for data in self._unwritten:
            yield from filter(None, map(parse, data.split(b"\n")))

    def remove(self, suffixes: Iterable[str]) -> None:
        """Removes files, the entry itself last: until then it can be published again. Raises: OSError."""
        self.remove_files(suffix for suffix in suffixes if suffix != ENTRY_SUFFIX)
        self.remove_files([ENTRY_SUFFIX])

    def remove_files(self, suffixes: Iterable[str]) -> None:
        """Removes files of artifacts. Raises: OSError."""
        for suffix in suffixes:
            try:
                os.unlink(self._prefix + suffix)
            except OSError as error:
                if not self._is_absent(error):
                    raise

    def _is_absent(self, error: OSError) -> bool:
        """Returns: Whether there is no such file: in a directory that could not be written, nothing of ours is."""
        is_missing = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return is_missing or (self._is_without_file and isinstance(error, PermissionError))
