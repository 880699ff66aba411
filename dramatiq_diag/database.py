"""The engine, the schema's version, and the translation of driver errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dramatiq.logging import get_logger
from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    ProgrammingError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .errors import NotInstalledError, RunRefusedError, SchemaError, StoreError, StoreUnavailableError
from .settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

#: The revision that this version needs: the newest in `migrations/versions`.
HEAD_REVISION = "0004"

#: SQLSTATEs of PostgreSQL: the class of errors like a row that is too large for an index, and that of a missing grant.
_LIMITS_EXCEEDED = "54"
_INSUFFICIENT_PRIVILEGE = "42501"

#: Seconds that a statement waits for another writer or a dead server before it gives up.
_TIMEOUT_S = 10


def make_engine(settings: Settings) -> Engine:
    """Makes the engine; connects to nothing yet.

    Raises:
      NotInstalledError: When the driver of the database is missing.
    """
    url = settings.database
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": _TIMEOUT_S})
        event.listen(engine, "connect", _configure_sqlite)
        if url.database:
            _follow_file(engine, os.path.abspath(url.database))
        return engine
    try:
        connect_args: dict[str, Any] = {}
        if url.drivername == "postgresql+psycopg":
            connect_args = {"connect_timeout": _TIMEOUT_S, "options": f"-c statement_timeout={_TIMEOUT_S * 3000}"}
        return create_engine(url, pool_pre_ping=True, connect_args=connect_args)
    except ImportError as error:
        raise NotInstalledError(
            f"The database's driver is not installed ({error}): pip install 'dramatiq_diag[postgres]'"
        ) from error


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # FULL costs one sync a transaction, and transactions are batches: what was reported stored survives a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _follow_file(engine: Engine, path: str) -> None:
    """Makes a new connection where the SQLite file is not the one that a connection was made to.

    After an `rm -rf` of the data directory SQLite would write into the deleted file for ever, without an error.
    """

    def remember(_: Any, record: Any) -> None:
        record.info["file"] = _file_id(path)

    def compare(_: Any, record: Any, __: Any) -> None:
        if record.info["file"] != _file_id(path):
            get_logger(__name__).warning(
                "The database file %s was removed or replaced while it was in use: what this process had stored in the "
                "old one is gone from here. It goes on with a new connection.",
                path,
            )
            raise DisconnectionError(f"{path} was removed or replaced.")

    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", compare)


def _file_id(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


@contextmanager
def translated() -> Iterator[None]:
    """Turns driver errors into this package's, once, at the store's edge.

    Only what the written data cause becomes a `RunRefusedError`. A server that is read-only, full, shutting down or
    damaged says so in errors of any class, and takes the same data later.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translation(error) from error
    except StatementError as error:  # A value that cannot be made a parameter.
        raise RunRefusedError(f"The database refused: {_first_line(error)}") from error
    except PoolTimeoutError as error:
        raise StoreUnavailableError(f"The database cannot be used: {_first_line(error)}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"The database could not be asked: {_first_line(error)}") from error


def _translation(error: DBAPIError) -> StoreError:
    state = getattr(error.orig, "sqlstate", None) or ""
    if isinstance(error, (DataError, IntegrityError)) or state.startswith(_LIMITS_EXCEEDED):
        return RunRefusedError(f"The database refused: {_first_line(error)}")
    lacks_schema = isinstance(error, ProgrammingError) and state != _INSUFFICIENT_PRIVILEGE
    if lacks_schema or any(text in str(error.args[:1]) for text in ("no such table", "no such column")):
        return SchemaError(f"{SchemaError()} ({_first_line(error)})")
    return StoreUnavailableError(f"The database cannot be used: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{cause}".strip().split("\n")[0] or type(cause).__name__


def migrate(settings: Settings) -> str:
    """Brings the schema to head; safe to call from several processes at once.

    Returns:
      The revision that the database has now.

    Raises:
      SchemaError: When a newer version migrated it.
      StoreUnavailableError: When the database cannot be reached.
    """
    from alembic import command  # Takes its time, and is only needed here.
    from alembic.util.exc import CommandError

    engine = make_engine(settings)
    try:
        _make_directory(settings)
        with translated(), _alembic_alone(), engine.begin() as connection:
            # One migrates, the others wait, and then find nothing left to do.
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('dramatiq_diag.migrate'))")
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            config = alembic_config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        return HEAD_REVISION
    except CommandError as error:
        raise SchemaError(
            f"The database cannot be migrated ({error}); update dramatiq_diag, as a newer version has migrated it."
        ) from error
    finally:
        engine.dispose()


def _make_directory(settings: Settings) -> None:
    if settings.migrates_itself:
        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailableError(f"The data directory {settings.data_dir} cannot be made: {error}") from error


@contextmanager
def _alembic_alone() -> Iterator[None]:
    """Alembic's context is global, so two threads must not migrate at once; this lock is no one's across a fork."""
    import fcntl

    descriptor = os.open(_migrations_dir(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def check_schema(engine: Engine) -> None:
    """Compares the database's revision with the one that this version needs.

    Raises:
      SchemaError: When they differ; the message has both.
      StoreUnavailableError: When the database cannot be reached.
    """
    with translated(), engine.connect() as connection:
        current = None
        if inspect(connection).has_table("alembic_version"):
            current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if current != HEAD_REVISION:
        raise SchemaError(
            f"The database is at revision {current or 'none'} and this version needs {HEAD_REVISION}; "
            "run `dramatiq-diag migrate`, or update dramatiq_diag if the database is newer."
        )


def alembic_config() -> Config:
    """Returns: Alembic's configuration with the migrations that came with this package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrations_dir() -> Path:
    package = Path(__file__).resolve().parent
    shipped = package / "migrations"  # In the wheel; a checkout has them beside the package.
    return shipped if shipped.is_dir() else package.parent / "migrations"
