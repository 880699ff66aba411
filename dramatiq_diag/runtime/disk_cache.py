"""Keeps files in a directory up to a number of bytes: the least recently used ones go first."""

from __future__ import annotations

import io
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..text import UUID_PATTERN
from . import directory_scan
from .private_files import make_directory

_NAME = re.compile(rf"(?P<id>{UUID_PATTERN})\.[0-9a-z.-]{{1,160}}")
_TEMPORARY_NAME = re.compile(r"\.[0-9a-f]{32}\.tmp")

#: Seconds after which a temporary file is that of a process that died.
_DEAD_S = 3600.0


class Entry(NamedTuple):
    """A file of the cache."""

    name: str
    source_id: uuid.UUID
    "The id of the object that the file was made from."
    size_bytes: int
    used_at: float
    "When it was last opened, in seconds since the epoch."


class DiskCache:
    """Files in a directory, which several processes may share. A file is whole, or is not there.

    Parameters:
      root: The directory; made when the first file is put.
      max_bytes: The most that the files take together. The file that was put last stays even if it alone takes more.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self._max_bytes = max_bytes

    def open(self, name: str) -> BinaryIO | None:
        """Opens a file and notes that it was used now. Returns: The file; None if there is no such file."""
        try:
            descriptor = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:  # There is none, or the directory cannot be read: then nothing is cached.
            return None
        file = open(descriptor, "rb")  # noqa: SIM115 - the caller closes it.
        if not file.seek(0, io.SEEK_END):  # It is written without a sync, so a power cut may leave it empty.
            file.close()
            return None
        file.seek(0)
        with suppress(OSError):
            os.utime(descriptor)
        return file

    def put(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Adds or replaces a file, then removes the least recently used files above the limit.

        Parameters:
          name: A UUID, a dot, then lower case letters, digits, dots and hyphens.
          write: Writes the content to a file of the operating system; when it raises, nothing is kept.

        Raises:
          OSError: When the directory cannot be written.
        """
        path = self._path(name)
        make_directory(self.root)
        temporary = self.root / f".{uuid.uuid4().hex}.tmp"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                write(file)
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._trim(keep=name)

    def entries(self) -> Iterator[Entry]:
        """Yields the files in no order."""
        for match, status in self._listed(_NAME):
            yield Entry(match[0], uuid.UUID(match["id"]), status.st_size, status.st_mtime)

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; passes over those that are gone, or that this user may not remove."""
        for name in names:
            with suppress(OSError):
                self._path(name).unlink()

    def _trim(self, keep: str) -> None:
        for match, status in self._listed(_TEMPORARY_NAME):
            if status.st_mtime < time.time() - _DEAD_S:
                (self.root / match[0]).unlink(missing_ok=True)
        entries = sorted(self.entries(), key=lambda entry: entry.used_at)
        excess_bytes = sum(entry.size_bytes for entry in entries) - self._max_bytes
        for entry in entries:
            if excess_bytes <= 0:
                return
            if entry.name != keep:
                self.remove([entry.name])
                excess_bytes -= entry.size_bytes

    def _listed(self, pattern: re.Pattern[str]) -> Iterator[tuple[re.Match[str], os.stat_result]]:
        with suppress(OSError):  # There is no directory yet, or it cannot be read: then nothing is cached.
            yield from directory_scan.scan(self.root, pattern)

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r:.100} is no name of a cached file")
        return self.root / name
