"""Builds the indexes of coming migrations in PostgreSQL while others write to the tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from sqlalchemy import Connection, Engine, inspect, text

_IS_VALID = text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
_IS_BEING_BUILT = text(
    "SELECT count(*) FROM pg_stat_progress_create_index "
    "WHERE datname = current_database() AND relid = to_regclass(:table)"
)
_PAUSE_S = 0.5

#: The limits of a statement and of its wait for a lock, as far as the server knows them.
_LIMITS = "FROM pg_settings WHERE name IN ('statement_timeout', 'lock_timeout', 'transaction_timeout')"
_LIFT = text(f"SELECT set_config(name, '0', false) {_LIMITS}")
_RESTORE = text(f"SELECT set_config(name, reset_val, false) {_LIMITS}")


class OnlineIndex(NamedTuple):
    """An index that may be there before the migration that adds it, which lists it in `ONLINE_INDEXES`."""

    name: str
    table: str
    columns: tuple[str, ...]
    condition: str | None = None
    "Which rows it has, in SQL; None for all."

    def creation(self, *, concurrently: bool = False) -> str:
        """Returns: The statement that creates it, in the SQL of both databases."""
        how = "CONCURRENTLY " if concurrently else ""
        where = "" if self.condition is None else f" WHERE {self.condition}"
        return f"CREATE INDEX {how}{self.name} ON {self.table} ({', '.join(self.columns)}){where}"


def make(connection: Connection, index: OnlineIndex) -> None:
    """Makes an index in the transaction of its migration, unless `build` has built it."""
    if connection.dialect.name != "postgresql" or not _is_built(connection, index):
        connection.exec_driver_sql(f"DROP INDEX IF EXISTS {index.name}")  # What an interrupted `build` has left.
        connection.exec_driver_sql(index.creation())


def build(engine: Engine, indexes: Iterable[OnlineIndex], on_step: Callable[[str], None]) -> None:
    """Builds indexes in PostgreSQL, of tables that have their columns, before the transaction of the migrations.

    In that transaction `CREATE INDEX` would keep everybody from writing until its end, for minutes with ten million
    runs. The caller lets only one process build at a time, by a transaction that has no snapshot: each of these
    statements waits for the end of all older snapshots.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for index in indexes:
            if not _has_columns(connection, index):
                continue
            _wait_for_others(connection, index, on_step)
            if _is_built(connection, index):
                continue
            on_step(f"Index {index.name}, while others go on writing; it waits for all older transactions")
            # A role may have limits. There is no transaction that could have its own for these statements.
            connection.execute(_LIFT)
            try:
                connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {index.name}")
                connection.exec_driver_sql(index.creation(concurrently=True))
            finally:
                if not connection.invalidated:  # A pooler gives it to others.
                    connection.execute(_RESTORE)


def _wait_for_others(connection: Connection, index: OnlineIndex, on_step: Callable[[str], None]) -> None:
    """Waits while the server builds an index of the table. It goes on with it when the process that asked is killed.

    Two such buildings of one table would wait for each other.
    """
    is_told = False
    while connection.execute(_IS_BEING_BUILT, {"table": index.table}).scalar():
        if not is_told:
            on_step(f"The server still builds an index of {index.table}, and the next one waits for that")
            is_told = True
        time.sleep(_PAUSE_S)


def _is_built(connection: Connection, index: OnlineIndex) -> bool:
    """Returns: Whether the index is there and complete; one whose building was interrupted is not."""
    return bool(connection.execute(_IS_VALID, {"name": index.name}).scalar())


def _has_columns(connection: Connection, index: OnlineIndex) -> bool:
    inspector = inspect(connection)
    if not inspector.has_table(index.table):
        return False
    return {*index.columns} <= {each["name"] for each in inspector.get_columns(index.table)}
