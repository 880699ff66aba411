"""The contract of a blob store: bytes under one root, by the names of artifacts. No SQL."""

from __future__ import annotations

import hashlib
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import BinaryIO, Self, TypeVar

from ...errors import BlobMissingError, StoreMismatchError, StoreUnavailableError
from ...text import UUID_PATTERN

_T = TypeVar("_T")
_R = TypeVar("_R")

RENDERED_SUFFIX = ".rendered"
#: The file that has the ids of the store and of the root.
ID_NAME = ".store-id"
#: The name of a blob in a row. Any other name is not ours, whoever wrote it there, and names no file.
BLOB_NAME = re.compile(rf"[0-9]{{8}}/(?P<id>{UUID_PATTERN})")


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A blob that was put."""

    name: str
    "Relative to the root: the day it was put, and the artifact's id."
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class NewBlob:
    """A file that is to become a blob."""

    artifact_id: uuid.UUID
    "Names the blob."
    open: Callable[[], BinaryIO]
    "Opens the content, which is closed afterwards."
    day: date | None = None
    "A part of the name; None for today. A second `put` replaces the first only with the same day."
    headers: Mapping[str, str] | None = None
    "HTTP headers that go out with it where the store itself answers; see `BlobStore.signed_url`."


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file of our own pattern that a scan came upon."""

    name: str
    artifact_id: uuid.UUID
    size_bytes: int
    modified_at: float
    "Seconds since the epoch."
    suffix: str
    "Empty for a blob itself, `.rendered` for reports that version 663677e kept, else the suffix of a temporary file."

    @property
    def is_blob(self) -> bool:
        """Whether it is a blob itself."""
        return not self.suffix

    @property
    def is_rendered(self) -> bool:
        """Whether it holds reports that were rendered from a blob by version 663677e; nothing reads them any more."""
        return self.suffix == RENDERED_SUFFIX


@dataclass(frozen=True, kw_only=True)
class RootId:
    """The ids of a store and of its blob root. The root carries both, and the database of the store as well."""

    store_id: uuid.UUID
    root_id: uuid.UUID | None
    "None in the root of an early version, and in a database that no root was claimed for."

    @classmethod
    def parse(cls, text: str, path: str) -> Self:
        """Reads the text of a file of ids. Raises: StoreUnavailableError, which names the path."""
        try:
            store_id, *more = map(uuid.UUID, text.split())
        except ValueError as error:
            raise StoreUnavailableError(f"{path} cannot be read: {error}") from error
        return cls(store_id=store_id, root_id=more[0] if more else None)

    def __str__(self) -> str:
        return f"{self.store_id}\n{self.root_id}\n"


