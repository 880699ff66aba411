"""Who may ask: the API token, as a Bearer token or as the password of HTTP Basic."""

from __future__ import annotations

import base64
import binascii
import hmac
import re

import falcon
from pydantic import SecretStr

#: What is open to all: downloads bring their own signature.
_OPEN = re.compile(r"/healthz|/artifacts/.*", re.DOTALL)
_CHALLENGES = ('Bearer realm="dramatiq_diag"', 'Basic realm="dramatiq_diag", charset="UTF-8"')


class TokenAccess:
    """Asks every request for the token, one for an address that does not exist too.

    Parameters:
      token: The token; None or an empty one lets everybody in.
    """

    def __init__(self, token: SecretStr | None) -> None:
        self._token = b"" if token is None else token.get_secret_value().encode()

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if not self._token or _OPEN.fullmatch(req.path):
            return
        given = _given_token(req.auth)
        if given is None:
            raise falcon.HTTPUnauthorized(
                description="This needs the API token, as `Authorization: Bearer` or as the password of HTTP Basic.",
                challenges=_CHALLENGES,
            )
        if not hmac.compare_digest(given, self._token):
            raise falcon.HTTPUnauthorized(description="The API token is not the right one.", challenges=_CHALLENGES)


def _given_token(authorization: str | None) -> bytes | None:
    scheme, _, credentials = (authorization or "").partition(" ")
    given = credentials.strip().encode("latin-1", "replace")  # WSGI decodes a header's bytes as Latin-1.
    if scheme.lower() == "bearer":
        return given
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except binascii.Error:
        return None
