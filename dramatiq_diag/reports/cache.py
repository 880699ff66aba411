"""What a download of an artifact gives: the blob itself, or a form that is rendered from it and kept."""

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
from .formats import FORMATS, Form
from .process import render

_logger = get_logger(__name__)


def format_of(artifact: Artifact, name: str | None = None) -> Form:
    """Returns: The form of that name, or without one what a plain download gives.

    Raises:
      UnknownFormatError: When the artifact has no form of that name.
      ReportError: When it is stored in a form that this version does not know.
    """
    forms = FORMATS.get(_stored_form(artifact), {})
    if artifact.stored_as is not None and not forms:
        raise ReportError(f"This version of dramatiq_diag cannot render {artifact.stored_as!r}.")
    if name is None:
        plain = next(iter(forms.values())) if forms else Form(name="plain", filename="", media_type="")
        return replace(plain, filename=artifact.filename, media_type=artifact.media_type)
    if name not in forms:
        there = f"the formats are {', '.join(forms)}" if forms else "it is stored in one alone"
        raise UnknownFormatError(f"{artifact.name} has no format {name!r:.50}; {there}.")
    return forms[name]


def _stored_form(artifact: Artifact) -> str:
    return artifact.stored_as or artifact.filename


def open_download(blobs: BlobStore, artifact: Artifact, form: Form | None = None) -> BinaryIO:
    """Opens what a download of the artifact gives, rendered by a process of its own the first time.

    Parameters:
      blobs: Where its blob is.
      artifact: One that is live.
      form: Without it what a plain download gives.

    Raises:
      BlobMissingError: When its file is gone.
      ReportError: When it cannot be rendered: it is damaged, too large, or in a form that this version does not know.
      NotInstalledError: When the package that renders it is missing.
    """
    form = form or format_of(artifact)
    file = open_at_once(blobs, artifact, form) or render_to_cache(blobs, artifact, form)
    return file or open_cached(blobs, artifact, form)


def open_at_once(blobs: BlobStore, artifact: Artifact, form: Form) -> BinaryIO | None:
    """Returns: The form, or None where it has to be rendered first. Raises: BlobMissingError when its file is gone."""
    if form.render is None:
        return blobs.open(blob_name_of(artifact))
    try:
        return open_cached(blobs, artifact, form)
    except BlobMissingError:
        return None


def open_cached(blobs: BlobStore, artifact: Artifact, form: Form) -> BinaryIO:
    """Returns: A form that was rendered and kept. Raises: BlobMissingError when there is none."""
    file = blobs.open(blob_name_of(artifact), rendered=form.name)
    if file.seek(0, io.SEEK_END):
        file.seek(0)
        return file
    file.close()  # It is not synced when it is written, so a power cut may leave it empty.
    raise BlobMissingError


def render_to_cache(
    blobs: BlobStore, artifact: Artifact, form: Form, render: Callable[..., None] = render
) -> BinaryIO | None:
    """Renders a form, and keeps it where the store can be written.

    Parameters:
      blobs: Where the blob is, and where the form is kept.
      artifact: One that is live.
      form: One that is rendered.
      render: Called like `rendering.render`.

    Returns:
      None where it is kept now, or else the form, in a file without a name.

    Raises:
      BlobMissingError: When its file is gone, or was removed meanwhile.
      ReportError: When it cannot be rendered.
      NotInstalledError: When the package that renders it is missing.
    """
    name = blob_name_of(artifact)
    with blobs.open(name) as source:
        write = partial(render, source, stored_form=_stored_form(artifact), form=form.name)
        try:
            blobs.put_rendered(name, form.name, write)
            return None
        except StoreUnavailableError as error:
            if blobs.size_bytes(name) is None:  # A cleanup removed it meanwhile, and the directory of its forms.
                raise BlobMissingError from error
            _logger.warning("A rendered report is not kept: %s", error)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it.
        try:
            write(file)  # RenderProcess again next time is better than no answer now.
        except BaseException:
            file.close()
            raise
    file.seek(0)
    return file


def blob_name_of(artifact: Artifact) -> str:
    """Returns: The name of its blob. Raises: BlobMissingError where it has none."""
    if artifact.blob_name is None:
        raise BlobMissingError
    return artifact.blob_name
