"""Prepares a database for its first migration: adopts the tables of an early version, refuses tables of others."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, inspect, text

from ..errors import SchemaError

#: What the names of this package's tables begin with.
PREFIX = "dramatiq_diag_"

#: Alembic's own table is `alembic_version`, which an application may have in the same database.
VERSION_TABLE = f"{PREFIX}version"

#: The tables of the early version, which had no prefix: revision -> table -> the columns that came with it.
_EARLY: dict[str, dict[str, str]] = {
    "0001": {
        "task_runs": "run_id task_key task_id actor_name queue_name status started_at finished_at duration_ms "
        "peak_rss_bytes hostname pid exception_type exception_message overlapped_task_ids",
        "artifacts": "artifact_id run_id name status reason filename media_type stored_as blob_name size_bytes sha256 "
        "published_at expires_at",
        "store_state": "id store_id last_cleanup_at",
    },
    "0002": {"task_runs": "exception_traceback pinned_at"},
    "0003": {
        "task_runs": "parent_run_id capture_id",
        "captures": "capture_id actor_name diagnostics run_limit created_at expires_at ended_at wanted_at",
        "capture_permits": "capture_id number holder held_until run_id",
    },
    "0004": {"worker_actors": "actor_name queue_name last_seen_at"},
}

#: Indexes and constraints of the early version that are not named by the same rule now.
_RENAMED = {
    "ix_task_runs_actor_name_started_at_run_id_status_peak_rss_bytes": f"ix_{PREFIX}task_runs_actor_summary",
    "fk_artifacts_run_id_task_runs": f"fk_{PREFIX}artifacts_run_id",
    "fk_capture_permits_capture_id_captures": f"fk_{PREFIX}capture_permits_capture_id",
}


def prepare_schema(connection: Connection) -> None:
    """Makes the first schema of the connection's `search_path`, where no schema of the path exists."""
    if connection.dialect.name != "postgresql":
        return
    if connection.execute(text("SELECT current_schema()")).scalar() is not None:
        return
    path = connection.execute(text("SELECT current_setting('search_path')")).scalar_one()
    names = [name.strip().strip('"') for name in path.split(",")]
    name = next((name for name in names if name not in ("", "$user")), None)
    if name is None:
        raise SchemaError(f"The search_path {path!r} names no schema to make the tables in; nothing was changed.")
    quote = connection.dialect.identifier_preparer.quote_identifier
    connection.exec_driver_sql(f"CREATE SCHEMA {quote(name)}")


def adopt(connection: Connection, on_step: Callable[[str], None]) -> str | None:
    """Renames the tables of the early version to the names of this version, if they are there.

    They are recognised by their revision in `alembic_version` together with exactly its tables and columns, so that
    no table of an application is taken for ours.

    Returns:
      The revision that they are at, or None where there are none.

    Raises:
      SchemaError: When something else has the names that this package's tables are to have.
    """
    tables = _tables(connection)
    taken = sorted(name for name in tables if name.startswith(PREFIX) and name != VERSION_TABLE)
    if taken:
        raise SchemaError(
            f"Other tables have the names of this package's, which no version of it made: {', '.join(taken)}; nothing "
            "was changed. Rename or drop them, or have this package's tables in another database, or in PostgreSQL in "
            "a schema of their own: DRAMATIQ_DIAG_DATABASE_URL=…?options=-csearch_path%3Ddiag."
        )
    revision = _early_revision(connection, tables)
    if revision is None:
        return None
    on_step("The tables of an early version get the names of this one")
    ours = {name for step, columns in _EARLY.items() if step <= revision for name in columns}
    for name in sorted(ours):
        _rename(connection, name)
    if tables == ours | {"alembic_version"}:  # No other table is there that it could belong to.
        connection.exec_driver_sql("DROP TABLE alembic_version")
    return revision


def _tables(connection: Connection) -> set[str]:
    """Returns: The tables and views of the schema that tables are made in."""
    inspector = inspect(connection)
    schema = None
    if connection.dialect.name == "postgresql":
        schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    return {*inspector.get_table_names(schema), *inspector.get_view_names(schema)}


def _early_revision(connection: Connection, tables: set[str]) -> str | None:
    """Returns: The revision of the early version's tables, or None where they are not there."""
    if "alembic_version" not in tables:
        return None
    revisions = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if len(revisions) != 1 or revisions[0] not in _EARLY:
        return None
    columns: dict[str, set[str]] = {}
    for revision, added in _EARLY.items():
        if revision <= revisions[0]:
            for name, more in added.items():
                columns.setdefault(name, set()).update(more.split())
    if not columns.keys() <= tables:
        return None
    inspector = inspect(connection)
    found = {name: {column["name"] for column in inspector.get_columns(name)} for name in columns}
    return revisions[0] if found == columns else None


def _rename(connection: Connection, name: str) -> None:
    if connection.dialect.name == "postgresql":
        inspector = inspect(connection)
        for index in inspector.get_indexes(name):
            _alter(connection, f"INDEX {index['name']} RENAME TO {_new_name(name, index['name'])}")
        keys = [inspector.get_pk_constraint(name), *inspector.get_foreign_keys(name)]
        for old in (key["name"] for key in keys):
            _alter(connection, f"TABLE {name} RENAME CONSTRAINT {old} TO {_new_name(name, old)}")
        _alter(connection, f"TABLE {name} RENAME TO {PREFIX}{name}")
        return
    query = text("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = :name AND sql IS NOT NULL")
    indexes = connection.execute(query, {"name": name}).all()
    _alter(connection, f"TABLE {name} RENAME TO {PREFIX}{name}")
    for old, sql in indexes:  # SQLite cannot rename one.
        connection.exec_driver_sql(f"DROP INDEX {old}")
        definition = sql.replace(old, _new_name(name, old), 1).replace(f" ON {name} ", f" ON {PREFIX}{name} ", 1)
        connection.exec_driver_sql(definition)


def _new_name(table: str, name: str | None) -> str:
    """Returns: The name of an index or a constraint of a table, as it is now."""
    old = name or ""
    return _RENAMED.get(old) or old.replace(f"_{table}", f"_{PREFIX}{table}", 1)


def _alter(connection: Connection, change: str) -> None:
    connection.exec_driver_sql(f"ALTER {change}")
