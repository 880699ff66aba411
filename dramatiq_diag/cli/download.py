"""Writes artifacts into a directory: whole, verified, and never over an existing file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from ..errors import BlobMissingError, DiagnosticsError
from ..reports.cache import open_download
from ..statuses import DOWNLOADABLE_STATUSES
from ..store.models import Artifact
from ..store.store import Store

_CHUNK_BYTES = 1 << 20

download_option = click.option(
    "--download",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the files into this directory, which is made if necessary; no existing file is overwritten.",
)

Bar = Callable[[int], None]


class DownloadError(DiagnosticsError):
    """A file could not be written."""


def downloadable(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """Returns: The artifacts that have a file now."""
    return [artifact for artifact in artifacts if artifact.status in DOWNLOADABLE_STATUSES]


def choose_targets(
    artifacts: Sequence[Artifact], directory: Path, place: Callable[[Artifact], str] | None = None
) -> list[Path]:
    """Makes the directories. Returns: The path of each artifact's file.

    Parameters:
      artifacts: The artifacts.
      directory: The directory of the files.
      place: Gives the directory of an artifact's file below it; without it there is none.

    Raises:
      DownloadError: When a file of that name exists, or the directory cannot be made; nothing was written.
    """
    targets = [directory / (place(artifact) if place else "") / _safe_name(artifact.filename) for artifact in artifacts]
    try:
        there = [str(target) for target in targets if target.exists() or target.is_symlink()]
    except OSError as error:  # A name is too long, or a directory above it may not be entered.
        raise DownloadError(f"{error.filename} cannot be written: {error.strerror}.") from error
    if there:
        raise DownloadError(f"Nothing was written, because these files already exist: {', '.join(there)}")
    for made in dict.fromkeys((directory, *(target.parent for target in targets))):
        try:
            made.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DownloadError(f"The directory {made} cannot be made: {error.strerror}.") from error
    return targets


def download(store: Store, artifact: Artifact, target: Path, on_bytes: Bar) -> None:
    """Writes an artifact in its download format, after comparing the stored file with its row.

    Parameters:
      on_bytes: Called with the number of bytes of each step; their sum is the size of the stored file.

    Raises:
      DownloadError: When the stored file is damaged, or the new one cannot be written.
      BlobMissingError: When the stored file is missing.
      NotInstalledError: When the package that renders the download format is missing.
    """
    _verify(store, artifact, on_bytes)
    with open_download(store, artifact) as source, create(target) as file:
        copy(source, file)


@contextmanager
def create(target: Path) -> Iterator[BinaryIO]:
    """Makes a new file, and removes it again if it does not become complete. Raises: DownloadError."""
    try:
        with target.open("xb") as file:
            try:
                yield file
                file.flush()
            except BaseException:
                target.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise DownloadError(f"{target} cannot be written: {error.strerror}.") from error


def copy(source: BinaryIO, file: BinaryIO) -> None:
    """Copies the rest of a file."""
    while chunk := source.read(_CHUNK_BYTES):
        file.write(chunk)


def _safe_name(filename: str) -> str:
    if filename in ("", ".", "..") or "/" in filename or "\0" in filename:
        raise DownloadError(f"The artifact's file name {filename!r} is not allowed; nothing was written.")
    return filename


def _verify(store: Store, artifact: Artifact, on_bytes: Bar) -> None:
    if artifact.blob_name is None:
        raise BlobMissingError
    digest, size_bytes = hashlib.sha256(), 0
    with store.blobs.open(artifact.blob_name) as blob:
        while chunk := blob.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            on_bytes(len(chunk))
    if (size_bytes, digest.hexdigest()) != (artifact.size_bytes, artifact.sha256):
        raise DownloadError("The stored file differs from the published one; see `dramatiq-diag check`.")
