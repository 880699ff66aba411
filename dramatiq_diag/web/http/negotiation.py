"""Decides whether a client gets a page or a document."""

from __future__ import annotations

import falcon

HTML = "text/html"

#: A longer `Accept`, in characters, counts as `*/*`: the time that Falcon needs grows with the square of its length.
#: Browsers send about 150.
_MAX_ACCEPT_LENGTH = 1000


def wants_html(req: falcon.Request) -> bool:
    """Returns: True for a client that prefers HTML; False for one that prefers JSON or takes anything, such as curl."""
    if len(req.accept) > _MAX_ACCEPT_LENGTH:
        return False
    return req.client_prefers((falcon.MEDIA_JSON, HTML)) == HTML
