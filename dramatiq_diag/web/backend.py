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
        self.store = Store(settings)
        "Opens the database alone when it is first used: without the blobs, pages and documents can still be answered."
        self.blobs = self.store.blobs
        self._renderings = RenderQueue(self.blobs)

    def session(self) -> AbstractContextManager[Session]:
        """Returns: A transaction; it raises StoreError when the database cannot be used."""
        return self.store.session()

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
        self.store.close()

    def check_blobs(self) -> None:
        """Sees to it that the blobs can be read. Raises: StoreError."""
        self.store.claim_blobs()
        self.blobs.verify(self.store.store_id())

    def blobs_fault(self) -> str | None:
        """Returns: Why no blob can be read now, in words; None where they can. The database is not asked."""
        try:
            self.blobs.see_root()
        except StoreError as error:
            return str(error)
        return None
