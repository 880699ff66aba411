"""Keeps blobs as files: `<root>/<yyyymmdd>/<artifact id>`."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from ...errors import BlobMissingError, StoreUnavailableError
from ...runtime import directory_scan
from ...runtime.bounded_reading import PIECE_BYTES
from ...runtime.private_files import make_directory
from ...text import UUID_PATTERN
from .base import (
    ID_NAME,
    RENDERED_SUFFIX,
    Blob,
    BlobStore,
    Found,
    NewBlob,
    RootId,
    blob_name,
    is_blob_name,
    new_blob_name,
)

_DAY = re.compile(r"[0-9]{8}")
#: A blob, a directory of reports rendered from it, or a temporary file. No other name is made in a day's directory.
_OWN_NAME = re.compile(rf"(?P<id>{UUID_PATTERN})(?P<suffix>\.rendered|\.[0-9a-f]{{32}}\.tmp)?")

#: How many threads remove files, and the number of files from which on more than one does. Removing a file is mostly
#: waiting for the disk: on ext4 one thread took 92 us for each of 40,000 files, two took 60 us. Four took 36 us, but
#: others wait for the same disk.
_REMOVERS = 2
_MANY = 50

_T = TypeVar("_T")


class _Staged(NamedTuple):
    """A blob under a temporary name."""

    temporary: str
    blob: Blob


class LocalBlobStore(BlobStore):
    """Blobs in a directory of this machine, or of a file system that machines share.

    There is a directory for each day: a batch of new blobs needs one sync of a directory, and a scan can end before the
    young blobs.

    Parameters:
      root: The directory; made by `claim`.
    """

    def __init__(self, root: Path) -> None:
        self.root: Path = root

    def put(self, blobs: Sequence[NewBlob]) -> list[Blob]:
        """Puts blobs: temporary name, sync, rename. A file of our own on the same disk gets a second name instead.

        All writes are begun before the first sync. So most syncs find their file written, and the change of the file
        system committed with that of another one.
        """
        staged: list[_Staged] = []
        try:
            for new in blobs:
                with new.open() as source:
                    staged.append(self._stage(new.artifact_id, source, new.day))
            with self._unavailable("written"):
                for temporary, blob in staged:
                    _sync(temporary, os.O_NOFOLLOW)
                    os.rename(temporary, f"{self.root}/{blob.name}")
        except BaseException:
            for temporary, _ in staged:
                _remove(temporary)
            raise
        return [each.blob for each in staged]

    def _stage(self, artifact_id: uuid.UUID, source: BinaryIO, day: date | None) -> _Staged:
        name = new_blob_name(artifact_id, day)
        temporary = f"{self.root}/{name}.{uuid.uuid4().hex}.tmp"  # Blobs come by the hundred: pathlib is too slow.
        with self._unavailable("written"):
            try:
                size_bytes, sha256 = self._link(temporary, source) or self._write(temporary, source)
            except BaseException:
                _remove(temporary)
                raise
        return _Staged(temporary, Blob(name=name, size_bytes=size_bytes, sha256=sha256))

    def _link(self, temporary: str, source: BinaryIO) -> tuple[int, str] | None:
        """Returns: Size and SHA-256, or None for a file that has to be copied."""
        try:
            descriptor = source.fileno()
        except OSError:  # It is in memory.
            return None
        status = os.fstat(descriptor)
        if status.st_nlink != 1 or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o600:
            return None
        try:
            os.utime(descriptor)  # Its age as a blob begins now.
            # By its descriptor, so that the file which was opened and found to be a regular one is linked. Python makes
            # the call that follows /proc only with a directory given, which an absolute path makes no use of.
            os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor)
        except OSError:  # Another disk, a file system without links, the day's first blob, no /proc.
            return None
        sha256 = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
        _begin_writing(descriptor)
        return source.tell(), sha256

    def _write(self, temporary: str, source: BinaryIO) -> tuple[int, str]:
        digest, size_bytes = hashlib.sha256(), 0
        with open(self._create(temporary), "wb") as file:
            while chunk := source.read(PIECE_BYTES):
                size_bytes += file.write(chunk)
                digest.update(chunk)
            file.flush()
            _begin_writing(file.fileno())
        return size_bytes, digest.hexdigest()

    @contextmanager
    def _unavailable(self, use: str) -> Iterator[None]:
        """Turns an OSError into a StoreUnavailableError."""
        try:
            yield
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be {use}: {error}") from error

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:  # A day's first blob. `claim` alone makes a root.
            self.see_root()
            Path(path).parent.mkdir(mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    def sync(self, names: Iterable[str]) -> None:
        """Makes renames durable: one sync for each directory among the names, and one for the root."""
        for day in {"", *(blob_name(name).partition("/")[0] for name in names)}:
            with self._unavailable("synced"):
                _sync(self.root / day, os.O_DIRECTORY)

    def open(self, name: str) -> BinaryIO:
        with self._unavailable("read"):
            try:
                descriptor = os.open(self.root / blob_name(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError as error:
                self.see_root()
                raise BlobMissingError from error
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # Somebody put a directory or a pipe there.
            os.close(descriptor)
            raise BlobMissingError
        return open(descriptor, "rb")

    def size_bytes(self, name: str) -> int | None:
        if not is_blob_name(name):
            return None
        with self._unavailable("read"):
            try:
                return os.lstat(f"{self.root}/{name}").st_size
            except FileNotFoundError:
                self.see_root()
                return None

    def delete(self, names: Sequence[str]) -> None:
        self._each_part(self._delete, [*filter(is_blob_name, names)])

    def _delete(self, names: Sequence[str]) -> None:
        with self._unavailable("written"):
            for name in names:
                with suppress(FileNotFoundError):  # Another cleanup was faster.
                    os.unlink(f"{self.root}/{name}")

    def delete_found(self, found: Sequence[Found]) -> int:
        return sum(self._each_part(self._delete_found, found))

    def _each_part(self, remove: Callable[[Sequence[Any]], _T], items: Sequence[Any]) -> list[_T]:
        """Has several threads remove a part of many items each. Returns: What it gives for each part."""
        parts = _REMOVERS if len(items) >= _MANY else 1
        return self._each(remove, [items[number::parts] for number in range(parts)], parts)

    def _delete_found(self, found: Sequence[Found]) -> int:
        return sum((self._remove_rendered if file.is_rendered else self._unlink)(file.name) for file in found)

    def _remove_rendered(self, name: str) -> int:
        path = f"{self.root}/{name}"
        with self._unavailable("written"):
            try:
                if not stat.S_ISDIR(os.lstat(path).st_mode):
                    return self._unlink(name)
                with os.scandir(path) as entries:
                    freed_bytes = sum(self._unlink(f"{name}/{entry.name}") for entry in entries)
                os.rmdir(path)
            except FileNotFoundError:  # There is none, which is the usual case.
                return 0
            except OSError as error:
                if error.errno == errno.ENOTEMPTY:  # A server of that version renders; the next cleanup finds it.
                    return 0
                raise
        return freed_bytes

    def _unlink(self, name: str) -> int:
        path = f"{self.root}/{name}"
        with self._unavailable("written"):
            try:
                size_bytes = os.lstat(path).st_size
                os.unlink(path)
            except FileNotFoundError:  # Another cleanup was faster.
                return 0
        return size_bytes

    def scan(self) -> Iterator[Found]:
        for day in self._days():
            with self._unavailable("read"):
                try:
                    yield from self._files_of(day)
                except FileNotFoundError:  # Another cleanup removed it, or the whole root has gone away.
                    self.see_root()

    def _files_of(self, day: str) -> Iterator[Found]:
        for match, status in directory_scan.scan(self.root / day, _OWN_NAME):
            suffix = match["suffix"] or ""
            if stat.S_ISREG(status.st_mode) or (suffix == RENDERED_SUFFIX and stat.S_ISDIR(status.st_mode)):
                yield Found(
                    name=f"{day}/{match[0]}",
                    artifact_id=uuid.UUID(match["id"]),
                    size_bytes=status.st_size,
                    modified_at=status.st_mtime,
                    suffix=suffix,
                )

    def _days(self) -> list[str]:
        """Returns: The names of the days' directories in their order; none where there is no root."""
        with self._unavailable("read"):
            try:
                return sorted(name for name in os.listdir(self.root) if _DAY.fullmatch(name))
            except FileNotFoundError:
                return []

    def remove_empty_days(self) -> None:
        self._remove_days(before=f"{datetime.now(UTC) - timedelta(days=1):%Y%m%d}")

    def remove_root(self) -> None:
        self._remove_days(before="99999999")
        (self.root / ID_NAME).unlink(missing_ok=True)

    def _remove_days(self, before: str) -> None:
        for day in self._days():
            if day < before:
                with suppress(OSError):  # It has something in it, which is the usual case.
                    os.rmdir(self.root / day)

    def read_id(self) -> RootId | None:
        try:
            text = (self.root / ID_NAME).read_text("ascii", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailableError(f"{self.root / ID_NAME} cannot be read: {error}") from error
        return RootId.parse(text, str(self.root / ID_NAME))

    def write_id(self, identity: RootId, *, replace: bool = False) -> None:
        path = self.root / ID_NAME
        temporary = self.root / f"{ID_NAME}.{uuid.uuid4().hex}"
        with self._unavailable("written"):
            make_directory(self.root)
            with temporary.open("x", encoding="ascii") as file:
                file.write(str(identity))
                file.flush()
                os.fsync(file.fileno())  # The database keeps the id through a power cut, and a torn one is refused.
            try:
                if replace:
                    temporary.replace(path)
                else:
                    os.link(temporary, path)  # Fails where another process was faster.
            except FileExistsError:
                pass
            finally:
                temporary.unlink(missing_ok=True)


def _begin_writing(descriptor: int) -> None:
    """Has the kernel begin to write a file to the disk, where it has a call for that."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):  # It is a hint.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _sync(path: str | Path, flags: int) -> None:
    """Waits until a file or a directory, which is opened with these flags, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
