"""The download form of an artifact: the blob itself, or what is rendered from it when first asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from dramatiq.logging import get_logger

from ..blobs import BlobStore
from ..errors import BlobMissingError, StoreUnavailableError
from ..models import Artifact
from .errors import ReportError
from .pyinstrument import render_session

#: The most that is read into memory to be rendered, in bytes.
_MAX_STORED_BYTES = 64 * 1024**2

#: Name of the stored form -> what makes the download form of it.
_RENDERERS: dict[str, Callable[[bytes], bytes]] = {"pyinstrument.session.json": render_session}

_logger = get_logger(__name__)


def open_download(blobs: BlobStore, artifact: Artifact) -> BinaryIO:
    """Opens what a download of the artifact gives.

    Parameters:
      artifact: One that is live.

    Raises:
      BlobMissingError: When its file is gone.
      ReportError: When the stored form is damaged, or none that this version renders.
      NotInstalledError: When the package that renders it is missing.
    """
    name = artifact.blob_name
    if name is None:
        raise BlobMissingError
    if artifact.stored_as is None:
        return blobs.open(name)
    return _open_cached(blobs, name) or _render(blobs, name, artifact.stored_as)


def _open_cached(blobs: BlobStore, name: str) -> BinaryIO | None:
    try:
        file = blobs.open(name, rendered=True)
    except BlobMissingError:
        return None
    if file.seek(0, io.SEEK_END):
        file.seek(0)
        return file
    file.close()  # It is not synced when it is written, so a power cut may leave it empty.
    return None


def _render(blobs: BlobStore, name: str, stored_as: str) -> BinaryIO:
    render = _RENDERERS.get(stored_as)
    if render is None:
        raise ReportError(f"This version of dramatiq_diag cannot render {stored_as!r}.")
    with blobs.open(name) as file:
        stored = file.read(_MAX_STORED_BYTES + 1)
    if len(stored) > _MAX_STORED_BYTES:
        raise ReportError(f"What is stored has over {_MAX_STORED_BYTES} bytes, which is too much to be rendered.")
    rendered = render(stored)
    try:
        blobs.put_rendered(name, rendered)
    except StoreUnavailableError as error:  # Rendering again next time is better than no answer now.
        _logger.warning("A rendered report is not kept: %s", error)
    return io.BytesIO(rendered)
