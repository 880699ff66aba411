"""The names that an app answers under; a foreign name that points at this machine gets nothing (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from ...settings import Settings
from ...settings.urls import ANY_HOST

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]+)(?::[0-9]*)?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class HostNames:
    """Names that an app is known by, on any port, besides those of the loopback address.

    Parameters:
      names: The names; `*` stands for all.
      addresses: Whether any IP address is one of them. No page of another site can have one as its name.
    """

    def __init__(self, names: Iterable[str], *, addresses: bool = False) -> None:
        self._names = {*_LOOPBACK, *(bracketed(name).lower() for name in names)}
        self._addresses = addresses

    def __contains__(self, header: object) -> bool:
        """Returns: Whether a Host header has one of the names."""
        if ANY_HOST in self._names:
            return True
        match = _HOST.fullmatch(header) if isinstance(header, str) else None
        if match is None:
            return False
        return match[1].lower() in self._names or (self._addresses and _is_address(match[1]))


def known_hosts(settings: Settings) -> HostNames:
    """Returns: The names of an app whose server is not known."""
    return HostNames(_configured(settings))


def hosts_of_server(settings: Settings, host: str) -> HostNames:
    """Returns: The names of an app on a server that is bound to *host*.

    One that others reach cannot know by which names they do. With a token it answers under any, unless names are set: a
    page of another site does not have the token. Without one it answers under addresses and the machine's own name.
    """
    if is_loopback(host):
        return HostNames([host, *_configured(settings)])
    if settings.api_token is not None and not settings.allowed_hosts:
        return HostNames([ANY_HOST])
    return HostNames([host, socket.gethostname(), *_configured(settings)], addresses=True)


def is_loopback(host: str) -> bool:
    """Returns: Whether only this machine reaches a server bound to *host*."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bracketed(host: str) -> str:
    """Returns: The host as it stands in a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _configured(settings: Settings) -> list[str]:
    public = urlsplit(settings.public_url or "").hostname
    return [*settings.allowed_hosts, *([] if public is None else [public])]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
