"""A database that an application has as well: its tables, its Alembic and ours stay apart."""

from __future__ import annotations

import re
import sqlite3
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy import inspect, text

from dramatiq_diag.cli.doctor_checks import Status, examine
from dramatiq_diag.errors import SchemaError, StoreUnavailableError
from dramatiq_diag.store.database import make_engine
from dramatiq_diag.store.migration import alembic_config, check_schema, head_revision, migrate
from dramatiq_diag.store.models import Base
from support.early_version import make_early_store
from support.records import bundle, run_record

_ENV = """
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
"""
_STEP = """
from alembic import op

revision = {revision!r}
down_revision = {before!r}

def upgrade():
    op.execute({statement!r})
"""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """The URL of an application's database, empty still."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/application.db"
        return
    server = request.getfixturevalue("postgres")
    with server.database("template1") as name:
        yield server.url(name)


@contextmanager
def connected(url):
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


class Application:
    """An application that numbers its migrations as we do, and has a table of a name that we once had."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        (directory / "versions").mkdir(parents=True)
        (directory / "env.py").write_text(_ENV)
        statements = ["CREATE TABLE artifacts (id INTEGER, name VARCHAR(9))", "ALTER TABLE artifacts ADD size INTEGER"]
        for number, statement in enumerate(statements, 1):
            before = f"000{number - 1}" if number > 1 else None
            step = _STEP.format(revision=f"000{number}", before=before, statement=statement)
            (directory / "versions" / f"{number}.py").write_text(step)
        self.config = Config()
        self.config.set_main_option("script_location", str(directory))
        self.config.set_main_option("path_separator", "os")

    def upgrade(self, revision: str) -> None:
        with connected(self.url) as connection:
            self.config.attributes["connection"] = connection
            command.upgrade(self.config, revision)

    def revision(self) -> str:
        with connected(self.url) as connection:
            return connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()


@pytest.fixture
def application(url, tmp_path):
    return Application(url, tmp_path / "application")


def tables(url: str, schema: str | None = None) -> set[str]:
    with connected(url) as connection:
        return set(inspect(connection).get_table_names(schema))


@pytest.mark.parametrize("before", ["0001", "0002", None])
def test_an_applications_migrations_and_ours_do_not_meet(application, url, settings, store_of, stored, before):
    # Given an application that has migrated its database some of the way
    if before is not None:
        application.upgrade(before)

    # When ours are run, and used, and then the application's again, and ours again
    given = settings(database_url=url)
    migrate(given)
    if before is not None:
        assert application.revision() == before
    store_of(given).publish([bundle(run_record(task_id="task"))])
    application.upgrade("head")
    migrate(given)

    # Then each has what is its own
    assert application.revision() == "0002"
    assert len(stored(given).runs("task")) == 1
    assert not stored(given).check()
    check_schema(store_of(given).engine)
    others = {name for name in tables(url) if not name.startswith("dramatiq_diag_")}
    assert others == {"artifacts", "alembic_version"}


def test_what_others_have_is_no_difference_to_the_models(application, url, settings):
    application.upgrade("head")
    given = settings(database_url=url)
    migrate(given)

    config = alembic_config()
    engine = make_engine(given)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)
    engine.dispose()


@pytest.mark.parametrize(
    "what", ["TABLE dramatiq_diag_artifacts (id INTEGER)", "VIEW dramatiq_diag_captures AS SELECT 1"]
)
def test_tables_of_others_with_our_names_are_left_alone(url, settings, what):
    with connected(url) as connection:
        connection.exec_driver_sql(f"CREATE {what}")
    before = tables(url)

    with pytest.raises(SchemaError, match=f"{what.split()[1]}; nothing was changed"):
        migrate(settings(database_url=url))

    assert tables(url) == before


# Stores of the version before the tables had a prefix.


@pytest.mark.parametrize("revision", ["0001", "0002", "0003", "0004"])
def test_an_early_store_keeps_its_rows_under_the_names_of_now(url, settings, store_of, stored, revision):
    with connected(url) as connection:
        store_id = make_early_store(connection, revision)
    given = settings(database_url=url)
    steps: list[str] = []

    assert migrate(given, steps.append) == head_revision()

    assert "early version" in steps[0]
    assert store_of(given).store_id() == store_id
    assert stored(given).artifacts("task")["memory_profile"].status == "partial"
    assert {name for name in tables(url) if not name.startswith("dramatiq_diag_")} == set()
    names_of_the_models_are_those_of(given)
    store_of(given).publish([bundle(run_record(task_id="task"))])
    assert len(stored(given).runs("task")) == 2


def names_of_the_models_are_those_of(given):
    engine = make_engine(given)
    inspector = inspect(engine)
    for table in Base.metadata.sorted_tables:
        # PostgreSQL alone has an index of the beginnings of task ids, so the models have none.
        found = {index["name"] for index in inspector.get_indexes(table.name)}
        assert found - {"ix_dramatiq_diag_task_runs_task_id_beginning"} == {
            re.sub("(.{63}).*", r"\1", index.name) for index in table.indexes
        }
        if engine.dialect.name == "postgresql":
            assert inspector.get_pk_constraint(table.name)["name"] == table.primary_key.name
            for key in inspector.get_foreign_keys(table.name):
                assert key["name"] in {constraint.name for constraint in table.foreign_key_constraints}
    config = alembic_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)
    engine.dispose()


