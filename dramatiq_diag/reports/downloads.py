"""What a download of an artifact gives: the blob itself, or a form that is rendered from it and kept."""

from __future__ import annotations

import io
import tempfile
from dataclasses import replace
from functools import partial
from typing import BinaryIO

from dramatiq.logging import get_logger

from ..blobs import BlobStore
from ..errors import BlobMissingError, StoreUnavailableError
from ..models import Artifact
from .errors import ReportError, UnknownFormatError
from .forms import FORMS, Form
from .rendering import render

_logger = get_logger(__name__)


def form_of(artifact: Artifact, name: str | None = None) -> Form:
    """Returns: The form of that name, or without one what a plain download gives.

    Raises:
      UnknownFormatError: When the artifact has no form of that name.
      ReportError: When it is stored in a form that this version does not know.
    """
    forms = FORMS.get(_stored_form(artifact), {})
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
    name = artifact.blob_name
    if name is None:
        raise BlobMissingError
    form = form or form_of(artifact)
    if form.render is None:
        return blobs.open(name)
    return _open_kept(blobs, name, form) or _render(blobs, name, _stored_form(artifact), form)


def _open_kept(blobs: BlobStore, name: str, form: Form) -> BinaryIO | None:
    try:
        file = blobs.open(name, rendered=form.name)
    except BlobMissingError:
        return None
    if file.seek(0, io.SEEK_END):
        file.seek(0)
        return file
    file.close()  # It is not synced when it is written, so a power cut may leave it empty.
    return None


def _render(blobs: BlobStore, name: str, stored_form: str, form: Form) -> BinaryIO:
    with blobs.open(name) as source:
        write = partial(render, source, stored_form=stored_form, form=form.name)
        try:
            blobs.put_rendered(name, form.name, write)
            return blobs.open(name, rendered=form.name)
        except StoreUnavailableError as error:  # Rendering again next time is better than no answer now.
            _logger.warning("A rendered report is not kept: %s", error)
        file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it.
        write(file)
    file.seek(0)
    return file
