"""Checks the database, and whether the blobs belong to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ...errors import DiagnosticsError, NotInstalledError, StoreMismatchError
from ...settings import Settings
from ...settings.urls import shown_url
from ...store.database import is_read_only
from ...store.migration import check_schema
from ...store.store import Store
from ...store.worker_actors import worker_standing
from .check import FINDING, INFO, OK, Check


def check_store(settings: Settings) -> Iterator[Check]:
    """Checks that the database answers and has the right schema, that the blobs are its own, and who reported to it."""
    url = settings.database
    shown = shown_url(url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():  # Connecting would make the file.
        if settings.migrates_itself:
            yield Check("database", OK, f"{shown} will be made when it is needed")
        else:
            yield Check("database", FINDING, f"{shown} does not exist", "Run: dramatiq-diag migrate")
        return
    try:
        with closing(Store(settings)) as store:
            revision = check_schema(store.engine)
            if is_read_only(store.engine):
                remedy = "Ended runs wait in the spool until the database is writable."
                yield Check("database", FINDING, f"{shown} is read-only at the moment", remedy)
                return
            checks = [
                Check("database", OK, f"{shown} is at revision {revision}"),
                _identity(store),
                _workers(store),
            ]
    except NotInstalledError as error:
        yield Check("database", FINDING, f"{shown} cannot be reached without its driver", str(error))
    except DiagnosticsError as error:
        yield Check("database", FINDING, str(error), f"Check {Settings.variable('database_url')}.")
    else:
        yield from checks


def _identity(store: Store) -> Check:
    try:
        store.check_identity()
    except StoreMismatchError as error:
        remedy = f"Point {Settings.variable('database_url')} and {Settings.variable('blob_url')} at one store."
        return Check("store id", FINDING, str(error).partition("\n")[0], remedy)
    except DiagnosticsError as error:
        return Check("store id", FINDING, str(error), f"Check {Settings.variable('blob_url')}.")
    return Check("store id", OK, "database and blobs belong to one store")


def _workers(store: Store) -> Check:
    """Says which workers have reported to the database, whatever the environment here is."""
    with store.session() as session:
        count, last_seen_at = worker_standing(session)
    if last_seen_at is None:
        return Check("workers", INFO, "no worker with diagnostics has used this database lately")
    # They report when they start and once an hour, so the time may be long ago.
    actors = "1 actor" if count == 1 else f"{count} actors"
    return Check("workers", OK, f"workers reported {actors}, the last one at {last_seen_at:%Y-%m-%d %H:%M} UTC")
