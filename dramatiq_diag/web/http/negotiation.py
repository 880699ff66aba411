"""Who asks: a browser is shown a page, and everything else is given the document."""

from __future__ import annotations

import falcon

HTML = "text/html"

#: A longer `Accept` counts as one that takes anything, in characters: the time that Falcon takes for it grows with the
#: square of its length. Browsers send about 150.
_MAX_ACCEPT_LENGTH = 1000


def wants_html(req: falcon.Request) -> bool:
    """Returns: Whether the client prefers a page to JSON; one that takes anything, as curl does, gets JSON."""
    if len(req.accept) > _MAX_ACCEPT_LENGTH:
        return False
    return req.client_prefers((falcon.MEDIA_JSON, HTML)) == HTML
