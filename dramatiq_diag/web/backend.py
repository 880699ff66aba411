"""What the resources work with: the store and the signer, opened when first asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from urllib.parse import urlsplit

import falcon
from sqlalchemy.orm import Session

from ..documents.signing import Signer
from ..errors import StoreError
from ..reports.queue import RenderQueue
from ..settings import Settings
from ..store.blobs.base import BlobStore
from ..store.store import Store
from .http.urls import base_url, mount_path
from .jinja import Pages


class Backend:
    """Opens the store with the first request, and tries again with the next one where that failed.

    So an app can be made and mounted while the database is out of reach, and nothing is shared by processes that a
    server forks after making it.

    Parameters:
      settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings)
        self._renderings = RenderQueue(self._store.blobs)
        self._opened = False

    def session(self) -> AbstractContextManager[Session]:
        """Returns: A transaction of the opened store. Raises: StoreError when it cannot be opened."""
        self._open()
        return self._store.session()

    @property
    def store(self) -> Store:
        """The opened store. Raises: StoreError when it cannot be opened."""
        self._open()
        return self._store

    @property
    def blobs(self) -> BlobStore:
        """The blobs."""
        return self._store.blobs

    @property
    def renderings(self) -> RenderQueue:
        """Makes reports."""
        return self._renderings

    @cached_property
    def pages(self) -> Pages:
        """The pages' templates."""
        return Pages()

    @cached_property
    def signer(self) -> Signer:
        """Signs and judges URLs."""
        return Signer(self._settings)

    def base_url(self, req: falcon.Request) -> str:
        """Returns: What goes before the paths in answers, without a slash at its end."""
        return self._settings.public_url or base_url(req)

    def mount(self, req: falcon.Request) -> str:
        """Returns: What goes before the paths in pages, without a slash at its end."""
        return urlsplit(self._settings.public_url).path if self._settings.public_url else mount_path(req)

    def close(self) -> None:
        """Gives up what is being rendered, and closes the connections."""
        self._renderings.close()
        self._store.close()

    def check_blobs(self) -> None:
        """Sees to it that the blobs can be read. Raises: StoreError."""
        self.store.claim_blobs()
        self._store.blobs.verify(self._store.store_id())

    def blobs_fault(self) -> str | None:
        """Returns: Why no blob can be read now, in words; None where they can. The database is not asked."""
        try:
            self._store.blobs.see_root()
        except StoreError as error:
            return str(error)
        return None

    def _open(self) -> None:
        """Opens the database alone: without the blobs, pages and documents can still be answered."""
        if not self._opened:
            self._store.open_database()
            self._opened = True
