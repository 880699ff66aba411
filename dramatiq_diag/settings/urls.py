"""Where a store is, and its web part: what settings say of database, directory, URL and hosts, read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: What stands for every host.
ANY_HOST = "*"

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[?[0-9A-Fa-f:.]{2,45}\]?")

#: A URL as SQLAlchemy reads it, as far as it can be wrong: user and password may have any character but `@` in them.
_DATABASE_URL = (
    r"(?P<backend>\w+)(?P<driver>\+[\w+]+)?://"
    r"(?:[^@/]*(?::[^@]*)?@)?"
    r"(?:(?:\[[^/?]+\]|[^/:?]+)?(?::(?P<port>[^/?]*))?)?"
    r"(?:/(?P<database>[^?]*))?(?:\?.*)?"
)


def check_database_url(value: object) -> str:
    """Reads the URL of a database that is supported, and names its driver; SQLAlchemy is not imported for it.

    Raises:
      ValueError: When it is none.
    """
    match = re.fullmatch(_DATABASE_URL, value) if isinstance(value, str) else None
    if match is None or (match["port"] and not match["port"].isdecimal()):
        raise ValueError
    is_file = match["database"] not in (None, "", ":memory:") and "mode=memory" not in match.string
    if match["backend"] == "sqlite" and is_file:
        return match.string
    if match["backend"] == "postgresql":
        return match.string if match["driver"] else f"postgresql+psycopg{match.string.removeprefix('postgresql')}"
    raise ValueError


def read_database_url(value: str) -> URL:
    """Reads the URL of a database that is supported, with its driver named. Raises: ValueError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(check_database_url(value))
    except ArgumentError:
        raise ValueError from None


def shown_url(url: URL) -> str:
    """Returns: The URL of a database for people: without password and query, in which passwords may stand as well.

    libpq takes a whole connection string for the name of a database, so a name that looks like one is left out too.
    """
    from sqlalchemy.engine import URL

    database = url.database
    if url.get_backend_name() == "sqlite":
        return f"{url.drivername}:///{database}"
    if database is not None and re.search(r"[=@:\s]", database):
        database = "..."
    return URL.create(url.drivername, url.username, host=url.host, port=url.port, database=database).render_as_string()


def host_name(value: str) -> str:
    """Reads the name or the address of a host, without a port. Raises: ValueError."""
    if value != ANY_HOST and not _HOST_NAME.fullmatch(value):
        raise ValueError(f"{value!r:.100} is not the name of a host")
    return value


def http_url(value: str) -> str:
    """Reads the URL of a web part. Returns: It without a slash at its end. Raises: ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError
    if "@" in parts.netloc:  # It stands in every answer.
        raise ValueError("it may not have a user name or a password")
    return value.rstrip("/")


def local_path(value: str) -> Path:
    """Reads a directory, or a `file://` URL of one. Returns: Its absolute path. Raises: ValueError."""
    parts = urlsplit(value)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(unquote(parts.path))
    elif "://" not in value and "\0" not in value:
        path = Path(value)
    else:
        raise ValueError
    return path.expanduser().absolute()
