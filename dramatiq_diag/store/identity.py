"""Keeps the database and the blob root to one store: each has the ids of both."""

from __future__ import annotations

import uuid

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from ..errors import StoreMismatchError
from ..settings import Settings
from .blobs import blob_store_of
from .blobs.base import RootId
from .models import Artifact, StoreState, is_live
from .transactions import Transactions


class IdentifiedStore(Transactions):
    """A database and its blob root. The root is claimed for the database before the first blob is stored."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.blobs = blob_store_of(settings)
        self._identity: RootId | None = None
        "The ids of this store and its blob root, once the root was looked at."

    def open(self) -> None:
        """Opens the database and claims the blob root, unless both was done before.

        For what stores blobs. What only reads opens the database alone: all workers share the root that is claimed
        first. One that looks unused is not claimed for a database that has a root already, or that knows of blobs: its
        disk may not be mounted.

        Raises:
          NotInstalledError: When the database's driver is missing.
          SchemaError: When the schema is not the one needed.
          StoreUnavailableError: When the database or the blob root cannot be used.
        """
        self.open_database()
        if self._identity is not None:
            return
        identity = self.identity()
        if identity.root_id is None and (self.blobs.read_id() is not None or not self._has_blobs()):
            self.claim_root()
        else:
            self._identity = identity

    def reopen(self) -> None:
        super().reopen()
        self._identity = None

    def store_id(self) -> uuid.UUID:
        """Returns: The id of this store, as the database has it."""
        return self.identity().store_id

    def identity(self) -> RootId:
        """Returns: The id of this store and of its blob root, as the database has them."""
        with self.session() as session:
            return _identity(session)

    def claim_root(self, *, instead: bool = False) -> None:
        """Claims the blob root for this database, unless it has another. The first of several processes wins.

        The root has its id before the database knows it: after a death in between the next process finds the id there.

        Parameters:
          instead: Whether an unused root takes the place of the one that was claimed before.
        """
        if instead and self.blobs.read_id() is not None:
            return
        with self.exclusive() as session:
            identity = _identity(session)
            if identity.root_id is None or instead:
                root_id = self.blobs.claim(identity.store_id)
                if root_id is not None:
                    session.execute(update(StoreState).values(blob_root_id=root_id))
            self._identity = _identity(session)

    def verify_root(self) -> None:
        """Checks that the blob root is there, and is the claimed one; see `BlobStore.verify`."""
        identity = self._identity or self.identity()
        self.blobs.verify(identity.store_id, identity.root_id)

    def check_identity(self) -> None:
        """Checks that database and blob root belong to one store.

        Raises:
          StoreMismatchError: When the blob root is another store's, or not the one that was claimed; or it has no id,
            though there are blobs or the database has a root.
        """
        expected = self.identity()
        if self.blobs.read_id() is None:
            fault = self._fault_without_id(expected)
            if fault is None:
                return
            # Another process may just claim the root. It has its id before the database knows it, and before any blob.
            if self.blobs.read_id() is None:
                raise StoreMismatchError(fault)
        self.blobs.verify(expected.store_id, expected.root_id)

    def _fault_without_id(self, expected: RootId) -> str | None:
        """Returns: Why a blob root may not be without an id; None where nothing was ever stored."""
        if next(self.blobs.scan(), None) is not None:
            return (
                f"The blobs in {self.blobs.root} are of a store that is not known, "
                f"the database is {expected.store_id}. {StoreMismatchError()}"
            )
        if expected.root_id is not None or self._has_blobs():
            return (
                f"The blob directory {self.blobs.root} is empty, and the database has one that is not; nothing was "
                "changed. Mount it or set DRAMATIQ_DIAG_BLOB_URL; if its files are lost: "
                "dramatiq-diag check --fix --blobs-lost"
            )
        return None

    def _has_blobs(self) -> bool:
        """Returns: Whether a row says that a blob is stored."""
        live = select(Artifact.artifact_id).where(is_live(Artifact.status), Artifact.blob_name.is_not(None))
        query = live.order_by(Artifact.expires_at).limit(1)  # By the index of the live artifacts.
        with self.session() as session:
            return session.execute(query).first() is not None


def _identity(session: Session) -> RootId:
    store_id, root_id = session.execute(select(StoreState.store_id, StoreState.blob_root_id)).one()
    return RootId(store_id=store_id, root_id=root_id)
