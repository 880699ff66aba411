"""Gives the resources the store, the render queue, the signer and the pages; each is opened on first use."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

import falcon
from jinja2 import Environment

from ..documents.signing import Signer
from ..documents.stacks import ANSWER_WITHIN_S
from ..errors import StoreError
from ..reports.comparison import MAX_FORMAT_BYTES
from ..reports.queue import RenderQueue
from ..settings import Settings
from ..store.store import Store
from .http.negotiation import HTML
from .http.urls import base_url, mount_path
from .jinja import PAGE_POLICY, make_templates, query_with


class Backend:
    """Opens the store with the first request; if that fails, the next request tries again.

    So an app can be made while the database is out of reach, and a server can fork after making it: nothing is shared.

    Parameters:
      settings: The settings.
      wait_s: How long a request waits for a report before it answers with the progress, in seconds.
      download_wait_s: How long a download waits for its format to be rendered, in seconds; it continues meanwhile.
      probe_wait_s: How long a probe waits for each part of the store, in seconds; it gives up after a few.
      answer_wait_s: How long a request waits for the answer of a worker process, in seconds.
      max_compared_bytes: The largest format of an artifact that is read to compare two runs.
      make_queue: Makes the render queue.
      clock: Gives the seconds since the epoch, by which signatures expire.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        wait_s: float = 2.0,
        download_wait_s: float = 20.0,
        probe_wait_s: float = 2.0,
        answer_wait_s: float = ANSWER_WITHIN_S,
        max_compared_bytes: int = MAX_FORMAT_BYTES,
        make_queue: Callable[[Store], RenderQueue] = RenderQueue,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.wait_s = wait_s
        self.download_wait_s = download_wait_s
        self.probe_wait_s = probe_wait_s
        self.answer_wait_s = answer_wait_s
        self.max_compared_bytes = max_compared_bytes
        self.store = Store(settings)
        "Opens only the database: without the blobs, pages and documents can still be answered."
        self.session = self.store.session
        self.blobs = self.store.blobs
        self.renderings = make_queue(self.store)
        self._clock = clock

    @cached_property
    def templates(self) -> Environment:
        """The templates of the pages."""
        return make_templates()

    @cached_property
    def signer(self) -> Signer:
        """Signs URLs, and checks signatures."""
        return Signer(self.settings, self._clock)

    def base_url(self, req: falcon.Request) -> str:
        """Returns: The prefix of the URLs in documents, without a slash at its end."""
        return self.settings.public_url or base_url(req)

    def mount(self, req: falcon.Request) -> str:
        """Returns: The prefix of the paths in pages, without a slash at its end."""
        return urlsplit(self.settings.public_url).path if self.settings.public_url else mount_path(req)

    def show(self, req: falcon.Request, resp: falcon.Response, template: str, **values: Any) -> None:
        """Answers with a page.

        Parameters:
          template: The name of its file.
          values: The variables of the template, besides `mount` and `with_query`.
        """
        page = self.templates.get_template(template)
        resp.text = page.render(mount=self.mount(req), with_query=partial(query_with, req), **values)
        resp.content_type = f"{HTML}; charset=utf-8"
        resp.set_header("Content-Security-Policy", PAGE_POLICY)

    def close(self) -> None:
        """Stops the rendering of reports, and closes the connections."""
        self.renderings.close()
        self.store.close()

    def blobs_fault(self) -> str | None:
        """Returns: Why no blob can be read now; None if they can. It does not ask the database."""
        try:
            self.blobs.see_root()
        except StoreError as error:
            return str(error)
        return None
