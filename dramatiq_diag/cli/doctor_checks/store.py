"""Checks the database, the rights of its role, and whether the blobs belong to it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ...errors import DiagnosticsError, NotInstalledError, StoreMismatchError
from ...settings import Settings
from ...settings.urls import shown_url
from ...store.database import is_read_only
from ...store.migration import check_schema
from ...store.rights import missing_rights
from ...store.store import Store
from ...store.worker_actors import worker_standing
from ...text import counted
from .check import FINDING, INFO, OK, Check, guarded
from .remedies import is_of_database, place_of, remedy_of


def check_store(settings: Settings) -> Iterator[Check]:
    """Checks that the database answers and has the right schema, that the blobs are its own, and who reported to it."""
    yield from guarded("database", _database, settings)


def _database(settings: Settings) -> Iterator[Check]:
    url = settings.database
    shown, place = shown_url(url), place_of(settings, "database_url")
    try:
        if place.path is not None and not _is_there(place.path):  # Connecting would make the file.
            if settings.migrates_itself:
                yield Check("database", OK, f"{shown} will be made when it is needed")
            else:
                yield Check("database", FINDING, f"{shown} does not exist", "Run: dramatiq-diag migrate")
            return
    except OSError as error:
        detail = f"{error.filename} cannot be read and written: {error.strerror or error}"
        yield Check("database", FINDING, detail, remedy_of(error, replace(place, path=Path(error.filename))))
        return
    try:
        with closing(Store(settings)) as store:
            yield from _rights(store)
            revision = check_schema(store.engine)
            if is_read_only(store.engine):
                remedy = "Ended runs wait in the spool until the database is writable."
                yield Check("database", FINDING, f"{shown} is read-only at the moment", remedy)
                return
            found = dict.fromkeys([*guarded("store id", _identity, store), *guarded("workers", _workers, store)])
            if all(check.name != "database" for check in found):
                yield Check("database", OK, f"{shown} is at revision {revision}")
            yield from found
    except NotInstalledError as error:
        yield Check("database", FINDING, f"{shown} cannot be reached without its driver", str(error))
    except (DiagnosticsError, OSError) as error:
        yield _of_database(error, settings)


def _of_database(error: Exception, settings: Settings) -> Check:
    return Check("database", FINDING, str(error), remedy_of(error, place_of(settings, "database_url")))


def _is_there(path: Path) -> bool:
    """Returns: Whether an SQLite file exists.

    Raises:
      OSError: When that cannot be told, or when this user may not read and write the file, the files that SQLite has
        beside it, or their directory.
    """
    try:
        path.stat()
    except FileNotFoundError:
        return False
    # It is not opened: closing it would drop the locks that this process may have on it.
    wanted = {path: os.R_OK | os.W_OK, path.parent: os.W_OK | os.X_OK}
    wanted |= {path.with_name(f"{path.name}{suffix}"): os.R_OK | os.W_OK for suffix in ("-wal", "-shm")}
    for each, mode in wanted.items():
        if each.exists() and not os.access(each, mode, effective_ids=os.access in os.supports_effective_ids):
            number = errno.EROFS if os.statvfs(each).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(number, os.strerror(number), str(each))
    return True


def _rights(store: Store) -> Iterator[Check]:
    """Names what the role of a PostgreSQL database may not do, and the statements that allow it."""
    if store.engine.dialect.name != "postgresql":
        return
    missing = missing_rights(store.engine)
    if not missing:
        return
    parts = [f"no USAGE on the schema {schema}" for schema in missing.schemas]
    parts += [f"no {', '.join(rights)} on {table}" for table, rights in missing.by_table.items()]
    remedy = f"As the owner of the tables: {' '.join(missing.statements)}"
    yield Check("rights", FINDING, f"the role of the database has {'; '.join(parts)}", remedy)


def _identity(store: Store) -> Iterator[Check]:
    settings = store.settings
    try:
        store.check_identity()
    except StoreMismatchError as error:
        yield Check("store id", FINDING, str(error).partition("\n")[0], _remedy_of_mismatch(settings))
    except DiagnosticsError as error:
        if is_of_database(error):
            yield _of_database(error, settings)
        else:
            yield Check("store id", FINDING, str(error), remedy_of(error, place_of(settings, "blob_url")))
    else:
        yield Check("store id", OK, "database and blobs belong to one store")


def _remedy_of_mismatch(settings: Settings) -> str:
    """Returns: What to do where database and blobs are of two stores; it names variables that are set."""
    variables = [Settings.variable(field) for field in ("database_url", "blob_url") if getattr(settings, field)]
    if variables:
        return f"Point {' and '.join(variables)} at one store."
    return (
        f"Restore the half that belongs to the other one from a backup of {settings.data_dir}, or set "
        f"{Settings.variable('data_dir')} to the directory of one store."
    )


def _workers(store: Store) -> Iterator[Check]:
    """Says which workers have reported to the database, whatever the environment here is."""
    try:
        with store.session() as session:
            count, last_seen_at = worker_standing(session)
    except DiagnosticsError as error:
        yield _of_database(error, store.settings)
        return
    if last_seen_at is None:
        yield Check("workers", INFO, "no worker with diagnostics has used this database lately")
        return
    # They report when they start and once an hour, so the time may be long ago.
    actors = counted(count, "actor")
    yield Check("workers", OK, f"workers reported {actors}, the last one at {last_seen_at:%Y-%m-%d %H:%M} UTC")
