"""Finds blobs that no live artifact has, and removes them."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from ..store.blobs.base import Found
from ..store.models import Artifact, checked_per_row, is_live
from ..store.store import Store

#: Rows or files handled at a time: small enough that no other writer waits for long.
BATCH_SIZE = 200

_T = TypeVar("_T")


def orphaned(session: Session, batch: Sequence[Found]) -> list[Found]:
    """Returns: The files that are no blob of a live artifact."""
    live = live_among(session, {found.artifact_id for found in batch})
    return [found for found in batch if not (found.is_blob and live.get(found.artifact_id) == found.name)]


def live_among(session: Session, artifact_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, str | None]:
    """Returns: The id of each of these artifacts that is live -> the name of its blob."""
    query = select(Artifact.artifact_id, Artifact.blob_name).where(
        Artifact.artifact_id.in_(artifact_ids), checked_per_row(is_live(Artifact.status))
    )
    return {row.artifact_id: row.blob_name for row in session.execute(query)}


def delete_orphans(store: Store, orphans: Sequence[Found]) -> tuple[list[Found], int]:
    """Removes orphans while nothing can be published, so that a blob whose row was on its way is put again.

    Returns:
      The files that were still orphans, and the bytes freed.
    """
    with store.exclusive() as session:
        certain = orphaned(session, orphans)
        return certain, store.blobs.delete_found(certain)


def batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Yields lists of up to *size* items."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
