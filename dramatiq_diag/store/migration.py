"""Compares the schema with the one that this version needs, and migrates it."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.exc import DBAPIError

from ..errors import SchemaError, StoreUnavailableError
from ..runtime.loggers import get_logger
from ..runtime.private_files import make_directory
from ..settings import Settings
from . import adoption, online_indexes, vacuum
from .adoption import VERSION_TABLE
from .database import make_engine, sqlstate_of, translated

if TYPE_CHECKING:
    from alembic.config import Config

#: Revisions of one generation have the same thousands. Each adds only tables, indexes and columns that a version which
#: does not know them leaves empty; a migration that does more begins the next thousand.
_GENERATION = 1000
_REVISION = re.compile("[0-9]{4}")

#: Lifts the limits of this transaction, as far as the server knows them.
_NO_LIMITS = text(
    "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN"
    " ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout')"
)
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('dramatiq_diag.migrate'))")

#: How long the transaction of a migration waits for a table in PostgreSQL, how often it begins anew, and after what.
_LOCK_TIMEOUT_MS = 2000
_MAX_TRIES = 30
_PAUSE_S = 0.5
#: Lock not available, and a deadlock, which PostgreSQL finds after a second.
_IN_USE = ("55P03", "40P01")

#: Alembic's loggers, which log each step and the import.
_ALEMBIC_LOGGERS = ("alembic.runtime.migration", "alembic.runtime.plugins")


def migrate(settings: Settings, on_step: Callable[[str], None] | None = None) -> str:
    """Migrates the schema to head. Several processes may call it at once.

    All steps are one transaction. In PostgreSQL the indexes that a migration lists as `ONLINE_INDEXES` are built before
    it, and the transaction begins anew when another one keeps a table from it, so that nobody waits behind it for long.

    Parameters:
      settings: The settings.
      on_step: Called with a description before each step.

    Returns:
      The revision that the database has now.

    Raises:
      SchemaError: When a newer version migrated it, or when other tables have the names of this package's.
      StoreUnavailableError: When the database cannot be reached, or when others use a table for too long.
    """
    told = on_step or (lambda _: None)
    with _alembic_alone(), _alembic_quiet():
        from alembic.util.exc import CommandError  # Slow to import, and needed only here.

        engine = make_engine(settings)
        try:
            _make_directory(settings)
            with translated():
                if engine.dialect.name == "postgresql":
                    _build_indexes(engine, told)
                steps = _migrate_when_free(engine, told)
            if settings.migrates_itself:
                vacuum.enable(engine)
        except CommandError as error:
            raise SchemaError(
                f"The database cannot be migrated ({error}); update dramatiq_diag, as a newer version has migrated it."
            ) from error
        finally:
            engine.dispose()
    if steps:
        get_logger(__name__).info("The database's schema was brought to revision %s.", head_revision())
    return head_revision()


def _build_indexes(engine: Engine, on_step: Callable[[str], None]) -> None:
    """Builds the indexes of the coming steps that can be built before them; none for a database without our tables."""
    from alembic.script import ScriptDirectory

    with _transaction(engine) as connection:
        _lock(connection)
        current = _revision(connection)
        script = ScriptDirectory.from_config(alembic_config())
        if current is None or script.get_revision(current) is None:
            return
        steps = reversed(list(script.iterate_revisions("head", current)))
        indexes = [index for step in steps for index in getattr(step.module, "ONLINE_INDEXES", ())]
        online_indexes.build(engine, indexes, on_step)


@contextmanager
def _transaction(engine: Engine) -> Iterator[Connection]:
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            # Under another level, which a role may have, the transaction keeps the snapshot of its first statement, and
            # the building of an index waits for its end.
            connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():
            yield connection


def _migrate_when_free(engine: Engine, on_step: Callable[[str], None]) -> int:
    """Returns: The number of steps."""
    for _ in range(_MAX_TRIES):
        try:
            with _transaction(engine) as connection:
                return _migrate(connection, on_step)
        except DBAPIError as error:
            if sqlstate_of(error) not in _IN_USE:
                raise
        on_step("Another transaction uses a table that is to change; nothing is changed yet, and it is tried again.")
        time.sleep(_PAUSE_S)
    raise StoreUnavailableError(
        f"Other transactions used a table that is to change, at each of {_MAX_TRIES} tries; nothing was changed. "
        "End what pg_stat_activity shows as old transactions, and migrate again."
    )


def _migrate(connection: Connection, on_step: Callable[[str], None]) -> int:
    """Returns: The number of steps."""
    from alembic import command
    from alembic.script import ScriptDirectory

    _lock(connection)
    if connection.dialect.name == "postgresql":
        # While this transaction waits for a table, all later transactions that ask for the table wait behind it.
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}")
    adoption.prepare_schema(connection)
    config = alembic_config()
    config.attributes["connection"] = connection
    current = _revision(connection)
    if current is None:
        current = adoption.adopt(connection, on_step)
        if current is not None:
            command.stamp(config, current)
    script = ScriptDirectory.from_config(config)
    if current is not None:
        script.get_revision(current)  # Raises CommandError for one that this version does not know.
    steps = list(script.iterate_revisions("head", current or "base"))
    for step in reversed(steps):
        on_step(f"Step {step.revision}: {step.doc}")
        command.upgrade(config, step.revision)
    return len(steps)


def _lock(connection: Connection) -> None:
    """Lets one process migrate at a time; the others wait, and then have nothing to do."""
    if connection.dialect.name == "postgresql":
        connection.execute(_NO_LIMITS)  # An index of a large table takes its time.
        # A process that waits in `pg_advisory_xact_lock` has a snapshot, for whose end a building of an index waits.
        while not connection.execute(_TRY_LOCK).scalar():
            time.sleep(_PAUSE_S)
    else:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _make_directory(settings: Settings) -> None:
    if settings.migrates_itself:
        try:
            make_directory(settings.data_dir)
        except OSError as error:
            raise StoreUnavailableError(f"The data directory {settings.data_dir} cannot be made: {error}") from error


@contextmanager
def _alembic_alone() -> Iterator[None]:
    """Lets one thread migrate at a time, as Alembic's context is global. A forked child does not inherit this lock."""
    import fcntl

    descriptor = os.open(_migrations_dir(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _alembic_quiet() -> Iterator[None]:
    """Keeps Alembic's lines about this thread's steps out of the log, without changing levels that others share."""
    thread_id = threading.get_ident()

    def is_for_others(record: logging.LogRecord) -> bool:
        return record.thread != thread_id or record.levelno >= logging.WARNING

    loggers = [logging.getLogger(name) for name in _ALEMBIC_LOGGERS]
    for logger in loggers:
        logger.addFilter(is_for_others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_for_others)


def check_schema(engine: Engine) -> str:
    """Compares the database's revision with the one that this version needs.

    A database that a newer version has migrated serves as well while old and new workers run side by side: within one
    generation migrations only add.

    Returns:
      The database's revision.

    Raises:
      SchemaError: When it is older, or of another generation; the message has both.
      StoreUnavailableError: When the database cannot be reached.
    """
    with translated(), engine.connect() as connection:
        current = _revision(connection)
    if current is None or not _serves(current):
        raise SchemaError(
            f"The database is at revision {current or 'none'} and this version needs {head_revision()}; "
            "run `dramatiq-diag migrate`, or update dramatiq_diag if the database is newer."
        )
    return current


@cache
def head_revision() -> str:
    """Returns: The revision that this version needs: the newest in `migrations/versions`."""
    return max(path.name[:4] for path in (_migrations_dir() / "versions").glob("[0-9]*.py"))


def _serves(revision: str) -> bool:
    """Returns: Whether this version can work with the schema of a revision."""
    if not _REVISION.fullmatch(revision):
        return False
    head = head_revision()
    return revision >= head and int(revision) // _GENERATION == int(head) // _GENERATION


def _revision(connection: Connection) -> str | None:
    """Returns: The revision of this package's tables, or None where there are none."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return revision


def alembic_config() -> Config:
    """Returns: Alembic's configuration with the migrations that came with this package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_migrations_dir()).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _migrations_dir() -> Path:
    package = Path(__file__).resolve().parents[1]
    shipped = package / "migrations"  # In the wheel; a checkout has them beside the package.
    return shipped if shipped.is_dir() else package.parent / "migrations"
