"""The reports of an artifact, rendered on first request."""

from __future__ import annotations

import falcon

from ...reports.cache import format_of
from ...reports.errors import RenderingInProgress, UnknownFormatError
from ...reports.formats import Format
from ...store.models import Artifact
from ..http.negotiation import wants_html
from ..http.openapi import FILE, PROBLEM, PROGRESS, operation
from .files import ArtifactResource
from .progress import answer_progress

#: The most of a text that its page shows, in bytes.
_MAX_TEXT_BYTES = 1024 * 1024
_TEXT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"


class ReportResource(ArtifactResource):
    """One report, or the progress of its rendering."""

    @operation(
        "get",
        "/artifacts/{artifact_id}/reports/{kind}",
        answers={200: FILE, 202: PROGRESS, 206: FILE, 304: None, 404: PROBLEM, 410: PROBLEM, 416: PROBLEM},
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, artifact_id: str, kind: str) -> None:
        """Get a report of an artifact, such as `svg` of a memory profile or `flamegraph` of an allocation profile."""
        artifact = self._find(artifact_id)
        try:
            wanted = format_of(artifact, kind)
            if wanted.media_type == "text/plain" and wanted.render is not None and wants_html(req):
                self._show_text(req, resp, artifact, wanted)
            else:
                self._answer(req, resp, artifact, wanted, wait_s=self._backend.wait_s)
        except UnknownFormatError as error:
            raise falcon.HTTPNotFound(description=str(error)) from error
        except RenderingInProgress as progress:
            answer_progress(self._backend, req, resp, progress)

    def _show_text(self, req: falcon.Request, resp: falcon.Response, artifact: Artifact, wanted: Format) -> None:
        """Answers a browser with a page: it would break the long lines of a plain text."""
        with self._open(artifact, wanted, self._backend.wait_s) as file:
            text = file.read(_MAX_TEXT_BYTES).decode("utf-8", "replace")
            is_cut = bool(file.read(1))
        self._backend.show(req, resp, "text.html", title=wanted.filename, text=text, is_cut=is_cut)
        resp.set_header("Content-Security-Policy", _TEXT_POLICY)
        resp.set_header("Vary", "Accept")
