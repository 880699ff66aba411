"""One run's entry in the spool."""

from __future__ import annotations

import json
import os
import stat
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from .errors import SpoolError

ENTRY_SUFFIX = "entry"

#: An entry larger than this is not one of ours, in bytes.
_MAX_ENTRY_BYTES = 256 * 1024**2

Record = dict[str, Any]


class Entry:
    """One run's entry: appended to while the run runs, read when it is published, then removed.

    Parameters:
      owner: The directory it stands in.
      run_id: The run's id, which names its files.
    """

    def __init__(self, owner: Path, run_id: uuid.UUID) -> None:
        self.owner = owner
        self.run_id = run_id
        self.error: OSError | None = None
        "What kept a record from being written."
        self._unwritten: list[Record] = []
        self._descriptor = -1

    def create(self) -> None:
        """Makes the file, and keeps it open for `append`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._descriptor = os.open(f"{self.owner}/{self.run_id}.{ENTRY_SUFFIX}", flags, 0o600)
        except OSError as error:
            self.error = error

    def append(self, *records: Record) -> None:
        """Appends records in one write; what the disk does not take is kept in memory and published from there.

        An empty line goes before each record, so that one which a full disk tore spoils no other.
        """
        data = "".join(f"\n{json.dumps(record)}\n" for record in records).encode()
        try:
            if self._descriptor < 0 or os.write(self._descriptor, data) != len(data):
                self._unwritten += records
        except OSError as error:
            self.error = error
            self._unwritten += records

    def close(self) -> None:
        """Ends the appending."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def path(self, kind: str) -> Path:
        """Returns: Where the file of an artifact is to be written."""
        return self.owner / f"{self.run_id}.{kind}"

    def open(self, kind: str) -> BinaryIO:
        """Opens the file of an artifact, and nothing but a regular file. Raises: OSError."""
        descriptor = os.open(self.path(kind), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(f"{self.path(kind)} is not a regular file")
        return open(descriptor, "rb")  # noqa: PTH123 - there is no path of a descriptor.

    def size_bytes(self, kind: str) -> int:
        """Returns: The size of the file of an artifact; 0 where there is no regular file."""
        try:
            status = self.path(kind).lstat()
        except FileNotFoundError:
            return 0
        return status.st_size if stat.S_ISREG(status.st_mode) else 0

    def records(self) -> list[Record]:
        """Returns: The records that can be read; torn and foreign lines are passed over.

        Raises:
          SpoolError: When the entry is too large to be one.
          OSError: When it cannot be read.
        """
        if self._descriptor < 0 and self._unwritten and not self.path(ENTRY_SUFFIX).exists():
            return list(self._unwritten)
        if self.size_bytes(ENTRY_SUFFIX) > _MAX_ENTRY_BYTES:
            raise SpoolError(f"{self.path(ENTRY_SUFFIX)} is too large for an entry.")
        with self.open(ENTRY_SUFFIX) as file:
            parsed = [_parse(line) for line in file if line != b"\n"]
        return [record for record in parsed if isinstance(record, dict)] + self._unwritten

    def remove(self, kinds: Iterable[str]) -> None:
        """Removes files, the entry itself last: until then it can be published again. Raises: OSError."""
        for kind in kinds:
            if kind != ENTRY_SUFFIX:
                self.path(kind).unlink(missing_ok=True)
        self.path(ENTRY_SUFFIX).unlink(missing_ok=True)


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
