"""Puts blobs one by one."""

from __future__ import annotations

import uuid
from typing import Any, BinaryIO

from dramatiq_diag.store.blobs.base import Blob, BlobStore, NewBlob


def put_one(blobs: BlobStore, artifact_id: uuid.UUID, source: BinaryIO, day: Any = None, headers: Any = None) -> Blob:
    """Puts a blob with the content of an open file, which is closed then."""
    (blob,) = blobs.put([NewBlob(artifact_id=artifact_id, open=lambda: source, day=day, headers=headers)])
    return blob
