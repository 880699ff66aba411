"""Says what to do about an error, by its kind: its class, its error number, its SQLSTATE."""

from __future__ import annotations

import errno
import os
import shlex
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from ...errors import NotInstalledError, SchemaError, SettingsError
from ...settings import Settings
from ...store.database import sqlstate_of


@dataclass(frozen=True)
class Place:
    """What a check looks at, and the variable that says where it is."""

    path: Path | None
    "None for a server or a bucket."
    variable: str
    "The variable that is set; or else that of the data directory, which contains the place by default."
    top: Path | None
    "The outermost path that is this package's: the data directory if the place is in it."
    is_bucket: bool = False
    is_file: bool = False


def place_of(settings: Settings, field: str) -> Place:
    """Returns: The place that a setting says."""
    is_sqlite = settings.database.get_backend_name() == "sqlite"
    path = {
        "data_dir": settings.data_dir,
        "spool_dir": settings.spool,
        "cache_dir": settings.cache,
        "blob_url": settings.blob_dir,
        "database_url": Path(settings.database.database or "").absolute() if is_sqlite else None,
    }[field]
    is_set = getattr(settings, field) is not None
    top = settings.data_dir if path is not None and path.is_relative_to(settings.data_dir) else path
    return Place(
        path,
        Settings.variable(field if is_set else "data_dir"),
        top,
        is_bucket=field == "blob_url" and path is None,
        is_file=field == "database_url" and is_sqlite,
    )


def remedy_of(error: BaseException, place: Place) -> str:
    """Returns: What to do about an error at a place. The first of its causes that has a remedy decides."""
    if isinstance(error, NotInstalledError):
        return str(error)
    for cause in _causes(error):
        remedy = _known_remedy(cause, place)
        if remedy is not None:
            return remedy.format(place=place) if isinstance(remedy, str) else remedy(place)
    return _bucket_or_place(place)


