"""Gives the resources the store, the render queue, the signer and the pages; each is opened on first use."""

from __future__ import annotations

from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import falcon

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
        self.settings = settings
        self.store = Store(settings)
        "Opens only the database: without the blobs, pages and documents can still be answered."
        self.session = self.store.session
        self.blobs = self.store.blobs
        self.renderings = RenderQueue(self.blobs)

    @cached_property
    def pages(self) -> Pages:
        """The templates of the pages."""
        return Pages()

    @cached_property
    def signer(self) -> Signer:
        """Signs URLs, and checks signatures."""
        return Signer(self.settings)

    def base_url(self, req: falcon.Request) -> str:
        """Returns: The prefix of the URLs in documents, without a slash at its end."""
        return self.settings.public_url or base_url(req)

    def mount(self, req: falcon.Request) -> str:
        """Returns: The prefix of the paths in pages, without a slash at its end."""
        return urlsplit(self.settings.public_url).path if self.settings.public_url else mount_path(req)

    def show(self, req: falcon.Request, resp: falcon.Response, template: str, **values: Any) -> None:
        """Answers with a page; parameters as for `Pages.show`."""
        self.pages.show(req, resp, template, self.mount(req), **values)

    def close(self) -> None:
        """Stops the rendering of reports, and closes the connections."""
        self.renderings.close()
        self.store.close()

    def check_blobs(self) -> None:
        """Checks that the blobs can be read. Raises: StoreError when they cannot."""
        self.store.claim_blobs()
        self.blobs.verify(self.store.store_id())

    def blobs_fault(self) -> str | None:
        """Returns: Why no blob can be read now; None if they can. It does not ask the database."""
        try:
            self.blobs.see_root()
        except StoreError as error:
            return str(error)
        return None
