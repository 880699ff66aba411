"""Keeps blobs in a bucket of S3, Google Cloud Storage or Azure: `<prefix>/<yyyymmdd>/<artifact id>`."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, BinaryIO

from ...errors import BlobMissingError, StoreUnavailableError
from ...runtime.bounded_reading import RangeFile, read_up_to
from .base import BLOB_NAME, ID_NAME, Blob, BlobStore, Found, NewBlob, RootId, blob_name, is_blob_name, new_blob_name
from .object_client import ObjectClient

#: A larger blob is uploaded in parts of this size, the smallest that S3 allows. Few are sent at once: they take
#: memory of a process that may just be profiled.
PART_BYTES = 5 * 1024**2
_PARTS_AT_ONCE = 2

#: The bytes of a blob that one request reads.
_READ_BYTES = 4 * 1024**2

#: Names that are asked for in one page of a list, and that are deleted with one call.
_PAGE_SIZE = 1000


class ObjectBlobStore(BlobStore):
    """Blobs in a bucket.

    Parameters:
      url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
      timeout_s: The longest that a connection, or a pause in an answer, may take.
      request_timeout_s: The longest that one request may take; each transfers 5 MiB at most.

    Raises:
      NotInstalledError: When obstore is missing.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, request_timeout_s: float = 60.0) -> None:
        self.root: str = url
        self._client = ObjectClient(url, timeout_s=timeout_s, request_timeout_s=request_timeout_s)
        self._large = threading.Lock()
        "Held while a large blob is uploaded."

    parallel = 8

    def put(self, blobs: Sequence[NewBlob]) -> list[Blob]:
        return self._each(self._put, blobs)

    def _put(self, new: NewBlob) -> Blob:
        """Uploads a blob, in parts if it is large. The store shows it when it is whole.

        S3 compares each request with a SHA-256 that is sent with it. From the other stores the blob is read back.
        """
        name, attributes = new_blob_name(new.artifact_id, new.day), dict(new.headers or {})
        digest, size_bytes = hashlib.sha256(), 0

        def pieces() -> Iterator[bytes]:
            nonlocal size_bytes
            while piece := read_up_to(source, PART_BYTES):
                digest.update(piece)
                size_bytes += len(piece)
                yield piece

        parts = pieces()
        with new.open() as source, self._client.writing(missing_is_fault=True) as client:
            first = next(parts, b"")
            if len(first) < PART_BYTES:
                client.put(name, first, attributes=attributes, use_multipart=False)
            else:
                with self._large:
                    client.put(
                        name,
                        itertools.chain([first], parts),
                        attributes=attributes,
                        use_multipart=True,
                        chunk_size=PART_BYTES,
                        max_concurrency=_PARTS_AT_ONCE,
                    )
        blob = Blob(name=name, size_bytes=size_bytes, sha256=digest.hexdigest())
        self._verify_upload(blob)
        return blob

    def _verify_upload(self, blob: Blob) -> None:
        """Raises: StoreUnavailableError when the store does not have what was sent."""
        if self.root.startswith("s3:"):
            whole = self.size_bytes(blob.name) == blob.size_bytes
        else:
            whole = self.sha256(blob.name) == blob.sha256
        if not whole:
            raise StoreUnavailableError(f"{self.root} did not store {blob.name} as it was sent; it is put again.")

    def open(self, name: str) -> BinaryIO:
        blob_name(name)
        with self._client.reading() as client:
            try:
                meta = client.head(name)
            except FileNotFoundError as error:
                self.see_root()
                raise BlobMissingError from error
        return io.BufferedReader(_ObjectFile(self, name, meta), max(min(meta["size"], _READ_BYTES), 1))

    def read_range(self, name: str, e_tag: str | None, start: int, stop: int) -> memoryview:
        """Reads a part of a blob that was opened. Raises: BlobMissingError, StoreUnavailableError."""
        with self._client.reading() as client:
            try:
                return memoryview(client.get(name, options={"range": (start, stop), "if_match": e_tag}).bytes())
            except FileNotFoundError as error:
                raise BlobMissingError from error

    def size_bytes(self, name: str) -> int | None:
        if not is_blob_name(name):
            return None
        with self._client.reading() as client:
            try:
                return int(client.head(name)["size"])
            except FileNotFoundError:
                self.see_root()
                return None

    def delete(self, names: Sequence[str]) -> None:
        own = [name for name in names if is_blob_name(name)]
        with self._client.writing() as client:
            for start in range(0, len(own), _PAGE_SIZE):
                self._delete_page(client, own[start : start + _PAGE_SIZE])

    def _delete_page(self, client: Any, names: Sequence[str]) -> None:
        try:
            client.delete(names)
        except FileNotFoundError:  # Azure and Google stop at the first one that is gone.
            for name in names:
                try:
                    client.delete(name)
                except FileNotFoundError:
                    continue

    def scan(self) -> Iterator[Found]:
        with self._client.reading() as client:
            pages = iter(client.list(chunk_size=_PAGE_SIZE))
        while True:
            with self._client.reading():
                page = next(pages, None)
            if page is None:
                return
            for meta in page:
                match = BLOB_NAME.fullmatch(meta["path"])
                if match is not None:
                    yield Found(
                        name=match[0],
                        artifact_id=uuid.UUID(match["id"]),
                        size_bytes=meta["size"],
                        modified_at=meta["last_modified"].timestamp(),
                        suffix="",
                    )

    def delete_found(self, found: Sequence[Found]) -> int:
        self.delete([file.name for file in found])
        return sum(file.size_bytes for file in found)

    def remove_root(self) -> None:
        with self._client.writing() as client:
            try:
                client.delete(ID_NAME)
            except FileNotFoundError:
                return

    def read_id(self) -> RootId | None:
        with self._client.reading() as client:
            try:
                text = bytes(client.get(ID_NAME).bytes()).decode("ascii", "replace")
            except FileNotFoundError:
                return None
        return RootId.parse(text, f"{self.root}/{ID_NAME}")

    def write_id(self, identity: RootId, *, replace: bool = False) -> None:
        from obstore.exceptions import AlreadyExistsError

        with self._client.writing(missing_is_fault=True) as client:
            try:
                client.put(
                    ID_NAME, str(identity).encode(), mode="overwrite" if replace else "create", use_multipart=False
                )
            except AlreadyExistsError:  # Another process was faster.
                return

    def signed_url(self, name: str, valid_s: float) -> str | None:
        """Returns: A URL under which anybody can read a blob for a while; None where the credentials cannot sign."""
        import obstore
        from obstore.exceptions import BaseError

        with self._client.reading() as client:
            try:
                return str(obstore.sign(client, "GET", blob_name(name), timedelta(seconds=valid_s)))
            except BaseError:
                return None


class _ObjectFile(RangeFile):
    """A blob as a file: each read is a request for a part. A blob that was replaced meanwhile is not read on.

    Parameters:
      blobs: The blob store.
      name: The blob.
      meta: Its size and version.
    """

    def __init__(self, blobs: ObjectBlobStore, name: str, meta: Mapping[str, Any]) -> None:
        super().__init__(meta["size"], _READ_BYTES)
        self._blobs = blobs
        self._name = name
        self._e_tag: str | None = meta["e_tag"]

    def read_range(self, start: int, stop: int) -> bytes | memoryview:
        return self._blobs.read_range(self._name, self._e_tag, start, stop)

    def readall(self) -> bytes:
        # The inherited method would make a request for each 8 KiB.
        return b"".join(iter(lambda: self.read(_READ_BYTES) or b"", b""))
