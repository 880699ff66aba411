"""Makes the engine, and translates the errors of drivers."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from ..errors import (
    NotInstalledError,
    RunRefusedError,
    SchemaError,
    SettingsError,
    StoreError,
    StoreUnavailableError,
)
from ..runtime.loggers import get_logger
from ..runtime.private_files import make_file
from ..settings import Settings
from ..settings.urls import shown_url

#: The class of PostgreSQL's SQLSTATEs for errors like a row that is too large for an index.
_LIMITS_EXCEEDED = "54"

#: Seconds that a statement waits for another writer or a dead server before it gives up.
_TIMEOUT_S = 10

#: Seconds between two of many transactions at least. In the first 0.1 s a waiting SQLite writer tries again every 25 ms
#: or sooner, so it has its turn after the first transaction that it meets.
WRITERS_TURN_S = 0.03

#: What psycopg is told of a server that is out of reach: seconds that connecting may take, milliseconds that the server
#: may leave data unacknowledged, and when a connection that only waits is probed. By itself Linux gives up after 15
#: minutes or two hours, and the time-out of a statement is the server's, which may be gone.
_OUT_OF_REACH = {
    "connect_timeout": _TIMEOUT_S,
    "tcp_user_timeout": 1000 * _TIMEOUT_S,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}

#: Milliseconds that a statement may take in PostgreSQL; a migration may take longer.
_STATEMENT_TIMEOUT_MS = 30_000

#: SQLite has no code for a missing table or column, only a message.
_MISSING_IN_SQLITE = re.compile("no such (table|column)|has no column named")


def make_engine(settings: Settings) -> Engine:
    """Makes the engine; connects to nothing yet.

    Raises:
      NotInstalledError: When the driver of the database is missing.
      SettingsError: When a parameter of the URL is wrong.
    """
    url = settings.database
    if url.get_backend_name() == "sqlite":
        engine = _create_engine(url, connect_args=_unless_in(url, {"timeout": _TIMEOUT_S}))
        event.listen(engine, "do_connect", _make_sqlite_file)
        event.listen(engine, "connect", _configure_sqlite)
        if url.database:
            _follow_file(engine, os.path.abspath(url.database))
        return engine
    # At most one connection stays open while nothing needs it.
    engine = _create_engine(url, pool_pre_ping=True, pool_size=1, max_overflow=14, connect_args=_connect_args(url))
    if "statement_timeout" not in str(url.query.get("options", "")):
        event.listen(engine, "begin", _limit_statements)
    return engine


def _create_engine(url: URL, **arguments: Any) -> Engine:
    try:
        return create_engine(url, **arguments)
    except ImportError as error:
        raise NotInstalledError(
            f"The database's driver is not installed ({error}): pip install 'dramatiq_diag[postgres]'"
        ) from error
    except (ArgumentError, ValueError, TypeError) as error:  # It reads some parameters, and names no secret one.
        raise SettingsError(f"{Settings.variable('database_url')}: {shown_url(url)} is not allowed: {error}") from error


def dialect_of(session: Session) -> str:
    """Returns: The database of a session, as SQLAlchemy names it: `sqlite` or `postgresql`."""
    return session.get_bind().dialect.name


def upserting_insert(dialect: str, table: Any) -> Any:
    """Returns: An `insert` that has `on_conflict_do_update`; SQLite and PostgreSQL spell it alike."""
    return {"postgresql": postgresql.insert, "sqlite": sqlite.insert}[dialect](table)


def _connect_args(url: URL) -> dict[str, Any]:
    """Returns: Arguments for a driver of PostgreSQL."""
    if url.drivername != "postgresql+psycopg":
        return {}
    # A prepared statement belongs to one connection of the server, and a pooler gives each transaction another one.
    return {"prepare_threshold": None, **_unless_in(url, _OUT_OF_REACH)}


def _unless_in(url: URL, arguments: dict[str, int]) -> dict[str, int]:
    """Returns: The driver's arguments that the URL does not have."""
    return {name: value for name, value in arguments.items() if name not in url.query}