def is_of_database(error: BaseException) -> bool:
    """Returns: Whether it comes from the database, and not from a directory or a bucket."""
    return any(isinstance(cause, SchemaError | DBAPIError | PoolTimeoutError) for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _bucket_or_place(place: Place) -> str:
    if place.is_bucket:
        return "Check the name of the bucket, and the variables of the cloud's tools; see docs/object-stores.md."
    if place.path is None:
        parts = "host, database, user, password"
        return f"Check {place.variable} ({parts}), and whether its server runs and lets this machine in."
    return f"Repair {place.path}, or set {place.variable} to another place."


def _access(place: Place) -> str:
    """Returns: What to do where this user may not read or write: it depends on whose it is, and on its mode."""
    path, top = place.path, place.top
    if path is None or top is None:
        return _bucket_or_place(place)
    part, status = _nearest(path)
    elsewhere = f"or set {place.variable} to another place"
    quoted, user = shlex.quote(str(part)), _name(os.geteuid())
    if not part.is_relative_to(top):
        if _is_missing(top) and not (place.is_file and path == top):
            made = f"install -d -o {user} -m 0700 {shlex.quote(str(top))}"
            return f"Make the directory as root, and give it to the worker's user: {made}"
        return f"Let the worker's user enter {part} and write to it, {elsewhere}."
    if status.st_uid != os.geteuid():
        chown = "chown -R" if stat.S_ISDIR(status.st_mode) else "chown"
        return (
            f"{part} belongs to {_name(status.st_uid)}. Run this as the worker's user if that is another one, or give "
            f"it to the worker's user: {chown} {user} {quoted}"
        )
    wanted = stat.S_IRWXU if stat.S_ISDIR(status.st_mode) else stat.S_IRUSR | stat.S_IWUSR
    if status.st_mode & wanted != wanted:
        return f"Give the rights on it back to its owner: chmod u+{'rwx' if wanted & stat.S_IXUSR else 'rw'} {quoted}"
    return f"Make {part} writable for the worker's user, {elsewhere}."


def _in_the_way(place: Place) -> str:
    """Returns: What to do where a part of the path is a file and no directory."""
    part = _nearest(place.path)[0] if place.path is not None else None
    return f"{part} is no directory: move it away, or set {place.variable} to a directory."


def _nearest(path: Path) -> tuple[Path, os.stat_result]:
    """Returns: The path, or the nearest of its parents that can be looked at, and its status."""
    for part in (path, *path.parents):
        try:
            return part, part.stat()
        except OSError:
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _name(user_id: int) -> str:
    import pwd  # Not on every platform; there the other commands import this module.

    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:
        return str(user_id)


_Remedy = str | Callable[[Place], str]

_FREE_SPACE = "Free some space on the disk of {place.path}; dramatiq-diag storage says what is stored."
_FAILING = "The disk of {place.path} fails or is out of reach: look at the system's log, and repair or mount it."
_DAMAGED = (
    "Restore {place.path} from a backup; or stop all workers and move it away, with the files -wal and -shm beside it: "
    "dramatiq-diag migrate then makes an empty one, and the runs that were stored are lost."
)
_BUSY = "Another process keeps {place.path} locked: end it, or wait until it is done."
_MEMORY = "Give this process more memory, or the machine."
_DESCRIPTORS = "Raise the limit of open files (ulimit -n), or end what has many files open."

#: Error number of the system -> the remedy.
_BY_ERRNO: dict[int, _Remedy] = {
    errno.EACCES: _access,
    errno.EPERM: _access,
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: "Free some space, or raise the quota of this user on the disk of {place.path}.",
    errno.ENOTDIR: _in_the_way,
    errno.EROFS: "Mount the disk of {place.path} for writing, or set {place.variable} to a place on another one.",
    errno.EIO: _FAILING,
    errno.ESTALE: _FAILING,
    errno.ENOTCONN: _FAILING,
    errno.ETIMEDOUT: _FAILING,
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOMEM: _MEMORY,
    errno.ELOOP: "{place.path} is a link that leads nowhere: repair the link, or set {place.variable} to a directory.",
    errno.ENAMETOOLONG: "Set {place.variable} to a shorter path.",
}

#: Primary result code of SQLite -> the remedy.
_BY_SQLITE_CODE: dict[int, _Remedy] = {
    sqlite3.SQLITE_PERM: _access,
    sqlite3.SQLITE_CANTOPEN: _access,
    sqlite3.SQLITE_READONLY: _access,
    sqlite3.SQLITE_FULL: _FREE_SPACE,
    sqlite3.SQLITE_IOERR: _FAILING,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_BUSY: _BUSY,
    sqlite3.SQLITE_LOCKED: _BUSY,
    sqlite3.SQLITE_NOMEM: _MEMORY,
}

#: SQLSTATE of PostgreSQL, or its class -> the remedy. A server that is out of reach or refuses to let in gives none.
_BY_SQLSTATE: dict[str, _Remedy] = {
    "42501": "Grant the role what it lacks: the finding `rights` has the statement, docs/production.md the list.",
    "28": "Correct the user or the password in {place.variable}, or let the user in by the server's pg_hba.conf.",
    "3D": "Make the database on the server, or correct its name in {place.variable}; then run: dramatiq-diag migrate",
    "3F": "Make the schema on the server, or correct the options in {place.variable}.",
    "53100": "Free some space on the disk of the database's server.",
    "53200": "Give the database's server more memory.",
    "53300": "Raise max_connections of the database's server, or end some of its connections.",
    "53": "The database's server lacks something: its log says what.",
    "55P03": "Another transaction keeps a table locked: pg_stat_activity shows which one.",
    "57014": "The server is slow, or another transaction keeps a table locked: pg_stat_activity shows which one.",
    "57P": "The database's server starts or stops: wait until it is up, or start it.",
    "58": "The disk of the database's server fails: look at the server's log.",
    "XX": "The database is damaged: look at the server's log, and restore it from a backup.",
}

#: Class of an error -> the remedy, where nothing below it is known. A subclass stands before its base.
_BY_CLASS: tuple[tuple[type[BaseException], _Remedy], ...] = (
    (SchemaError, "Run: dramatiq-diag migrate; if a newer version has migrated the database, update dramatiq_diag."),
    (SettingsError, "Correct {place.variable}; docs/settings.md has what is allowed."),
    (PoolTimeoutError, "The database's server answers too slowly: look at its log and at pg_stat_activity."),
)


#: Error numbers that are not of a place in a file system.
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _known_remedy(error: BaseException, place: Place) -> _Remedy | None:
    """Returns: The remedy of one error, whatever its causes; None for one that is not in the tables."""
    if isinstance(error, OSError) and error.errno is not None:
        return _BY_ERRNO.get(error.errno) if place.path is not None or error.errno in _OF_THE_PROCESS else None
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is not None:
            return _BY_SQLITE_CODE.get(code & 0xFF)
        state = sqlstate_of(error) or ""
        return next((_BY_SQLSTATE[state[:n]] for n in (5, 3, 2) if state[:n] in _BY_SQLSTATE), None)
    return next((remedy for kind, remedy in _BY_CLASS if isinstance(error, kind)), None)
