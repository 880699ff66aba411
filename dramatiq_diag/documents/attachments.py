"""Makes the JSON documents of attachments, for HTTP and the command line."""

from __future__ import annotations

from typing import Any

from typing_extensions import TypedDict

from ..store.attachments import AttachmentStanding, AttachmentState
from .artifacts import ArtifactDocument, artifact_document, urls
from .fields import Href, HrefText, Timestamp, UuidText, described, timestamp
from .signing import Signer


@described
class AttachmentDocument(TypedDict):
    """What is collected of a run because somebody asked for it while the run went on."""

    attachment_id: UuidText
    task_id: str
    run_id: UuidText | None
    "Null for a task that was not diagnosed, until the worker process has begun."
    diagnostics: dict[str, dict[str, Any]]
    "Name of each diagnostic -> its options."
    for_s: float
    "Seconds after which it ends, if the run does not end before."
    created_at: Timestamp
    state: AttachmentState
    reason: str | None
    "Why it was refused, or is lost."
    urls: dict[str, str]
    "Artifact name -> the signed URL of each that can be downloaded now; empty until it is done."
    artifacts: list[ArtifactDocument]
    href: HrefText
    "The path of the attachment."


@described
class AttachmentsDocument(TypedDict):
    """The attachments to the running tasks of an actor."""

    attachments: list[AttachmentDocument]


def attachment_document(standing: AttachmentStanding, signer: Signer, base_url: str) -> AttachmentDocument:
    """Returns: ATTACHMENT, as docs/attach.md describes it."""
    question = standing.question
    return {
        "attachment_id": str(question.question_id),
        "task_id": question.task_id,
        "run_id": None if question.run_id is None else str(question.run_id),
        "diagnostics": {name: dict(options) for name, options in standing.diagnostics.items()},
        "for_s": standing.for_s,
        "created_at": timestamp(question.created_at),
        "state": standing.state,
        "reason": standing.reason,
        "urls": urls(standing.artifacts, signer, base_url),
        "artifacts": [artifact_document(artifact) for artifact in standing.artifacts],
        "href": Href(f"/attachments/{question.question_id}/"),
    }
