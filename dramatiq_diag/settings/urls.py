"""Reads the settings of places: the database, the directory of the blobs, the URL and the hosts of the web part."""

from __future__ import annotations

import re
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from .readers import directory, names, text

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: Stands for every host.
ANY_HOST = "*"

#: The characters that stand in the path of a URL as they are, besides letters, digits and `-._~`.
_PATH_CHARACTERS = "/%:@!$&'()*+,;="

#: Stands for the id of a trace in the URL of traces.
TRACE_ID_PLACEHOLDER = "{trace_id}"

_HOST_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")

#: The URL of a bucket: scheme, name, and a prefix without `.` and `..` as parts.
_BUCKET_URL = re.compile(
    r"(?:s3|gs|az)://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9!_.*'()=-]{1,100}){0,10}/?"
)

#: Database -> its drivers that SQLAlchemy has, but for those that only asyncio can use; the first is the default.
_DRIVERS = {"sqlite": ("pysqlite",), "postgresql": ("psycopg", "psycopg2", "pg8000")}

#: The parts of a URL, as SQLAlchemy reads it, that can be wrong. User and password may have any character but `@`.
_DATABASE_URL = (
    r"(?P<backend>\w+)(?:\+(?P<driver>[\w+]+))?://"
    r"(?:[^@/]*(?::[^@]*)?@)?"
    r"(?:(?:\[[^/?]+\]|[^/:?]+)?(?::(?P<port>[^/?]*))?)?"
    r"(?:/(?P<database>[^?]*))?(?:\?.*)?"
)


def check_database_url(value: object) -> str:
    """Reads the URL of a database without SQLAlchemy. Returns: The URL with its driver. Raises: ValueError."""
    match = re.fullmatch(_DATABASE_URL, value) if isinstance(value, str) else None
    if match is None or (match["port"] and not match["port"].isdecimal()):
        raise ValueError
    backend = match["backend"]
    drivers = _DRIVERS.get(backend)
    if drivers is None:
        raise ValueError
    if match["driver"] not in (None, *drivers):
        raise ValueError(f"the driver of {backend} must be one of {', '.join(drivers)}, or left out")
    if backend == "sqlite" and (match["database"] in (None, "", ":memory:") or "mode=memory" in match.string):
        raise ValueError
    if backend == "sqlite" or match["driver"]:
        return match.string
    return f"{backend}+{drivers[0]}{match.string.removeprefix(backend)}"


def read_database_url(value: str) -> URL:
    """Reads the URL of a supported database. Raises: ValueError."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(check_database_url(value))
    except ArgumentError:
        raise ValueError from None


def shown_url(url: URL) -> str:
    """Returns: The URL of a database for people: without the password, and the query, which may contain one too.

    libpq accepts a whole connection string as the name of a database, so a name that looks like one is left out.
    """
    from sqlalchemy.engine import URL

    database = url.database
    if url.get_backend_name() == "sqlite":
        return f"{url.drivername}:///{database}"
    if database is not None and re.search(r"[=@:\s]", database):
        database = "..."
    return URL.create(url.drivername, url.username, host=url.host, port=url.port, database=database).render_as_string()


def host_names(value: Any) -> tuple[str, ...]:
    """Reads names or addresses of hosts, without ports. Raises: ValueError."""
    found = names(value)
    for name in found:
        if name != ANY_HOST and not _HOST_NAME.fullmatch(name) and not is_address(name):
            raise ValueError(f"{name!r:.100} is not the name of a host")
    return found


def is_address(name: str) -> bool:
    """Returns: Whether it is an IP address, one of version 6 with or without brackets."""
    is_bracketed = name.startswith("[") and name.endswith("]")
    try:
        return ip_address(name[1:-1] if is_bracketed else name).version == 6 or not is_bracketed
    except ValueError:
        return False


def http_url(value: Any) -> str:
    """Reads the URL of a web part. Returns: The URL without a slash at its end. Raises: ValueError."""
    url = text(value)
    parts = _split_web_url(url)
    if "?" in url or "#" in url:
        raise ValueError
    if not parts.netloc.isascii():
        raise ValueError("write the host as it is in DNS: xn--…")
    # Headers such as that of a redirect have no other characters. What is quoted already stays as it is.
    return urlunsplit(parts._replace(path=quote(parts.path, safe=_PATH_CHARACTERS))).rstrip("/")


def _split_web_url(url: str) -> SplitResult:
    """Returns: The parts of a URL of HTTP. Raises: ValueError."""
    # `urlsplit` drops line ends and tabs wherever they stand, and the answers would contain them.
    if not url.isprintable() or " " in url:
        raise ValueError("it may have no spaces, line ends or other characters that do not print")
    parts = urlsplit(url)
    if "@" in parts.netloc:  # Every answer contains it.
        raise ValueError("it may not have a user name or a password")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # A wrong port raises here.
        raise ValueError
    return parts


def trace_url(value: Any) -> str:
    """Reads the URL of a trace, with a placeholder for its id. Raises: ValueError."""
    url = text(value)
    parts = _split_web_url(url)
    if TRACE_ID_PLACEHOLDER not in parts.path + parts.query + parts.fragment or "{" in parts.netloc:
        raise ValueError(f"{TRACE_ID_PLACEHOLDER} is missing behind the host")
    return url


def blob_url(value: Any) -> str:
    """Reads a directory, a `file://` URL of one, or the URL of a bucket, as it was written. Raises: ValueError."""
    if is_bucket(text(value)):
        if not _BUCKET_URL.fullmatch(value):
            raise ValueError(
                "a bucket has a name of 3 to 63 lower-case letters, digits, dots, dashes and underscores; "
                "keys, ports and regions are told by the variables of the cloud's tools"
            )
        if find_spec("obstore") is None:
            raise ValueError("a bucket needs obstore: pip install 'dramatiq_diag[object-store]'")
        return text(value).rstrip("/")
    local_path(text(value))
    return text(value)


def is_bucket(value: str) -> bool:
    """Returns: Whether it is the URL of a bucket, and not a directory."""
    return value.startswith(("s3://", "gs://", "az://"))


def local_path(value: str) -> Path:
    """Reads a directory, or a `file://` URL of one. Returns: The absolute path. Raises: ValueError."""
    parts = urlsplit(value)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return directory(unquote(parts.path))
    if "://" in value:
        raise ValueError
    return directory(value)
