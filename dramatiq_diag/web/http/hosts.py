"""Knows the host names of an app. A foreign name that points at this machine is refused (DNS rebinding)."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from ...settings import Settings
from ...settings.urls import ANY_HOST, is_address

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/]+)(?::[0-9]*)?")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class HostNames:
    """The host names of an app on any port. The names of the loopback address are always among them.

    Parameters:
      names: The other names; `*` stands for all.
      addresses: Whether all IP addresses are among them. The page of another site cannot have one as its host.
    """

    def __init__(self, names: Iterable[str], *, addresses: bool = False) -> None:
        self._names = {*_LOOPBACK, *(bracketed(name).lower() for name in names)}
        self._addresses = addresses

    def __contains__(self, header: object) -> bool:
        """Returns: True for a Host header with one of the names, otherwise False."""
        if ANY_HOST in self._names:
            return True
        match = _HOST.fullmatch(header) if isinstance(header, str) else None
        if match is None:
            return False
        return match[1].lower() in self._names or (self._addresses and is_address(match[1]))


def known_hosts(settings: Settings) -> HostNames:
    """Returns: The names of an app on an unknown server."""
    return HostNames(_configured(settings))


def hosts_of_server(settings: Settings, host: str) -> HostNames:
    """Returns: The names of an app on a server that is bound to *host*.

    A server that other machines reach does not know its own names. With a token it answers under any name, unless names
    are set: a page of another site does not have the token. Without a token it answers under IP addresses and the name
    of the machine.
    """
    if is_loopback(host):
        return HostNames([host, *_configured(settings)])
    if settings.api_token is not None and not settings.allowed_hosts:
        return HostNames([ANY_HOST])
    return HostNames([host, socket.gethostname(), *_configured(settings)], addresses=True)


def is_loopback(host: str) -> bool:
    """Returns: True if only this machine reaches a server bound to *host*, otherwise False."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bracketed(host: str) -> str:
    """Returns: The host in the syntax of a URL."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _configured(settings: Settings) -> list[str]:
    public = urlsplit(settings.public_url or "").hostname
    return [*settings.allowed_hosts, *([] if public is None else [public])]
