"""Finds the rights on the tables that the role of a PostgreSQL database lacks."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from .adoption import VERSION_TABLE
from .database import translated
from .models import Base, StoreState

_ALL = ("SELECT", "INSERT", "UPDATE", "DELETE")

#: Table -> the rights that workers, the web part and the commands need. `migrate` needs to own the tables.
NEEDED = dict.fromkeys(Base.metadata.tables, _ALL) | {
    StoreState.__tablename__: ("SELECT", "UPDATE"),  # Its one row comes with the table, and goes with it.
    VERSION_TABLE: ("SELECT",),
}

#: The tables that the role finds by their names, with their names as a statement has them.
_TABLES = text(
    "SELECT c.relname, quote_ident(n.nspname) || '.' || quote_ident(c.relname), quote_ident(current_user),"
    " has_table_privilege(c.oid, 'SELECT'), has_table_privilege(c.oid, 'INSERT'),"
    " has_table_privilege(c.oid, 'UPDATE'), has_table_privilege(c.oid, 'DELETE')"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relkind IN ('r', 'p') AND starts_with(c.relname, 'dramatiq_diag_') AND pg_table_is_visible(c.oid)"
)

#: The schemas of the search path with the version's table in them that the role may not use: it sees no table in them.
_CLOSED_SCHEMAS = text(
    "SELECT quote_ident(n.nspname), quote_ident(current_user)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relname = :table AND NOT has_schema_privilege(n.oid, 'USAGE') AND n.nspname IN ("
    " SELECT replace(btrim(part, ' \"'), '$user', current_user)"
    " FROM unnest(string_to_array(current_setting('search_path'), ',')) AS part)"
)


@dataclass(frozen=True)
class MissingRights:
    """What a role lacks."""

    by_table: dict[str, tuple[str, ...]]
    "Table -> the rights on it that are missing."
    schemas: list[str]
    "The schemas that it may not use."
    statements: list[str]
    "The statements that give it all of this, for the owner of the tables."

    def __bool__(self) -> bool:
        return bool(self.statements)


def missing_rights(engine: Engine) -> MissingRights:
    """Returns: What the role of a PostgreSQL database lacks of the rights on the tables that are there.

    Raises:
      StoreUnavailableError: When the database cannot be reached.
    """
    with translated(), engine.connect() as connection:
        tables = connection.execute(_TABLES).all()
        closed = connection.execute(_CLOSED_SCHEMAS, {"table": VERSION_TABLE}).all()
    statements = [f"GRANT USAGE ON SCHEMA {schema} TO {role};" for schema, role in closed]
    by_table: dict[str, tuple[str, ...]] = {}
    quoted_by_rights: dict[tuple[str, ...], list[str]] = {}
    for name, quoted, _, *has in sorted(tables):
        held = {right for right, is_held in zip(_ALL, has, strict=True) if is_held}
        missing = tuple(right for right in NEEDED.get(name, ()) if right not in held)
        if missing:
            by_table[name] = missing
            quoted_by_rights.setdefault(missing, []).append(quoted)
    statements += [
        f"GRANT {', '.join(rights)} ON {', '.join(names)} TO {tables[0][2]};"
        for rights, names in sorted(quoted_by_rights.items())
    ]
    return MissingRights(by_table, [schema for schema, _ in closed], statements)