class BlobStore(ABC):
    """Blobs under one root. Every method but `claim`, `read_id` and `scan` fails where the root is away.

    All methods raise `StoreUnavailableError` when the root cannot be read or written.
    """

    root: object
    "The root, as messages show it."
    parallel = 1
    "How many blobs are put or looked at at a time: more than one where that is mostly waiting for a network."

    @abstractmethod
    def put(self, blobs: Sequence[NewBlob]) -> list[Blob]:
        """Stores files, each whole or not at all. A blob of the same name is replaced. Returns: The blobs, in order."""

    def sizes_bytes(self, names: Sequence[str]) -> list[int | None]:
        """Returns: What `size_bytes` gives for each name."""
        return self._each(self.size_bytes, names)

    def _each(self, function: Callable[[_T], _R], arguments: Sequence[_T], parallel: int | None = None) -> list[_R]:
        """Calls a function with each argument, by default `self.parallel` at a time. Returns: The results in order."""
        threads = parallel or self.parallel
        if threads == 1 or len(arguments) < 2:
            return [function(argument) for argument in arguments]
        with ThreadPoolExecutor(threads, "dramatiq_diag.blobs") as pool:
            return [*pool.map(function, arguments)]

    def sync(self, names: Iterable[str]) -> None:  # noqa: B027 - most stores have nothing to do.
        """Makes blobs that were put durable."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Opens a blob.

        Raises:
          BlobMissingError: When there is no such blob, or the name is not one of a blob.
        """

    @abstractmethod
    def size_bytes(self, name: str) -> int | None:
        """Returns: The size of a blob, or None where there is none."""

    @abstractmethod
    def delete(self, names: Sequence[str]) -> None:
        """Removes blobs; passes over names that are gone, or not a blob's."""

    @abstractmethod
    def scan(self) -> Iterator[Found]:
        """Yields the files of our own pattern, oldest day first, and nothing else that is in the root."""

    @abstractmethod
    def delete_found(self, found: Sequence[Found]) -> int:
        """Removes files that a scan came upon. Returns: The bytes that were freed."""

    def signed_url(self, name: str, valid_s: float) -> str | None:
        """Returns: A URL of a blob that anybody can read for so many seconds; None where the store has none."""
        return None

    def remove_empty_days(self) -> None:  # noqa: B027 - a bucket has no directories.
        """Removes the directories of days before yesterday that have nothing left in them."""

    @abstractmethod
    def remove_root(self) -> None:
        """Removes the rest of a root whose blobs were all removed: the days' directories and the ids."""

    @abstractmethod
    def read_id(self) -> RootId | None:
        """Returns: The ids that the root carries, or None for a root that was never used."""

    @abstractmethod
    def write_id(self, identity: RootId, *, replace: bool = False) -> None:
        """Makes the root, and gives it ids. Without *replace* ids that are there stay."""

    def sha256(self, name: str) -> str:
        """Returns: The SHA-256 of a blob, which is read for it. Raises: BlobMissingError."""
        with self.open(name) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def store_id(self) -> uuid.UUID | None:
        """Returns: The id of the store that the root belongs to, or None for a root that was never used."""
        found = self.read_id()
        return None if found is None else found.store_id

    def see_root(self) -> RootId:
        """Returns: The ids that the root carries. Raises: StoreUnavailableError where it is away."""
        found = self.read_id()
        if found is None:
            raise StoreUnavailableError(
                f"The blob directory {self.root} is away: there is no {ID_NAME} in it. "
                "Mount it, or let DRAMATIQ_DIAG_BLOB_URL be the directory that all workers of this database share; if "
                "its files are lost for good: dramatiq-diag check --fix --blobs-lost"
            )
        return found

    def verify(self, store_id: uuid.UUID, root_id: uuid.UUID | None = None) -> None:
        """Checks that the root is there and is this store's: a disk that is not mounted leaves an empty directory.

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
                f"The blobs of this database are in another directory than {self.root}, which was claimed for the "
                "same store; nothing was changed. Let DRAMATIQ_DIAG_BLOB_URL be the one directory that all workers "
                "share."
            )

    def claim(self, store_id: uuid.UUID) -> uuid.UUID | None:
        """Makes an unused root this store's, and gives it an id of its own; repeating does no harm.

        Returns:
          The id of the root, or None where it is another store's or has blobs of a store that is not known.
        """
        found = self.read_id()
        if found is None:
            if next(self.scan(), None) is not None:
                return None
            self.write_id(RootId(store_id=store_id, root_id=uuid.uuid4()))
            found = self.see_root()  # Another process may have been faster.
        elif found == RootId(store_id=store_id, root_id=None):  # Of an early version.
            found = RootId(store_id=store_id, root_id=uuid.uuid4())
            self.write_id(found, replace=True)
        return found.root_id if found.store_id == store_id else None


def new_blob_name(artifact_id: uuid.UUID, day: date | None) -> str:
    """Returns: The name of a blob that is put on a day, today by default."""
    day = day or datetime.now(UTC).date()
    return f"{day.year:04}{day.month:02}{day.day:02}/{artifact_id}"


def is_blob_name(name: str) -> bool:
    """Returns: Whether it is the name of a blob."""
    return BLOB_NAME.fullmatch(name) is not None


def blob_name(name: str) -> str:
    """Returns: The name of a blob. Raises: BlobMissingError for any other name, as a path out of the root."""
    if not is_blob_name(name):
        raise BlobMissingError
    return name