def test_an_early_store_beside_other_tables_leaves_the_old_revision_behind(url, settings):
    with connected(url) as connection:
        make_early_store(connection)
        connection.exec_driver_sql("CREATE TABLE invoices (id INTEGER)")

    migrate(settings(database_url=url))

    assert {name for name in tables(url) if not name.startswith("dramatiq_diag_")} == {"alembic_version", "invoices"}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE alembic_version SET version_num = 'f00'",
        "INSERT INTO alembic_version VALUES ('f00')",
        "DELETE FROM alembic_version",
        "ALTER TABLE artifacts ADD owner INTEGER",
        "ALTER TABLE task_runs RENAME COLUMN pid TO process",
        "DROP TABLE worker_actors",
    ],
)
def test_what_only_looks_like_an_early_store_is_an_applications(url, settings, change):
    with connected(url) as connection:
        make_early_store(connection)
        connection.exec_driver_sql(change)
    before = tables(url)

    given = settings(database_url=url)
    migrate(given)

    assert {name for name in tables(url) if not name.startswith("dramatiq_diag_")} == before
    with connected(url) as connection:
        assert connection.execute(text("SELECT count(*) FROM dramatiq_diag_task_runs")).scalar() == 0


def test_the_file_of_an_early_store_is_adopted_by_itself_and_can_shrink(settings, store_of, stored):
    given = settings()
    given.data_dir.mkdir()
    with connected(given.database) as connection:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        make_early_store(connection)

    store_of(given)

    assert len(stored(given).runs("task")) == 1
    with sqlite3.connect(given.data_dir / "diagnostics.db") as file:
        assert file.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    file.close()


# A schema of its own.


@pytest.fixture
def server_url(postgres):
    with postgres.database("template1") as name:
        yield postgres.url(name)


@pytest.mark.parametrize(
    ("path", "is_there"),
    [("diag", True), ("diag", False), ('"Di ag"', True), ('"Di ag"', False), ("diag,public", True)],
)
def test_a_search_path_puts_everything_into_its_schema(
    server_url, settings, store_of, stored, path, is_there, tmp_path
):
    application = Application(server_url, tmp_path / "application")
    application.upgrade("head")
    schema = path.split(",")[0].strip('"')
    if is_there:
        with connected(server_url) as connection:
            connection.exec_driver_sql(f'CREATE SCHEMA "{schema}"')
    options = "-csearch_path%3D" + path.replace(" ", "%5C%20").replace('"', "%22")
    given = settings(database_url=f"{server_url}&options={options}")

    migrate(given)
    store_of(given).publish([bundle(run_record(task_id="task"))])

    assert len(stored(given).runs("task")) == 1
    assert tables(server_url) == {"artifacts", "alembic_version"}
    assert tables(server_url, schema) == {table.name for table in Base.metadata.sorted_tables} | {
        "dramatiq_diag_version"
    }


def test_a_search_path_that_names_no_schema_is_said(server_url, settings):
    with pytest.raises(SchemaError, match="names no schema"):
        migrate(settings(database_url=f"{server_url}&options=-csearch_path%3D%22%24user%22"))


def test_what_the_url_says_of_a_connection_has_the_last_word(server_url, settings):
    options = "-cstatement_timeout%3D5000%20-capplication_name%3Dx"
    url = f"{server_url}&connect_timeout=3&tcp_user_timeout=4000&options={options}"
    engine = make_engine(settings(database_url=url))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "5s"
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "x"
        parameters = connection.connection.dbapi_connection.info.get_parameters()
    engine.dispose()

    assert (parameters["connect_timeout"], parameters["tcp_user_timeout"]) == ("3", "4000")


def test_without_such_words_a_statement_and_a_connection_have_their_time(server_url, settings):
    engine = make_engine(settings(database_url=f"{server_url}&options=-capplication_name%3Dx"))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "30s"
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "x"
        parameters = connection.connection.dbapi_connection.info.get_parameters()
    engine.dispose()

    expected = {"connect_timeout": 10, "tcp_user_timeout": 10_000, "keepalives_idle": 5, "keepalives_interval": 5}
    assert {name: int(parameters[name]) for name in expected} == expected


# How long a migration may take.


def test_a_migration_may_take_longer_than_a_statement_of_a_worker(server_url, settings, monkeypatch):
    seen: list[str] = []
    given = settings(database_url=server_url)
    stamp = command.upgrade

    def note(config, revision):
        seen.append(config.attributes["connection"].exec_driver_sql("SHOW statement_timeout").scalar())
        stamp(config, revision)

    monkeypatch.setattr(command, "upgrade", note)

    migrate(given)

    assert set(seen) == {"0"}


def test_a_migration_that_fails_changes_nothing(url, settings, monkeypatch):
    upgrade = command.upgrade

    def fail(config, revision):
        if revision == head_revision():
            config.attributes["connection"].exec_driver_sql("SELECT * FROM nowhere")
        upgrade(config, revision)

    monkeypatch.setattr(command, "upgrade", fail)
    with connected(url) as connection:
        make_early_store(connection)
    before = tables(url)

    with pytest.raises((SchemaError, StoreUnavailableError)):
        migrate(settings(database_url=url))

    assert tables(url) == before


def test_the_doctor_sees_that_postgresql_is_read_only(settings, postgres):
    with postgres.database() as name:
        given = settings(database_url=postgres.url(name))
        assert [check.status for check in examine(given) if check.name == "database"] == [Status.OK]
        postgres.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")

        (found,) = [check for check in examine(given) if check.name == "database"]

    assert (found.status, "read-only" in found.detail) == (Status.FINDING, True)
