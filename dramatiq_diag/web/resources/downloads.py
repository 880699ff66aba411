"""The file of an artifact, to whoever has a signed URL of it."""

from __future__ import annotations

import falcon

from ...reports.cache import format_of
from ...reports.errors import UnknownFormatError
from ...reports.queue import RenderingInProgress
from ..backend import Backend
from ..http.openapi import FILE, PROBLEM, operation
from ..http.queries import DownloadQuery
from .files import ArtifactFiles, refuse_removed

#: Seconds that a download waits for the form it gives; the rendering of a longer one goes on meanwhile.
_WAIT_S = 20.0


class DownloadResource:
    """One artifact's file, whole or in part; the signature is judged before anything else."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._files = ArtifactFiles(backend)

    @operation(
        "get",
        "/artifacts/{artifact_id}/{filename}",
        query=DownloadQuery,
        answers={200: FILE, 206: FILE, 304: None, 400: PROBLEM, 403: PROBLEM, 404: PROBLEM, 410: PROBLEM, 416: PROBLEM},
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, artifact_id: str, filename: str) -> None:
        """Download an artifact, in whole or, with `Range`, in part."""
        refusal = self._backend.signer.reason_against(
            artifact_id, filename, req.get_param("expires"), req.get_param("signature")
        )
        if refusal is not None:
            raise falcon.HTTPForbidden(description=refusal)
        artifact = self._files.find(artifact_id)
        if artifact is None or artifact.filename != filename:
            raise falcon.HTTPNotFound(description="There is no such artifact.")
        refuse_removed(artifact)
        try:
            form = format_of(artifact, req.get_param("format"))
        except UnknownFormatError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from error
        try:
            self._files.answer(req, resp, artifact, form, wait_s=_WAIT_S)
        except RenderingInProgress as progress:
            raise falcon.HTTPServiceUnavailable(description=str(progress), retry_after=10) from progress

    on_head = on_get
