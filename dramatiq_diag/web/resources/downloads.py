"""Downloads of artifacts by signed URLs."""

from __future__ import annotations

import falcon

from ...reports.cache import format_of
from ...reports.errors import RenderingInProgress, UnknownFormatError
from ..backend import Backend
from ..http.openapi import FILE, PROBLEM, operation
from ..http.queries import DownloadQuery
from .base import Resource
from .files import ArtifactFiles

#: How long a download waits for its format to be rendered, in seconds. A longer rendering continues meanwhile.
_WAIT_S = 20.0


class DownloadResource(Resource):
    """The file of one artifact. The signature is checked before anything else."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
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
        artifact = self._files.find(artifact_id, filename)
        try:
            self._files.answer(req, resp, artifact, format_of(artifact, req.get_param("format")), wait_s=_WAIT_S)
        except UnknownFormatError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from error
        except RenderingInProgress as progress:
            raise falcon.HTTPServiceUnavailable(description=str(progress), retry_after=10) from progress
