"""Compares rows with blobs, both ways, and the counters with the rows. The tests use it as their oracle as well."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import select, update

from ..errors import BlobMissingError
from ..statuses import ArtifactStatus
from ..store.blobs.base import Found
from ..store.clock import Clock
from ..store.counting import count_removed
from ..store.models import Artifact, checked_per_row, is_live
from ..store.store import Store
from .orphans import BATCH_SIZE, batched, delete_orphans, orphaned
from .recount import wrong_counters

#: A blob is put a moment before its row. If a blob without a row is younger than `_YOUNG_S`, all are looked up again
#: after `_GRACE_S`; both in seconds.
_YOUNG_S = 60.0
_GRACE_S = 1.0


@dataclass(kw_only=True)
class Findings:
    """Rows, blobs and counters that do not fit."""

    missing_blobs: list[str] = field(default_factory=list)
    "Artifact ids whose row says stored while the file is gone."
    damaged_blobs: list[str] = field(default_factory=list)
    "Artifact ids whose file has another size or SHA-256 than its row."
    unknown_blobs: list[str] = field(default_factory=list)
    "Names of files in the blob root that no row has."
    wrong_counters: list[str] = field(default_factory=list)
    "The counters of what is stored that differ from the rows, with both values."

    def __bool__(self) -> bool:
        return any(vars(self).values())


def check(
    store: Store,
    *,
    fix: bool = False,
    blobs_lost: bool = False,
    on_blob: Callable[[int], None] | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Findings:
    """Compares every row with its blob, byte by byte, every blob with the rows, and the counters with the rows.

    Parameters:
      store: The store.
      fix: Whether to repair: a row without its whole blob becomes `failed`, a blob without a row is removed, a counter
        gets the value that its rows have.
      blobs_lost: Whether an empty blob root is this store's though the database knows of blobs; otherwise it is taken
        for one whose disk is not mounted.
      on_blob: Called with the number of artifacts read so far.
      sleep: Waits until the rows of young blobs should be there.

    Returns:
      The findings, repaired or not.

    Raises:
      StoreMismatchError: When blob root and database are not of one store; nothing was changed.
      StoreError: When the store cannot be used.
    """
    if fix:
        store.open()
    if blobs_lost:
        store.claim_root(instead=True)
    store.check_identity()
    findings = Findings()
    for number, artifact in enumerate(_live_artifacts(store), 1):
        damage = _damage(store, artifact)
        if damage is not None and _is_live(store, artifact.artifact_id):  # A cleanup may have come between.
            kind = findings.missing_blobs if damage == "missing" else findings.damaged_blobs
            kind.append(str(artifact.artifact_id))
            if fix:
                _give_up(store, artifact)
        if on_blob is not None:
            on_blob(number)
    unknown = _unknown(store, sleep)
    findings.unknown_blobs = [found.name for found in unknown]
    if fix:
        for batch in batched(unknown, BATCH_SIZE):
            delete_orphans(store, batch)
    findings.wrong_counters = wrong_counters(store, fix=fix)
    return findings


def _live_artifacts(store: Store) -> Iterator[Artifact]:
    last: uuid.UUID | None = None
    while True:
        query = select(Artifact).where(checked_per_row(is_live(Artifact.status))).order_by(Artifact.artifact_id)
        if last is not None:
            query = query.where(Artifact.artifact_id > last)
        with store.session() as session:
            batch = session.execute(query.limit(BATCH_SIZE)).scalars().all()
        if not batch:
            return
        yield from batch
        last = batch[-1].artifact_id


def _damage(store: Store, artifact: Artifact) -> str | None:
    try:
        name = artifact.blob_name or ""
        size_bytes = store.blobs.size_bytes(name) if name else None
        if size_bytes is None:
            return "missing"
        whole = size_bytes == artifact.size_bytes and store.blobs.sha256(name) == artifact.sha256
    except BlobMissingError:
        return "missing"
    return None if whole else "damaged"


def _is_live(store: Store, artifact_id: uuid.UUID) -> bool:
    with store.session() as session:
        query = select(Artifact.artifact_id).where(Artifact.artifact_id == artifact_id, is_live(Artifact.status))
        return session.execute(query).first() is not None


def _give_up(store: Store, artifact: Artifact) -> None:
    """Makes the row `failed`, unless the artifact was published again; nothing is published during this second look."""
    with store.exclusive() as session:
        now = session.execute(
            select(Artifact.size_bytes, Artifact.sha256).where(Artifact.artifact_id == artifact.artifact_id)
        ).one_or_none()
        if now != (artifact.size_bytes, artifact.sha256):
            return
        damage = _damage(store, artifact)
        if damage is None:
            return
        reason = f"Its file was found {damage} by a check at {Clock(session).read():%Y-%m-%d %H:%M:%S} UTC."
        give_up = (
            update(Artifact)
            .where(
                Artifact.artifact_id == artifact.artifact_id,
                Artifact.blob_name == artifact.blob_name,
                is_live(Artifact.status),
            )
            .values(status=ArtifactStatus.FAILED, reason=reason)
            .returning(Artifact.artifact_id)
        )
        count_removed(session, session.execute(give_up).scalars().all(), ArtifactStatus.FAILED)
        if artifact.blob_name is not None:
            store.blobs.delete([artifact.blob_name])


def _unknown(store: Store, sleep: Callable[[float], object]) -> list[Found]:
    found = _orphans(store, (file for file in store.blobs.scan() if file.is_blob))
    young_after = store.now().timestamp() - _YOUNG_S
    if any(orphan.modified_at > young_after for orphan in found):
        sleep(_GRACE_S)
    return _orphans(store, found)


def _orphans(store: Store, files: Iterable[Found]) -> list[Found]:
    found: list[Found] = []
    for batch in batched(files, BATCH_SIZE):
        with store.session() as session:
            found += orphaned(session, batch)
    return found
