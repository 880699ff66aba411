"""Where a store is: what settings say of its database and its directory, read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

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
