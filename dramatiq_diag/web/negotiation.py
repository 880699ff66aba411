"""Who asks: a browser is shown a page, and everything else is given the document."""

from __future__ import annotations

import falcon

HTML = "text/html"


def wants_html(req: falcon.Request) -> bool:
    """Returns: Whether the client prefers a page to JSON; one that takes anything, as curl does, gets JSON."""
    return req.client_prefers((falcon.MEDIA_JSON, HTML)) == HTML
