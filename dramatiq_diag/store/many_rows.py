"""Inserts many rows by one short statement: PostgreSQL takes each column as an array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Column, Connection, Float, Integer, String, Table, Text, bindparam, cast, func, select
from sqlalchemy.dialects import postgresql

from .columns import CleanText
from .database import upserting_insert

#: The driver refuses an array of an enum's members and texts, or of integers and floating-point numbers.
_KINDS: dict[type, type] = {String: str, Integer: int, Float: float}


class ManyRows:
    """An insert of many rows into a table.

    A statement with the values of a hundred runs has thousands of parameters. To read it takes the driver and the
    server longer than to write the rows. In arrays it has one parameter for each column, and is always the same. SQLite
    has no arrays, and reads a statement for one row once.

    Parameters:
      table: The table.
      finish: Adds to an `insert` what is done on a conflict, and what is returned.
    """

    def __init__(self, table: Table, finish: Callable[[Any], Any]) -> None:
        self._table = table
        self._finish = finish
        self._built: tuple[tuple[str, ...], Any] = (), None
        "The columns of the last rows, and their statement: to build it takes long."

    def execute(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Inserts rows that have the same columns. Returns: What the statement returns."""
        names = tuple(rows[0])
        built_for, statement = self._built
        if built_for != names:
            statement = self._finish(self._unfinished(connection.dialect.name, names))
            self._built = names, statement
        if connection.dialect.name != "postgresql":
            return connection.execute(statement, rows)
        # One statement cannot update a row twice, as a spool entry may ask for. As with row by row, the last one wins.
        last = {tuple(row[column.name] for column in self._table.primary_key): row for row in rows}
        arrays = [_array(self._table.c[name], [row[name] for row in last.values()]) for name in names]
        return connection.execute(statement, {_parameter(at): array for at, array in enumerate(arrays)})

    def _unfinished(self, dialect: str, names: Sequence[str]) -> Any:
        insert = upserting_insert(dialect, self._table)
        if dialect != "postgresql":
            return insert
        columns = [self._table.c[name] for name in names]
        types = [postgresql.ARRAY(_type_of(column), dimensions=1) for column in columns]
        arrays = [cast(bindparam(_parameter(at), type_=of), of) for at, of in enumerate(types)]
        values = func.unnest(*arrays).table_valued(*(f"c{at}" for at in range(len(names)))).render_derived(name="v")
        return insert.from_select(list(names), select(*values.c))


def _parameter(at: int) -> str:
    return f"p{at}"


def _type_of(column: Column[Any]) -> Any:
    """Returns: The type of the items of a column's array. Of texts it has no length, as a cast to one would cut them.

    An array has one dimension: a list in a column of JSON is an item, and no further dimension.
    """
    if isinstance(column.type, CleanText):
        return CleanText(column.type.cut)
    return Text() if isinstance(column.type, String) else column.type


def _kind(column: Column[Any]) -> type:
    """Returns: The type of the values, as far as they need be alike; `object` for any other."""
    kind = getattr(column.type, "impl_instance", column.type)
    return next((made for of, made in _KINDS.items() if isinstance(kind, of)), object)


def _array(column: Column[Any], values: Sequence[Any]) -> list[Any]:
    kind = _kind(column)
    return [value if value is None or kind is object else kind(value) for value in values]
