"""Bytes under one root; no SQL."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import BinaryIO

from ...errors import BlobMissingError, StoreMismatchError, StoreUnavailableError
from ...runtime.bounded_reading import PIECE_BYTES
from ...runtime.private_files import make_directory

_STORE_ID_FILE = ".store-id"
_DAY = re.compile(r"[0-9]{8}")
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
#: What this module ever makes in a day's directory: a blob, a directory of forms rendered from it, or a temporary file.
_OWN_NAME = re.compile(rf"(?P<id>{_UUID})(?P<rest>\.rendered|\.[0-9a-f]{{32}}\.tmp)?")
#: The name of a blob in a row. Any other one is not ours, whoever wrote it there, and names no file.
_BLOB_NAME = re.compile(rf"[0-9]{{8}}/{_UUID}")
_FORM = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_RENDERED = ".rendered"


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A blob that was put."""

    name: str
    "Relative to the root: the day it was put, and the artifact's id."
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of our own pattern that a scan came upon."""

    name: str
    artifact_id: uuid.UUID
    size_bytes: int
    modified_at: float
    "Seconds since the epoch."
    suffix: str
    "Empty for a blob itself, `.rendered` for the directory of forms rendered from it, else that of a temporary file."

    @property
    def is_blob(self) -> bool:
        """Whether it is a blob itself."""
        return not self.suffix

    @property
    def is_rendered(self) -> bool:
        """Whether it is what was rendered from a blob."""
        return self.suffix == _RENDERED

    @property
    def blob_of(self) -> str:
        """The name of the blob that it is, or belongs to."""
        return self.name.removesuffix(self.suffix)


@dataclass(frozen=True, kw_only=True)
class RootId:
    """What a blob root carries, and the database of its store as well."""

    store_id: uuid.UUID
    root_id: uuid.UUID | None
    "Of this one root; None in the root of an early version, and in a database that no root was claimed for."


class BlobStore:
    """Blobs as files: `<root>/<yyyymmdd>/<artifact id>`.

    A directory a day lets a batch of new blobs share one directory sync, and lets a scan pass by what is young.

    Parameters:
      root: The directory; made by `claim`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, artifact_id: uuid.UUID, source: BinaryIO, day: date | None = None) -> Blob:
        """Takes a file in, whole or not at all: temporary name, sync, rename. Putting again replaces.

        A file of our own on the same disk is given a second name, and anything else is copied.

        Parameters:
          artifact_id: Names the blob.
          source: What it holds.
          day: Whose directory it goes into, today's by default; one that stays the same lets putting again replace.

        Raises:
          StoreUnavailableError: When the directory cannot be written.
        """
        day = day or datetime.now(UTC).date()
        name = f"{day.year:04}{day.month:02}{day.day:02}/{artifact_id}"
        size_bytes, sha256 = self._link(name, source) or self._write(name, iter(lambda: source.read(PIECE_BYTES), b""))
        return Blob(name=name, size_bytes=size_bytes, sha256=sha256)

    def put_rendered(self, name: str, format_name: str, write: Callable[[BinaryIO], None]) -> None:
        """Keeps a format that is rendered from a blob; it is removed with its blob, and can be rendered again.

        Parameters:
          name: The blob.
          format_name: Lower case letters, digits and hyphens.
          write: Writes the format to a file; when it raises, nothing is kept.

        Raises:
          BlobMissingError: When the name is not one of a blob.
          StoreUnavailableError: When the directory cannot be written.
        """
        path = _rendered_path(name, format_name)
        temporary = self._temporary(path)
        with self._replacing(temporary, path), open(self._create(temporary), "wb") as file:
            write(file)

    def _link(self, name: str, source: BinaryIO) -> tuple[int, str] | None:
        """Returns: Size and SHA-256, or None for what has to be copied."""
        try:
            descriptor = source.fileno()
        except OSError:  # It is in memory.
            return None
        status = os.fstat(descriptor)
        if status.st_nlink != 1 or status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o600:
            return None
        temporary = self._temporary(name)
        try:
            os.utime(descriptor)  # Its age as a blob begins now.
            # By its descriptor: what was opened and found to be a regular file is what is linked. Only with a directory
            # given, which an absolute path makes no use of, does Python make the call that follows /proc.
            os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor)
        except OSError:  # Another disk, a file system without links, the day's first blob, no /proc.
            return None
        with self._replacing(temporary, name):
            sha256 = hashlib.file_digest(source, "sha256").hexdigest()  # type: ignore[arg-type]
            os.fsync(descriptor)
        return source.tell(), sha256

    def _write(self, name: str, chunks: Iterator[bytes]) -> tuple[int, str]:
        temporary = self._temporary(name)
        digest, size_bytes = hashlib.sha256(), 0
        with self._replacing(temporary, name), open(self._create(temporary), "wb", buffering=0) as file:
            for chunk in chunks:
                size_bytes += _write_all(file, chunk)
                digest.update(chunk)
            os.fsync(file.fileno())
        return size_bytes, digest.hexdigest()

    def _temporary(self, name: str) -> str:
        return f"{self.root}/{name}.{uuid.uuid4().hex}.tmp"  # Blobs come by the hundred, which pathlib is too slow for.

    @contextmanager
    def _replacing(self, temporary: str, name: str) -> Iterator[None]:
        """Renames the temporary file at the end, or removes it. Raises: StoreUnavailableError."""
        try:
            try:
                yield
                os.rename(temporary, f"{self.root}/{name}")
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be written: {error}") from error

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o600)
        except FileNotFoundError:  # A day's first blob, a blob's first form. `claim` alone makes a root.
            self.see_root()
            Path(path).parent.mkdir(mode=0o700, exist_ok=True)
            return os.open(path, flags, 0o600)

    def sync(self, names: Iterable[str]) -> None:
        """Makes renames durable: one sync for each directory among the names, and one for the root."""
        for day in {"", *(_own(name).partition("/")[0] for name in names)}:
            try:
                descriptor = os.open(self.root / day, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise StoreUnavailableError(f"The blob directory {self.root} cannot be synced: {error}") from error

    def open(self, name: str, *, rendered: str | None = None) -> BinaryIO:
        """Opens a blob, or a form rendered from it.

        Raises:
          BlobMissingError: When there is no such file, or the name is not one of a blob.
          StoreUnavailableError: When the whole root is away, or cannot be read.
        """
        path = _own(name) if rendered is None else _rendered_path(name, rendered)
        try:
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError as error:
            self.see_root()
            raise BlobMissingError from error
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be read: {error}") from error
        return open(descriptor, "rb")

    def delete(self, names: list[str]) -> int:
        """Unlinks blobs and what was rendered from them; passes over what is already gone, or is not a blob's name.

        Returns:
          The bytes that were freed.
        """
        own = [name for name in names if _BLOB_NAME.fullmatch(name)]
        return sum(self._unlink(name) + self._remove_rendered(name + _RENDERED) for name in own)

    def delete_found(self, found: list[Found]) -> int:
        """Unlinks files that a scan came upon. Returns: The bytes that were freed."""
        return sum((self._remove_rendered if file.is_rendered else self._unlink)(file.name) for file in found)

    def _remove_rendered(self, name: str) -> int:
        path = f"{self.root}/{name}"
        try:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                return self._unlink(name)
            with os.scandir(path) as entries:
                freed_bytes = sum(self._unlink(f"{name}/{entry.name}") for entry in entries)
            os.rmdir(path)
        except FileNotFoundError:  # There is none, which is the usual case.
            return 0
        except OSError as error:
            if error.errno == errno.ENOTEMPTY:  # One is being rendered just now; the next cleanup comes upon it.
                return 0
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be written: {error}") from error
        return freed_bytes

    def _unlink(self, name: str) -> int:
        path = f"{self.root}/{name}"
        try:
            size_bytes = os.lstat(path).st_size
            os.unlink(path)
        except FileNotFoundError:  # Another cleanup was faster.
            return 0
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be written: {error}") from error
        return size_bytes

    def size_bytes(self, name: str) -> int | None:
        """Returns: The size of a blob, or None where there is none. Raises: StoreUnavailableError, as `open`."""
        if not _BLOB_NAME.fullmatch(name):
            return None
        try:
            return os.lstat(f"{self.root}/{name}").st_size
        except FileNotFoundError:
            self.see_root()
            return None
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be read: {error}") from error

    def sha256(self, name: str) -> str:
        """Reads a blob through. Raises: BlobMissingError."""
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def scan(self) -> Iterator[Found]:
        """Yields the files of our own pattern, oldest day first; anything else in the root is nobody's business."""
        try:
            days = sorted(entry.name for entry in os.scandir(self.root) if _DAY.fullmatch(entry.name))
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be read: {error}") from error
        for day in days:
            try:
                yield from self._scan_day(day)
            except FileNotFoundError:  # Another cleanup removed it, or the whole root has gone away.
                self.see_root()

    def _scan_day(self, day: str) -> Iterator[Found]:
        with os.scandir(self.root / day) as entries:
            for entry in entries:
                match = _OWN_NAME.fullmatch(entry.name)
                if match is None:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                suffix = match["rest"] or ""
                if stat.S_ISREG(status.st_mode) or (suffix == _RENDERED and stat.S_ISDIR(status.st_mode)):
                    yield Found(
                        name=f"{day}/{entry.name}",
                        artifact_id=uuid.UUID(match["id"]),
                        size_bytes=status.st_size,
                        modified_at=status.st_mtime,
                        suffix=suffix,
                    )

    def remove_empty_days(self) -> None:
        """Removes the directories of days before yesterday that have nothing left in them."""
        yesterday = f"{datetime.fromtimestamp(datetime.now(UTC).timestamp() - 86400, UTC):%Y%m%d}"
        for entry in os.scandir(self.root) if self.root.is_dir() else ():
            if _DAY.fullmatch(entry.name) and entry.name < yesterday:
                try:
                    (self.root / entry.name).rmdir()
                except OSError:  # Not empty is the usual case.
                    continue

    def remove_root(self) -> None:
        """Removes what is left when all blobs were removed: the days' directories and the store's id."""
        for entry in list(os.scandir(self.root)) if self.root.is_dir() else ():
            if _DAY.fullmatch(entry.name):
                with suppress(OSError):  # It has something in it that this package has not made.
                    os.rmdir(entry.path)
        (self.root / _STORE_ID_FILE).unlink(missing_ok=True)

    def read_id(self) -> RootId | None:
        """Returns: What the root carries, or None for a root that was never used."""
        try:
            words = (self.root / _STORE_ID_FILE).read_text("ascii").split()
            store_id, *more = map(uuid.UUID, words)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreUnavailableError(f"{self.root / _STORE_ID_FILE} cannot be read: {error}") from error
        return RootId(store_id=store_id, root_id=more[0] if more else None)

    def store_id(self) -> uuid.UUID | None:
        """Returns: The id of the store that the root belongs to, or None for a root that was never used."""
        found = self.read_id()
        return None if found is None else found.store_id

    def verify(self, store_id: uuid.UUID, root_id: uuid.UUID | None = None) -> None:
        """Sees to it that the root is there, and this store's: a disk that is not mounted leaves an empty directory.

        Parameters:
          store_id: The id of the store.
          root_id: The id of the root that was claimed for it, if one was.

        Raises:
          StoreUnavailableError: When it is away.
          StoreMismatchError: When it is another store's, or not the one that was claimed for this store.
        """
        found = self.see_root()
        if found.store_id != store_id:
            raise StoreMismatchError(
                f"The blobs in {self.root} belong to store {found.store_id}, the database is {store_id}. "
                f"{StoreMismatchError()}"
            )
        if root_id is not None and found.root_id != root_id:
            raise StoreMismatchError(
                f"The blobs of this database are in another directory than {self.root}, which was claimed for the same "
                "store; nothing was changed. Let DRAMATIQ_DIAG_BLOB_URL be the one directory that all workers share."
            )

    def see_root(self) -> RootId:
        """Returns: What the root carries. Raises: StoreUnavailableError."""
        found = self.read_id()
        if found is None:
            raise StoreUnavailableError(
                f"The blob directory {self.root} is away: there is no {_STORE_ID_FILE} in it. "
                "Mount it, or let DRAMATIQ_DIAG_BLOB_URL be the directory that all workers of this database share; if "
                "its files are lost for good: dramatiq-diag check --fix --blobs-lost"
            )
        return found

    def claim(self, store_id: uuid.UUID) -> uuid.UUID | None:
        """Makes an unused root this store's, and gives it an id of its own; repeating does no harm.

        Returns:
          The id of the root, or None where it is another store's or has blobs of a store that is not known.
        """
        found = self.read_id()
        if found is None:
            if next(self.scan(), None) is not None:
                return None
            self._write_id(RootId(store_id=store_id, root_id=uuid.uuid4()))
            found = self.see_root()  # Another process may have been faster.
        elif found == RootId(store_id=store_id, root_id=None):  # Of an early version.
            found = RootId(store_id=store_id, root_id=uuid.uuid4())
            self._write_id(found, replace=True)
        return found.root_id if found.store_id == store_id else None

    def _write_id(self, identity: RootId, *, replace: bool = False) -> None:
        path = self.root / _STORE_ID_FILE
        temporary = self.root / f"{_STORE_ID_FILE}.{uuid.uuid4().hex}"
        try:
            make_directory(self.root)
            temporary.write_text(f"{identity.store_id}\n{identity.root_id}\n", "ascii")
            try:
                if replace:
                    temporary.replace(path)
                else:
                    os.link(temporary, path)  # Fails where another process was faster.
            except FileExistsError:
                pass
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"The blob directory {self.root} cannot be written: {error}") from error


def _own(name: str) -> str:
    """Returns: The name of a blob. Raises: BlobMissingError for any other one, as a path out of the root."""
    if not _BLOB_NAME.fullmatch(name):
        raise BlobMissingError
    return name


def _rendered_path(name: str, form: str) -> str:
    if not _FORM.fullmatch(form):
        raise BlobMissingError
    return f"{_own(name)}{_RENDERED}/{form}"


def _write_all(file: BinaryIO, chunk: bytes) -> int:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]
    return len(chunk)