def _limit_statements(connection: Connection) -> None:
    # Not as an option of the connection, which PgBouncer refuses, and not for longer than the transaction, as a pooler
    # gives the connection to others.
    connection.exec_driver_sql(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")


def _make_sqlite_file(_dialect: Any, _record: Any, arguments: Any, _options: Any) -> None:
    """Makes the file with mode 0600. SQLite would let others read it; its journal gets the mode of the file."""
    path = Path(arguments[0])
    if "file:" in arguments[0]:
        return
    try:
        is_there = path.exists()
    except OSError as error:  # A directory that this user may not enter. SQLite would not say why.
        raise sqlite3.OperationalError(f"unable to open database file: {error}") from error
    if not is_there:
        with suppress(OSError):  # SQLite says next why it cannot be made.
            make_file(path)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    # `auto_vacuum` comes first, as it is fixed once the file has anything in it. FULL costs one sync a transaction, and
    # transactions are batches: what was reported stored survives a power cut.
    for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _follow_file(engine: Engine, path: str) -> None:
    """Replaces a connection whose SQLite file was removed or replaced. Where nobody can tell, the connection stays.

    After an `rm -rf` of the data directory SQLite would write into the deleted file for ever, without an error.
    """

    def warn() -> None:
        get_logger(__name__).warning(
            "The database file %s was removed or replaced while it was in use: what this process had stored in the "
            "old one is gone from here. It goes on with a new connection.",
            path,
        )

    last: list[tuple[int, int] | None] = [None]

    def file_id() -> tuple[int, int] | None:
        with suppress(OSError):  # As while a task has another user id: it is still the file from before.
            last[0] = _file_id(path)
        return last[0]

    replace_when_changed(engine, "file", file_id, warn)


def replace_when_changed(
    engine: Engine, name: str, current: Callable[[], object], on_change: Callable[[], None] | None = None
) -> None:
    """Replaces a connection before its next use if *current* returns another value than when it was made.

    `Engine.dispose` is not enough: a connection that another thread uses meanwhile goes back into the old pool, and
    stays open in it.
    """

    def remember(_: Any, record: Any) -> None:
        record.info[name] = current()

    def compare(_: Any, record: Any, __: Any) -> None:
        if record.info[name] != current():
            if on_change is not None:
                on_change()
            raise DisconnectionError(f"The {name} of the connection has changed.")

    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", compare)


def _file_id(path: str) -> tuple[int, int] | None:
    """Returns: The device and the inode of a file; None if it does not exist. Raises: OSError."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


@contextmanager
def translated() -> Iterator[None]:
    """Translates driver errors into errors of this package.

    Only an error that the written data cause becomes a `RunRefusedError`. A server that is read-only, full, shutting
    down or damaged answers with errors of any class, and takes the same data later.
    """
    try:
        yield
    except DBAPIError as error:
        raise _translation(error) from error
    except StatementError as error:  # A value that the driver cannot pass.
        raise RunRefusedError(f"The database refused: {_first_line(error)}") from error
    except PoolTimeoutError as error:
        raise StoreUnavailableError(f"The database cannot be used: {_first_line(error)}") from error
    except SQLAlchemyError as error:
        raise StoreError(f"The database could not be asked: {_first_line(error)}") from error


def _translation(error: DBAPIError) -> StoreError:
    state = sqlstate_of(error) or ""
    if isinstance(error, (DataError, IntegrityError)) or state.startswith(_LIMITS_EXCEEDED):
        return RunRefusedError(f"The database refused: {_first_line(error)}")
    if _is_schema_error(error):
        return SchemaError(f"{SchemaError()} ({_first_line(error)})")
    return StoreUnavailableError(f"The database cannot be used: {_first_line(error)}")


def sqlstate_of(error: DBAPIError) -> str | None:
    """Returns: The five characters that PostgreSQL gives an error; each driver has them in another place."""
    cause: Any = error.orig
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    if state is None and cause is not None and cause.args and isinstance(cause.args[0], dict):
        state = cause.args[0].get("C")
    return state


def _is_schema_error(error: DBAPIError) -> bool:
    """Returns: Whether the error says that a table or a column is missing."""
    cause = error.orig
    if sqlstate_of(error) in ("42P01", "42703"):
        return True
    return isinstance(cause, sqlite3.Error) and bool(_MISSING_IN_SQLITE.search(str(cause)))


def _first_line(error: Exception) -> str:
    cause = getattr(error, "orig", None) or error
    return f"{cause}".strip().split("\n")[0] or type(cause).__name__


def is_read_only(engine: Engine) -> bool:
    """Returns: True when a PostgreSQL server refuses to write, as during a failover; False otherwise, and for SQLite.

    Raises:
      StoreUnavailableError: When the database cannot be reached.
    """
    if engine.dialect.name != "postgresql":
        return False
    with translated(), engine.connect() as connection:
        state: str = connection.execute(text("SELECT current_setting('transaction_read_only')")).scalar_one()
        return state == "on"
