"""Downloads of artifacts by signed URLs."""

from __future__ import annotations

import falcon

from ...reports.cache import format_of
from ...reports.errors import RenderingInProgress, UnknownFormatError
from ...reports.formats import Format
from ...store.blobs.headers import is_page
from ...store.models import Artifact
from ..http.openapi import FILE, PROBLEM, operation
from ..http.queries import DownloadQuery
from .files import ArtifactResource

#: How long the URL of a redirect is valid at most, in seconds: the clock of this host may be some minutes behind.
_SIGNED_S = 900.0


class DownloadResource(ArtifactResource):
    """The file of one artifact. The signature is checked before anything else."""

    @operation(
        "get",
        "/artifacts/{artifact_id}/{filename}",
        query=DownloadQuery,
        answers={
            200: FILE,
            206: FILE,
            302: None,
            304: None,
            400: PROBLEM,
            403: PROBLEM,
            404: PROBLEM,
            410: PROBLEM,
            416: PROBLEM,
        },
    )
    def on_get(self, req: falcon.Request, resp: falcon.Response, artifact_id: str, filename: str) -> None:
        """Download an artifact, in whole or, with `Range`, in part."""
        reason = self._backend.signer.reason_against(
            artifact_id, filename, req.get_param("expires"), req.get_param("signature")
        )
        if reason is not None:
            raise falcon.HTTPForbidden(description=reason)
        artifact = self._find(artifact_id, filename)
        try:
            wanted = format_of(artifact, req.get_param("format"))
            if self._backend.settings.download_redirect and req.method == "GET":  # A signed URL is for one method.
                self._redirect(artifact, wanted)
            self._answer(req, resp, artifact, wanted, wait_s=self._backend.download_wait_s)
        except UnknownFormatError as error:
            raise falcon.HTTPBadRequest(description=str(error)) from error
        except RenderingInProgress as progress:
            raise falcon.HTTPServiceUnavailable(description=str(progress), retry_after=10) from progress

    def _redirect(self, artifact: Artifact, wanted: Format) -> None:
        """Redirects to the bucket, if it has this very file. A page is never among them: it needs its sandbox."""
        if artifact.stored_as is not None or wanted.render is not None or is_page(wanted.media_type):
            return
        self._open(artifact, wanted, 0).close()  # Answers 410 where it is gone.
        url = self._backend.blobs.signed_url(artifact.blob_name or "", min(self._backend.settings.url_ttl, _SIGNED_S))
        if url is not None:
            raise falcon.HTTPFound(url)
