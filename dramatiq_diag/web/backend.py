"""Gives the resources the store, the render queue, the signer and the pages; each is opened on first use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any
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
    """Opens the store with the first request; if that fails, the next request tries again.

    So an app can be made while the database is out of reach, and a server can fork after making it: nothing is shared.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = Store(settings)
        self._opened = False
        self.data_dir = settings.data_dir
        self.blobs = self._store.blobs
        self.renderings = RenderQueue(self.blobs)

    def session(self) -> AbstractContextManager[Session]:
        """Returns: A transaction of the opened store. Raises: StoreError when it cannot be opened."""
        self._open()
        return self._store.session()

    @property
    def store(self) -> Store:
        """The opened store. Raises: StoreError when it cannot be opened."""
        self._open()
        return self._store

    @cached_property
    def pages(self) -> Pages:
        """The templates of the pages."""
        return Pages()

    @cached_property
    def signer(self) -> Signer:
        """Signs URLs, and checks signatures."""
        return Signer(self._settings)

    def base_url(self, req: falcon.Request) -> str:
        """Returns: The prefix of the URLs in documents, without a slash at its end."""
        return self._settings.public_url or base_url(req)

    def mount(self, req: falcon.Request) -> str:
        """Returns: The prefix of the paths in pages, without a slash at its end."""
        return urlsplit(self._settings.public_url).path if self._settings.public_url else mount_path(req)

    def show(self, req: falcon.Request, resp: falcon.Response, template: str, **values: Any) -> None:
        """Answers with a page; parameters as for `Pages.show`."""
        self.pages.show(req, resp, template, self.mount(req), **values)

    def close(self) -> None:
        """Stops the rendering of reports, and closes the connections."""
        self.renderings.close()
        self._store.close()

    def check_blobs(self) -> None:
        """Checks that the blobs can be read. Raises: StoreError when they cannot."""
        self.store.claim_blobs()
        self.blobs.verify(self._store.store_id())

    def blobs_fault(self) -> str | None:
        """Returns: Why no blob can be read now; None if they can. It does not ask the database."""
        try:
            self.blobs.see_root()
        except StoreError as error:
            return str(error)
        return None

    def _open(self) -> None:
        """Opens only the database; pages and documents can be answered without the blobs."""
        if not self._opened:
            self._store.open_database()
            self._opened = True
