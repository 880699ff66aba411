"""Makes the JSON documents of artifacts, for HTTP and the command line."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus
from ..store.models import Artifact
from .fields import Timestamp, UuidText, described, document_of
from .signing import Signer


@described
class ArtifactDocument(TypedDict):
    """An artifact: what one collector left of one run."""

    artifact_id: UuidText
    name: str
    status: ArtifactStatus
    reason: str | None
    "In words; null where the status is `stored`."
    filename: str
    media_type: str
    stored_as: str | None
    "The name of the stored file, where the download is rendered from a smaller one."
    size_bytes: int | None
    "The size of the stored file in bytes."
    sha256: str | None
    expires_at: Timestamp | None
    "When the cleanup may remove it; null where there is nothing to remove, or the run is pinned."


def artifact_document(artifact: Artifact) -> ArtifactDocument:
    """Returns: ARTIFACT, as docs/http.md describes it."""
    return document_of(ArtifactDocument, artifact)


def urls(artifacts: Sequence[Artifact], signer: Signer, base_url: str) -> dict[str, str]:
    """Returns: Artifact name -> the signed URL of each that can be downloaded now."""
    return {
        artifact.name: base_url + signer.url_path(str(artifact.artifact_id), artifact.filename)
        for artifact in artifacts
        if artifact.status in DOWNLOADABLE_STATUSES
    }
