"""Where a store is: what settings say of its database and its directory, read."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError


def read_database_url(value: str) -> URL:
    """Reads the URL of a database that is supported, and names its driver. Raises: ValueError."""
    try:
        url = make_url(value)
        backend = url.get_backend_name()
    except ArgumentError:
        raise ValueError from None
    if backend == "sqlite" and url.database not in (None, "", ":memory:") and "mode=memory" not in value:
        return url
    if backend == "postgresql":
        return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url
    raise ValueError


def local_path(value: str) -> Path:
    """Reads a directory, or a `file://` URL of one. Returns: Its absolute path. Raises: ValueError."""
    parts = urlsplit(value)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        path = Path(url2pathname(parts.path))
    elif "://" not in value and "\0" not in value:
        path = Path(value)
    else:
        raise ValueError
    return path.expanduser().absolute()
