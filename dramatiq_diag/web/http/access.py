"""Checks the API token, and refuses changes that a page of another site requests."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from urllib.parse import urlsplit

import falcon
from dramatiq.logging import get_logger

from ...settings.readers import Secret
from .logins import FailedLogins

#: Public paths: downloads carry their own signature, and the state of the server is no secret.
_OPEN = re.compile(r"/healthz|/readyz|/artifacts/[^/]*/(?!reports(/|$)).*", re.DOTALL)
#: The path that the metrics token opens as well.
_METRICS = "/metrics"
#: Methods that change nothing.
_SAFE = ("GET", "HEAD", "OPTIONS")
#: Scheme -> the port that a browser leaves out of an origin.
_PORTS = {"http": 80, "https": 443}
_CHALLENGES = ('Bearer realm="dramatiq_diag"', 'Basic realm="dramatiq_diag", charset="UTF-8"')

#: Scheme, host in lower case, and port.
_Origin = tuple[str, str, int | None]


class TokenAccess:
    """Checks the token of every request, also for addresses that do not exist.

    Parameters:
      token: The token; with None everybody has access.
      failures: Counts wrong tokens.
      metrics_token: Another token that opens the metrics alone; None for none.
    """

    def __init__(
        self, token: Secret | None, failures: FailedLogins | None = None, *, metrics_token: Secret | None = None
    ) -> None:
        self._logger = get_logger(__name__, type(self))
        self._tokens = _encoded(token)
        self._metrics_tokens = [*self._tokens, *_encoded(metrics_token)]
        self._failures = failures or FailedLogins()

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if not self._tokens or _OPEN.fullmatch(req.path):
            return
        given = _given_token(req.auth)
        if given is None:
            raise falcon.HTTPUnauthorized(
                description="This needs the API token, as `Authorization: Bearer` or as the password of HTTP Basic.",
                challenges=_CHALLENGES,
            )
        wait_s = self._failures.wait_s(req.remote_addr)
        if wait_s:  # The token is not even compared, so that guessing takes its time.
            raise falcon.HTTPTooManyRequests(
                description="Too many wrong API tokens came from this address; try again later.", retry_after=wait_s
            )
        tokens = self._metrics_tokens if req.path == _METRICS else self._tokens
        if not any(hmac.compare_digest(given, token) for token in tokens):
            self._refuse(req)

    def _refuse(self, req: falcon.Request) -> None:
        unlogged = self._failures.add(req.remote_addr)
        if unlogged is not None:
            more = f", and {unlogged} more since the last such line" if unlogged else ""
            self._logger.warning("A wrong API token came from %r%s.", req.remote_addr, more)
        raise falcon.HTTPUnauthorized(description="The API token is not the right one.", challenges=_CHALLENGES)


class SameSite:
    """Refuses changes that a browser requests on behalf of a page of another site.

    Parameters:
      public_url: The address of the own pages, behind a proxy.
    """

    def __init__(self, public_url: str | None) -> None:
        self._public = _origin(public_url or "")

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.method in _SAFE:
            return
        # The browser sets both headers, and a page cannot change them; other clients send neither.
        site, origin = req.get_header("Sec-Fetch-Site"), req.get_header("Origin")
        if site is not None:
            allowed = site in ("same-origin", "none")
        else:
            allowed = origin is None or self._is_own(_origin(origin), req)
        if not allowed:
            raise falcon.HTTPForbidden(description="A page of another site asked for this.")

    def _is_own(self, origin: _Origin | None, req: falcon.Request) -> bool:
        if origin is None:
            return False
        # A proxy that ends TLS asks over http, so the scheme of the page is taken for that of the request as well.
        hosts = (_origin(f"{origin[0]}://{host}") for host in (req.netloc, req.forwarded_host))
        return origin == self._public or origin in hosts


def _origin(url: str) -> _Origin | None:
    """Returns: The origin of a URL as a browser compares it, with the port of the scheme where none is named.

    It is None for a text that has none, such as the origin `null`.
    """
    try:
        parts = urlsplit(url)
        port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    except ValueError:
        return None
    return None if not parts.hostname else (parts.scheme, parts.hostname, port)


def _encoded(token: Secret | None) -> list[bytes]:
    return [] if token is None else [token.get_secret_value().encode()]


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
