"""Removes everything that this package has stored, for good; what it has not made itself is left alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.engine import Engine

from ..documents.signing import KEY_FILE
from ..errors import DiagnosticsError, StoreMismatchError
from ..settings import Settings
from ..spool.directory import Spool
from ..store.adoption import VERSION_TABLE
from ..store.blobs import blob_store_of, cache_of
from ..store.database import make_engine, translated
from ..store.migration import check_schema
from ..store.models import Artifact, Base, StoreState, TaskRun
from .orphans import BATCH_SIZE, batched

#: SQLite makes the files with a suffix itself.
_SQLITE_SUFFIXES = ("", "-wal", "-shm", "-journal")


class WorkersRunError(DiagnosticsError):
    """A worker of this machine uses the spool; stop all workers first."""


@dataclass(kw_only=True)
class Holdings:
    """What there is to remove."""

    tables: list[str]
    "Of this package, in the database."
    runs: int = 0
    artifacts: int = 0
    has_blobs: bool = False
    spool_entries: int = 0
    paths: list[Path] = field(default_factory=list)
    "Files and directories that this package made, as far as they are there."

    def __bool__(self) -> bool:
        return bool(self.tables or self.has_blobs or self.spool_entries or self.paths)


class Removal:
    """Finds what is stored under these settings, and removes it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._blobs = blob_store_of(settings)
        self._cache = cache_of(settings)
        self._spool = Spool(settings)
        self._store_id: UUID | None = None
        "The id of the store, if the database has one."

    def look(self) -> Holdings:
        """Looks, and changes nothing.

        Raises:
          WorkersRunError: When a worker of this machine is running.
          StoreMismatchError: When blobs and database are not of one store.
          SchemaError: When the database is not at the revision of this version; then its tables are not known.
          StoreUnavailableError: When the database or a directory cannot be reached.
        """
        if self._spool.living_owners():
            raise WorkersRunError
        holdings = self._in_database()
        holdings.has_blobs = self._blobs.store_id() is not None or next(self._blobs.scan(), None) is not None
        holdings.spool_entries = len(self._spool.written_at())
        holdings.paths = [path for path in self._own_paths() if path.exists()]
        return holdings

    def run(self, on_batch: Callable[[int], None]) -> list[Path]:
        """Removes everything; after an error or an interrupt it can be run again.

        *on_batch* is called now and then with the number of blobs that were removed.

        Returns:
          Directories that stay, as they have files in them that this package has not made.
        """
        self.look()
        count = 0
        for batch in batched(self._blobs.scan(), BATCH_SIZE):
            self._blobs.delete_found(batch)
            count += len(batch)
            on_batch(count)
        self._blobs.remove_root()
        store_id = self._store_id
        for _ in self._spool.remove_abandoned(math.inf, None if store_id is None else lambda: store_id):
            pass
        self._drop_tables()
        for path in self._own_paths():
            if not path.is_dir():
                path.unlink(missing_ok=True)
        data_dir = self._settings.data_dir
        blob_dir, cache = self._settings.blob_dir, self._settings.cache
        directories = [self._settings.spool, blob_dir, self._cache.root, cache, data_dir]
        return [path for path in directories if path is not None and not _removed(path)]

    def _in_database(self) -> Holdings:
        holdings = Holdings(tables=[])
        if self._has_database():
            with _engine(self._settings) as engine, engine.connect() as connection:
                holdings.tables = _own_tables(connection)
                if holdings.tables:
                    check_schema(engine)
                    self._store_id = connection.execute(select(StoreState.store_id)).scalar_one()
                    holdings.runs = connection.execute(select(func.count(TaskRun.run_id))).scalar_one()
                    holdings.artifacts = connection.execute(select(func.count(Artifact.artifact_id))).scalar_one()
        self._check_identity(self._store_id)
        return holdings

    def _check_identity(self, expected: UUID | None) -> None:
        """Refuses blobs of another store than the database's: they may be those of an application that stays."""
        found = self._blobs.store_id()
        if found is None and next(self._blobs.scan(), None) is None:
            return  # They are gone, or there were never any.
        if found is None or found != expected:
            raise StoreMismatchError(
                f"The blobs in {self._blobs.root} belong to store {found or 'that is not known'}, the database is "
                f"{expected or 'empty'}. {StoreMismatchError()}"
            )

    def _has_database(self) -> bool:
        url = self._settings.database
        return url.get_backend_name() != "sqlite" or Path(url.database or "").exists()  # To connect would make it.

    def _drop_tables(self) -> None:
        if not self._has_database():
            return
        with _engine(self._settings) as engine, engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            if _own_tables(connection):
                Base.metadata.drop_all(connection)
                connection.exec_driver_sql(f"DROP TABLE IF EXISTS {VERSION_TABLE}")

    def _own_paths(self) -> Iterator[Path]:
        """Yields the files that this package makes in its data dir; not the database if others have tables in it."""
        yield self._settings.data_dir / KEY_FILE
        yield from self._settings.cache.glob("charts-*.js")
        yield from (self._cache.root / entry.name for entry in self._cache.entries())
        url = self._settings.database
        if self._settings.database_url is None and self._is_own_file(Path(url.database or "")):
            for suffix in _SQLITE_SUFFIXES:
                yield Path(f"{url.database}{suffix}")

    def _is_own_file(self, path: Path) -> bool:
        if not path.exists():
            return False
        with _engine(self._settings) as engine, engine.connect() as found:
            return {*inspect(found).get_table_names()} <= {*Base.metadata.tables, VERSION_TABLE}


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    engine = make_engine(settings)
    try:
        with translated():
            yield engine
    finally:
        engine.dispose()


def _own_tables(connection: Connection) -> list[str]:
    there = inspect(connection).get_table_names()
    return [name for name in Base.metadata.tables if name in there]


def _removed(path: Path) -> bool:
    """Removes a directory that is empty. Returns: Whether it is gone."""
    with suppress(OSError):
        path.rmdir()
    return not path.exists()
