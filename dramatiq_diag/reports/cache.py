"""Opens a download of an artifact: the blob itself, or a format that is rendered from it once and kept beside it."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from dramatiq.logging import get_logger

from ..errors import BlobMissingError, StoreUnavailableError
from ..store.blobs.base import BlobStore
from ..store.models import Artifact
from .errors import ReportError, UnknownFormatError
from .formats import FORMATS, Format
from .process import render

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


def open_download(blobs: BlobStore, artifact: Artifact, wanted: Format | None = None) -> BinaryIO:
    """Opens a format of an artifact; the first time a separate process renders it.

    Parameters:
      blobs: The blob store.
      artifact: A downloadable artifact.
      wanted: The format; without it that of a plain download.

    Raises:
      BlobMissingError: When the artifact's file is gone.
      ReportError: When it is damaged, too large, or stored in a format that this version does not know.
      NotInstalledError: When the package that renders it is missing.
    """
    wanted = wanted or format_of(artifact)
    file = open_at_once(blobs, artifact, wanted) or render_to_cache(blobs, artifact, wanted)
    return file or open_cached(blobs, artifact, wanted)


def open_at_once(blobs: BlobStore, artifact: Artifact, wanted: Format) -> BinaryIO | None:
    """Returns: The file, or None where it has to be rendered first. Raises: BlobMissingError when the blob is gone."""
    if wanted.render is None:
        return blobs.open(blob_name_of(artifact))
    try:
        return open_cached(blobs, artifact, wanted)
    except BlobMissingError:
        return None


def open_cached(blobs: BlobStore, artifact: Artifact, wanted: Format) -> BinaryIO:
    """Returns: A format that was rendered before. Raises: BlobMissingError when it was not."""
    file = blobs.open(blob_name_of(artifact), rendered=wanted.name)
    if file.seek(0, io.SEEK_END):
        file.seek(0)
        return file
    file.close()  # It is written without a sync, so a power cut may leave it empty.
    raise BlobMissingError


def render_to_cache(
    blobs: BlobStore, artifact: Artifact, wanted: Format, render: Callable[..., None] = render
) -> BinaryIO | None:
    """Renders a format, and keeps it if the blob store can be written.

    Parameters:
      blobs: The blob store.
      artifact: A downloadable artifact.
      wanted: A format that is rendered.
      render: Called like `process.render`.

    Returns:
      None when the format is kept; otherwise the format as a temporary file.

    Raises:
      BlobMissingError: When the blob is gone, or is removed meanwhile.
      ReportError: When the format cannot be rendered.
      NotInstalledError: When the package that renders it is missing.
    """
    name = blob_name_of(artifact)
    with blobs.open(name) as source:
        write = partial(render, source, stored_format=_stored_format(artifact), format_name=wanted.name)
        try:
            blobs.put_rendered(name, wanted.name, write)
            return None
        except StoreUnavailableError as error:
            if blobs.size_bytes(name) is None:  # A cleanup removed it meanwhile, and the directory of its formats.
                raise BlobMissingError from error
            _logger.warning("A rendered report is not kept: %s", error)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it.
        try:
            write(file)  # To render it again next time is better than no answer now.
        except BaseException:
            file.close()
            raise
    file.seek(0)
    return file


def blob_name_of(artifact: Artifact) -> str:
    """Returns: The name of the artifact's blob. Raises: BlobMissingError when it has none."""
    if artifact.blob_name is None:
        raise BlobMissingError
    return artifact.blob_name
