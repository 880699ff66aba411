"""Attachments to running tasks, as somebody asks for them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from dramatiq_diag.store.attachments import AttachmentStanding, AttachmentState, attach, find_attachment
from dramatiq_diag.store.models import Artifact
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import eventually
from support.workers import is_executed

#: A worker process that reports, and looks at what is asked of it, many times a second.
SOON = Tuning(attention_s=0.05, report_s=0.05)


class Attaching:
    """Asks a worker process, over the database."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def attach(
        self, task_id: str, diagnostics: Iterable[str] | Mapping[str, Any], *, for_s: float = 600.0
    ) -> uuid.UUID:
        """Asks as soon as the worker has said that it executes the task. Returns: The attachment's id."""
        eventually(lambda: self.is_executed(task_id), "the worker has said that it executes the task")
        request = diagnostics if isinstance(diagnostics, Mapping) else {name: {} for name in diagnostics}
        return attach(self.store, task_id, request, for_s)

    def standing(self, attachment_id: uuid.UUID) -> AttachmentStanding:
        with self.store.session() as session:
            found = find_attachment(session, attachment_id)
        assert found is not None
        return found

    def state(self, attachment_id: uuid.UUID) -> str:
        return str(self.standing(attachment_id).state)

    def active(self, attachment_id: uuid.UUID) -> None:
        """Waits until it collects."""
        eventually(lambda: self.state(attachment_id) == AttachmentState.ACTIVE, "it collects")

    def done(self, attachment_id: uuid.UUID) -> dict[str, Artifact]:
        """Waits until its artifacts are there. Returns: Them, by name."""
        eventually(lambda: self.standing(attachment_id).is_over, "the attachment is over")
        standing = self.standing(attachment_id)
        assert standing.state is AttachmentState.DONE, standing.reason
        return {artifact.name: artifact for artifact in standing.artifacts}

    def data(self, artifact: Artifact) -> bytes:
        """Returns: The stored bytes."""
        assert artifact.blob_name is not None, artifact.reason
        with self.store.blobs.open(artifact.blob_name) as file:
            return file.read()

    def path(self, artifact: Artifact) -> str:
        assert artifact.blob_name is not None, artifact.reason
        return str(self.store.settings.blob_dir / artifact.blob_name)

    def is_executed(self, task_id: str) -> bool:
        return is_executed(self.store, task_id)
