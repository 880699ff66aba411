"""Opens a download of an artifact: the blob itself, or a format that is rendered from it once and kept in a cache."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO, Protocol

from dramatiq.logging import get_logger

from ..errors import BlobMissingError
from ..runtime.disk_cache import DiskCache
from ..store.blobs.base import BlobStore, blob_name
from ..store.models import Artifact
from .errors import ReportError, UnknownFormatError
from .formats import FORMATS, Format
from .process import RenderProcess

_logger = get_logger(__name__)


def format_of(artifact: Artifact, name: str | None = None) -> Format:
    """Returns: The format of that name; without a name that of a plain download.

    Raises:
      UnknownFormatError: When the artifact has no format of that name.
      ReportError: When this version does not know the stored format.
    """
    formats = FORMATS.get(_stored_format(artifact), {})
    if artifact.stored_as is not None and not formats:
        raise ReportError(f"This version of dramatiq_diag cannot render {artifact.stored_as!r}.")
    if name is None:
        plain = next(iter(formats.values())) if formats else Format(name="plain", filename="", media_type="")
        return replace(plain, filename=artifact.filename, media_type=artifact.media_type)
    if name not in formats:
        choices = f"the formats are {', '.join(formats)}" if formats else "it has no other format than the stored one"
        raise UnknownFormatError(f"{artifact.name} has no format {name!r:.50}; {choices}.")
    return formats[name]


def _stored_format(artifact: Artifact) -> str:
    return artifact.stored_as or artifact.filename


class ArtifactFiles(Protocol):
    """Where the files of artifacts are: a store."""

    @property
    def blobs(self) -> BlobStore: ...
    @property
    def cache(self) -> DiskCache: ...


def open_download(files: ArtifactFiles, artifact: Artifact, wanted: Format | None = None) -> BinaryIO:
    """Opens a format of an artifact; the first time a separate process renders it.

    Parameters:
      files: The store.
      artifact: A downloadable artifact.
      wanted: The format; without it that of a plain download.

    Raises:
      BlobMissingError: When the artifact's file is gone.
      ReportError: When it is damaged, too large, or stored in a format that this version does not know.
      NotInstalledError: When the package that renders it is missing.
    """
    wanted = wanted or format_of(artifact)
    file = open_at_once(files, artifact, wanted) or render_to_cache(files, artifact, wanted, RenderProcess())
    return file or open_rendered(files, artifact, wanted)


def open_at_once(files: ArtifactFiles, artifact: Artifact, wanted: Format) -> BinaryIO | None:
    """Returns: The file, or None where it has to be rendered first. Raises: BlobMissingError when the blob is gone."""
    if wanted.render is None:
        return files.blobs.open(blob_name_of(artifact))
    return files.cache.open(_cached_name(artifact, wanted.name))


def open_rendered(files: ArtifactFiles, artifact: Artifact, wanted: Format) -> BinaryIO:
    """Returns: A format that was rendered a moment ago. Raises: ReportError when newer files have displaced it."""
    file = files.cache.open(_cached_name(artifact, wanted.name))
    if file is None:
        raise ReportError(
            "The report was removed from the cache, which is too small; see DRAMATIQ_DIAG_CACHE_MAX_BYTES."
        )
    return file


def render_to_cache(
    files: ArtifactFiles, artifact: Artifact, wanted: Format, process: RenderProcess
) -> BinaryIO | None:
    """Renders a format, and keeps it if the cache can be written.

    Parameters:
      files: The store.
      artifact: A downloadable artifact.
      wanted: A format that is rendered.
      process: Renders it.

    Returns:
      None when the format is kept; otherwise the format as a temporary file.

    Raises:
      BlobMissingError: When the blob is gone, or is removed meanwhile.
      ReportError: When the format cannot be rendered.
      NotInstalledError: When the package that renders it is missing.
    """
    with _open_source(files, artifact) as source:

        def write(target: BinaryIO) -> None:
            source.seek(0)
            process.render(source, target, _stored_format(artifact), wanted.name)
            if files.blobs.size_bytes(blob_name_of(artifact)) is None:
                raise BlobMissingError  # A cleanup removed it meanwhile: nothing of it is to be kept.

        return _keep(files.cache, _cached_name(artifact, wanted.name), write)


def _open_source(files: ArtifactFiles, artifact: Artifact) -> BinaryIO:
    """Returns: The blob as a file of the operating system. One of an object store is copied into the cache."""
    blob = files.blobs.open(blob_name_of(artifact))
    try:
        blob.fileno()
        return blob
    except OSError:  # It is not on this host.
        pass
    with blob:

        def copy(target: BinaryIO) -> None:
            blob.seek(0)
            shutil.copyfileobj(blob, target)

        name = _cached_name(artifact, "source")
        file = files.cache.open(name) or _keep(files.cache, name, copy)
    return file or _open_source(files, artifact)


def _keep(cache: DiskCache, name: str, write: Callable[[BinaryIO], object]) -> BinaryIO | None:
    """Writes a file into the cache. Returns: None; or where the cache cannot be written, a temporary file instead."""
    try:
        cache.put(name, write)
        return None
    except OSError as error:
        _logger.warning("What is rendered is not kept: the cache %s cannot be written: %s", cache.root, error)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it.
    try:
        write(file)  # To render it again next time is better than no answer now.
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _cached_name(artifact: Artifact, what: str) -> str:
    """Returns: The name of a file in the cache. An artifact that was published again has other names."""
    _, _, artifact_id = blob_name_of(artifact).partition("/")
    return f"{artifact_id}.{(artifact.sha256 or '')[:16]}.{what}"


def blob_name_of(artifact: Artifact) -> str:
    """Returns: The name of the artifact's blob. Raises: BlobMissingError when it has none."""
    return blob_name(artifact.blob_name or "")
