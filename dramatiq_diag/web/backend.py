"""What the resources work with: the store and the signer, opened when first asked for."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property

import falcon
from sqlalchemy.orm import Session

from ..blobs import BlobStore
from ..settings import Settings
from ..signing import Signer
from ..store import Store
from .urls import base_url


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
        self._opened = False

    def session(self) -> AbstractContextManager[Session]:
        """Returns: A transaction of the opened store. Raises: StoreError when it cannot be opened."""
        self._open()
        return self._store.session()

    @property
    def blobs(self) -> BlobStore:
        """The blobs."""
        return self._store.blobs

    @cached_property
    def signer(self) -> Signer:
        """Signs and judges URLs."""
        return Signer(self._settings)

    def base_url(self, req: falcon.Request) -> str:
        """Returns: What goes before the paths in answers, without a slash at its end."""
        return self._settings.public_url or base_url(req)

    def close(self) -> None:
        """Closes the connections."""
        self._store.close()

    def _open(self) -> None:
        if not self._opened:
            self._store.open()
            self._opened = True
