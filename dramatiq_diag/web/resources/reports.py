"""The reports of an artifact, rendered when they are first asked for."""

from __future__ import annotations

import falcon

from ...reports.cache import format_of
from ...reports.errors import RenderingInProgress, UnknownFormatError
from ...reports.formats import Format
from ...store.models import Artifact
from ..backend import Backend
from ..http.negotiation import wants_html
from ..http.openapi import FILE, PROBLEM, PROGRESS, operation
from .files import ArtifactFiles, refuse_removed
from .progress import answer_progress

#: The most of a text that a page shows; the file has all.
_MAX_TEXT_BYTES = 1024 * 1024
_TEXT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"

#: Seconds that a request waits for its report before it is told how far that is.
_WAIT_S = 2.0


class ReportResource:
    """One report, or how far its rendering is."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._files = ArtifactFiles(backend)

    @operation(
        "get",
        "/artifacts/{artifact_id}/reports/{kind}",
        answers={200: FILE, 202: PROGRESS, 206: FILE, 304: None, 404: PROBLEM, 410: PROBLEM, 416: PROBLEM},
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, artifact_id: str, kind: str) -> None:
        """Get a report of an artifact, such as `svg` of a memory profile or `flamegraph` of a memray capture."""
        artifact = self._files.find(artifact_id)
        if artifact is None:
            raise falcon.HTTPNotFound(description="There is no such artifact.")
        refuse_removed(artifact)
        try:
            wanted = format_of(artifact, kind)
        except UnknownFormatError as error:
            raise falcon.HTTPNotFound(description=str(error)) from error
        try:
            if wanted.media_type == "text/plain" and wanted.render is not None and wants_html(req):
                self._show_text(req, resp, artifact, wanted)
            else:
                self._files.answer(req, resp, artifact, wanted, wait_s=_WAIT_S)
        except RenderingInProgress as progress:
            answer_progress(self._backend, req, resp, progress)

    on_head = on_get

    def _show_text(self, req: falcon.Request, resp: falcon.Response, artifact: Artifact, wanted: Format) -> None:
        """Answers a browser with a page of the text: shown as plain text, it would break long paths in the middle."""
        with self._files.open(artifact, wanted, _WAIT_S) as file:
            text = file.read(_MAX_TEXT_BYTES)
            is_cut = bool(file.read(1))
        values = {"title": wanted.filename, "text": text.decode("utf-8", "replace"), "is_cut": is_cut}
        self._backend.pages.show(req, resp, "text.html", self._backend.mount(req), **values)
        resp.set_header("Content-Security-Policy", _TEXT_POLICY)
        resp.set_header("Vary", "Accept")
