"""The engine, the schema's version, and the translation of driver errors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .errors import NotInstalledError, SchemaError, StoreError, StoreUnavailableError
from .private import make_directory, make_file
from .settings import Settings

if TYPE_CHECKING:
    from alembic.config import Config

#: The revision that this version needs: the newest in `migrations/versions`.
HEAD_REVISION = "0004"

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
        event.listen(engine, "do_connect", _make_sqlite_file)
        event.listen(engine, "connect", _configure_sqlite)
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


def _make_sqlite_file(_dialect: Any, _record: Any, arguments: Any, _options: Any) -> None:
    """Makes the file before SQLite does, which would let others read it; its journal gets the same mode."""
    path = Path(arguments[0])
    if "file:" not in arguments[0] and not path.exists():
        with suppress(OSError):  # SQLite says next why it cannot be made.
            make_file(path)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # FULL costs one sync a transaction, and transactions are batches: what was reported stored survives a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


@contextmanager
def translated() -> Iterator[None]:
    """Turns driver errors into this package's, once, at the store's edge."""
    try:
        yield
    except ProgrammingError as error:
        raise SchemaError(f"{SchemaError()} ({_first_line(error)})") from error
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        if "no such table" in str(error.args[:1]) or "no such column" in str(error.args[:1]):
            raise SchemaError(f"{SchemaError()} ({_first_line(error)})") from error
        raise StoreUnavailableError(f"The database cannot be used: {_first_line(error)}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"The database refused: {_first_line(error)}") from error


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
            make_directory(settings.data_dir)
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
