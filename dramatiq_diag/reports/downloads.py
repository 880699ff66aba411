"""The forms of an artifact that can be downloaded: the blob itself, and what is rendered from it when asked for."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from dramatiq.logging import get_logger

from ..blobs import BlobStore
from ..errors import BlobMissingError, StoreUnavailableError
from ..models import Artifact
from .errors import ReportError, UnknownFormatError
from .pyinstrument import render_session, render_speedscope, render_text

#: The most that is read into memory to be rendered, in bytes.
_MAX_STORED_BYTES = 64 * 1024**2


@dataclass(frozen=True, kw_only=True)
class Form:
    """One of the forms that an artifact can be downloaded in."""

    filename: str
    media_type: str
    render: Callable[[bytes], bytes] | None
    "Makes it from the stored form; None where it is the stored form."


#: Name of the stored form -> the name of each form -> the form. The first one is what a plain download gives.
_FORMS: dict[str, dict[str, Form]] = {
    "pyinstrument.session.json": {
        "html": Form(filename="pyinstrument.html", media_type="text/html", render=render_session),
        "text": Form(filename="pyinstrument.txt", media_type="text/plain", render=render_text),
        "speedscope": Form(
            filename="pyinstrument.speedscope.json", media_type="application/json", render=render_speedscope
        ),
        "session": Form(filename="pyinstrument.session.json", media_type="application/json", render=None),
    }
}

FORMATS = tuple(sorted({name for forms in _FORMS.values() for name in forms}))

_logger = get_logger(__name__)


def form_of(artifact: Artifact, name: str | None = None) -> Form:
    """Returns: The form of that name, or without one what a plain download gives.

    Raises:
      UnknownFormatError: When the artifact has no form of that name.
      ReportError: When it is stored in a form that this version does not know.
    """
    forms = {} if artifact.stored_as is None else _FORMS.get(artifact.stored_as)
    if forms is None:
        raise ReportError(f"This version of dramatiq_diag cannot render {artifact.stored_as!r}.")
    if name is None:
        render = next(iter(forms.values())).render if forms else None
        return Form(filename=artifact.filename, media_type=artifact.media_type, render=render)
    if name not in forms:
        there = f"the formats are {', '.join(forms)}" if forms else "it is stored in one alone"
        raise UnknownFormatError(f"{artifact.name} has no format {name!r:.50}; {there}.")
    return forms[name]


def open_download(blobs: BlobStore, artifact: Artifact, form: Form | None = None) -> BinaryIO:
    """Opens what a download of the artifact gives.

    Parameters:
      artifact: One that is live.
      form: Without it what a plain download gives. That one is kept once it is rendered; others are rendered each time.

    Raises:
      BlobMissingError: When its file is gone.
      ReportError: When the stored form is damaged, or none that this version renders.
      NotInstalledError: When the package that renders it is missing.
    """
    name = artifact.blob_name
    if name is None:
        raise BlobMissingError
    plain = form_of(artifact)
    form = form or plain
    if form.render is None:
        return blobs.open(name)
    if form != plain:
        return io.BytesIO(form.render(_read(blobs, name)))
    return _open_cached(blobs, name) or _render(blobs, name, form.render)


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


def _render(blobs: BlobStore, name: str, render: Callable[[bytes], bytes]) -> BinaryIO:
    rendered = render(_read(blobs, name))
    try:
        blobs.put_rendered(name, rendered)
    except StoreUnavailableError as error:  # Rendering again next time is better than no answer now.
        _logger.warning("A rendered report is not kept: %s", error)
    return io.BytesIO(rendered)


def _read(blobs: BlobStore, name: str) -> bytes:
    with blobs.open(name) as file:
        stored = file.read(_MAX_STORED_BYTES + 1)
    if len(stored) > _MAX_STORED_BYTES:
        raise ReportError(f"What is stored has over {_MAX_STORED_BYTES} bytes, which is too much to be rendered.")
    return stored
