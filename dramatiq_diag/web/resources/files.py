"""Answers with the file of an artifact: headers, conditions, and the whole file or a part."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack, suppress
from typing import BinaryIO

import falcon
from dramatiq.logging import get_logger

from ...errors import BlobMissingError
from ...reports.formats import Format
from ...statuses import DOWNLOADABLE_STATUSES
from ...store.blobs.headers import file_headers, is_page
from ...store.models import Artifact
from ...store.runs import find_artifact
from ..http.conditions import has_already
from ..http.ranges import Slice, UnsatisfiableRangeError, parse_range
from .base import Resource, id_in_path

#: A report is a page with scripts of its own; they run in an origin of their own, and can reach nothing.
_HTML_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
_OTHER_POLICY = "sandbox; default-src 'none'; frame-ancestors 'self'"
_logger = get_logger(__name__)
_UNKNOWN = "There is no such artifact."


class ArtifactResource(Resource):
    """Finds artifacts, and answers with their files."""

    def _find(self, artifact_id: str, filename: str | None = None) -> Artifact:
        """Returns: The artifact that can be downloaded under this id and name.

        Raises:
          falcon.HTTPNotFound: When there is no such artifact.
          falcon.HTTPGone: When it has no file.
        """
        key = id_in_path(artifact_id, _UNKNOWN)
        with self._backend.session() as session:
            artifact = find_artifact(session, key)
        if artifact is None or filename not in (None, artifact.filename):
            raise falcon.HTTPNotFound(description=_UNKNOWN)
        _refuse_removed(artifact)
        return artifact

    def _answer(
        self, req: falcon.Request, resp: falcon.Response, artifact: Artifact, wanted: Format, *, wait_s: float
    ) -> None:
        """Answers with a format of an artifact, which may have to be rendered first.

        Raises:
          RenderingInProgress: When it is not rendered after *wait_s* seconds.
          falcon.HTTPGone: When there is no file.
        """
        with ExitStack() as opened:
            file = opened.enter_context(self._open(artifact, wanted, wait_s))
            offsets = self._describe(req, resp, artifact, wanted, file)
            if offsets is not None:
                resp.stream = Slice(file, offsets)
                opened.pop_all()

    def _open(self, artifact: Artifact, wanted: Format, wait_s: float) -> BinaryIO:
        """Opens a format of an artifact. Raises as `_answer` does."""
        try:
            return self._backend.renderings.open(artifact, wanted, wait_s)
        except BlobMissingError as error:
            with suppress(falcon.HTTPNotFound):  # A cleanup may just have removed the file, or even the row.
                self._find(str(artifact.artifact_id))
            _logger.warning(
                "The file of artifact %s (%r) is gone and its row is live; see `dramatiq-diag check`.",
                artifact.artifact_id,
                artifact.name,
            )
            raise falcon.HTTPGone(description="The file of this artifact is gone.") from error

    def _describe(
        self, req: falcon.Request, resp: falcon.Response, artifact: Artifact, wanted: Format, file: BinaryIO
    ) -> range | None:
        """Sets status and headers. Returns: The offsets to send, or None when only headers are sent."""
        size_bytes = file.seek(0, os.SEEK_END)
        etag = f'"{self._digest(artifact, wanted, file, size_bytes)}"'
        offsets = _offsets(req, etag, size_bytes)
        resp.set_header("ETag", etag)
        resp.set_header("Cache-Control", "private, no-cache")  # It may have been removed when it is asked for again.
        if has_already(req, etag):
            resp.status = falcon.HTTP_304
            return None
        resp.set_headers(file_headers(wanted.media_type, wanted.filename))
        resp.set_header("Content-Security-Policy", _HTML_POLICY if is_page(wanted.media_type) else _OTHER_POLICY)
        resp.set_header("Accept-Ranges", "bytes")
        if offsets is not None:
            resp.status = falcon.HTTP_206
            resp.set_header("Content-Range", f"bytes {offsets.start}-{offsets.stop - 1}/{size_bytes}")
        offsets = range(size_bytes) if offsets is None else offsets
        resp.content_length = len(offsets)
        return None if req.method == "HEAD" else offsets

    def _digest(self, artifact: Artifact, wanted: Format, file: BinaryIO, size_bytes: int) -> str:
        if wanted.render is not None or artifact.sha256 is None:
            file.seek(0)
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        if size_bytes != artifact.size_bytes:
            _logger.warning(
                "The file of artifact %s (%r) has %s bytes and should have %s; see `dramatiq-diag check`.",
                artifact.artifact_id,
                artifact.name,
                size_bytes,
                artifact.size_bytes,
            )
            raise falcon.HTTPInternalServerError(description="The file of this artifact is damaged.")
        return artifact.sha256


def _refuse_removed(artifact: Artifact) -> None:
    """Raises: falcon.HTTPGone for an artifact without a file."""
    if artifact.status not in DOWNLOADABLE_STATUSES:
        raise falcon.HTTPGone(description=artifact.reason or f"This artifact is {artifact.status}.")


def _offsets(req: falcon.Request, etag: str, size_bytes: int) -> range | None:
    """Returns: The requested part, or None for the whole file. Raises: falcon.HTTPRangeNotSatisfiable."""
    if req.method != "GET" or has_already(req, etag) or req.if_range not in (None, etag):
        return None
    try:
        return parse_range(req.get_header("Range"), size_bytes)
    except UnsatisfiableRangeError as error:
        raise falcon.HTTPRangeNotSatisfiable(size_bytes) from error
