"""`doctor`: the rights that the role of a PostgreSQL database lacks, and the statements that give them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, make_url

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.models import Base
from dramatiq_diag.store.rights import NEEDED
from dramatiq_diag.store.store import Store
from support.cli import Command, add_up, checks_of
from support.store import Postgres


class Limited:
    """A database of the superuser, and a role with the rights that docs/production.md lists."""

    def __init__(self, postgres: Postgres, name: str, role: str, schema: str) -> None:
        url = make_url(postgres.url(name))
        if schema != "public":
            url = url.update_query_dict({"options": f"-csearch_path={schema}"})
        self._owner: Engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self.url = url.set(username=role).render_as_string(hide_password=False)
        self.role = f'"{role}"'
        migrate(Settings(database_url=url.render_as_string(hide_password=False)))  # Makes the schema, if need be.
        if schema != "public":
            self.execute(f"GRANT USAGE ON SCHEMA {schema} TO {self.role}")
        for table, rights in NEEDED.items():
            self.execute(f"GRANT {', '.join(rights)} ON {table} TO {self.role}")

    def execute(self, *statements: str) -> None:
        with self._owner.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    def close(self) -> None:
        self._owner.dispose()


@pytest.fixture(params=["public", "diag"])
def limited(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[Limited]:
    role = f"The diag-{uuid.uuid4().hex}"  # A name that has to be quoted.
    postgres.execute(f'CREATE ROLE "{role}" LOGIN')
    with postgres.database("template_migrated" if request.param == "public" else "template0") as name:
        found = Limited(postgres, name, role, request.param)
        try:
            yield found
        finally:
            found.close()
    postgres.execute(f'DROP ROLE "{role}"')


def rights_of(command: Command, limited: Limited) -> dict[str, Any] | None:
    return checks_of(command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=limited.url)).get("rights")


def test_the_rights_that_the_pages_list_are_enough_to_publish_and_to_clean_up(
    command: Command, limited: Limited, bench: Any, settings: Callable[..., Settings]
) -> None:
    given = settings(
        database_url=limited.url, task_diagnostics=["memory"], orphan_protection_time=0.0, run_retention=0.0
    )
    with bench(given) as tasks:
        tasks.run(add_up)
    with closing(Store(given)) as store:
        store.open()
        assert Cleanup(store).run().removed_runs == 1

    assert rights_of(command, limited) is None
    assert checks_of(command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=limited.url))["database"]["status"] == "ok"


@pytest.mark.parametrize(
    ("revoked", "missing"),
    [
        (
            ["ALL ON dramatiq_diag_workers", "ALL ON dramatiq_diag_heap_windows"],
            [
                "no SELECT, INSERT, UPDATE, DELETE on dramatiq_diag_heap_windows",
                "no SELECT, INSERT, UPDATE, DELETE on dramatiq_diag_workers",
            ],
        ),
        (
            ["DELETE ON dramatiq_diag_task_runs", "DELETE ON dramatiq_diag_artifacts"],
            ["no DELETE on dramatiq_diag_artifacts", "no DELETE on dramatiq_diag_task_runs"],
        ),
        (["INSERT ON dramatiq_diag_artifacts"], ["no INSERT on dramatiq_diag_artifacts"]),
        (["UPDATE ON dramatiq_diag_store_state"], ["no UPDATE on dramatiq_diag_store_state"]),
    ],
)
def test_missing_rights_are_one_finding_with_the_statements_that_give_them(
    command: Command, limited: Limited, revoked: list[str], missing: list[str]
) -> None:
    limited.execute(*(f"REVOKE {each} FROM {limited.role}" for each in revoked))

    found = rights_of(command, limited)

    assert found is not None
    assert found["status"] == "finding"
    assert found["detail"] == f"the role of the database has {'; '.join(missing)}"
    # When the owner executes what the remedy says, then nothing is missing
    limited.execute(found["remedy"].removeprefix("As the owner of the tables: "))
    assert rights_of(command, limited) is None


def test_each_right_on_each_table_is_looked_at(command: Command, limited: Limited) -> None:
    limited.execute(*(f"REVOKE ALL ON {table} FROM {limited.role}" for table in NEEDED))

    found = rights_of(command, limited)

    assert found is not None
    lacks = [f"no {', '.join(rights)} on {table}" for table, rights in sorted(NEEDED.items())]
    assert found["detail"] == f"the role of the database has {'; '.join(lacks)}"
    assert len(lacks) == len(Base.metadata.tables) + 1
    limited.execute(found["remedy"].removeprefix("As the owner of the tables: "))
    assert rights_of(command, limited) is None


def test_a_role_that_may_not_read_the_revision_is_to_be_granted_it(command: Command, limited: Limited) -> None:
    limited.execute(f"REVOKE ALL ON dramatiq_diag_version FROM {limited.role}")

    checks = checks_of(command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=limited.url))

    assert "permission denied for table dramatiq_diag_version" in checks["database"]["detail"]
    assert checks["database"]["remedy"].startswith("Grant the role what it lacks: the finding `rights` has")
    assert checks["rights"]["detail"] == "the role of the database has no SELECT on dramatiq_diag_version"
    assert checks["rights"]["remedy"].endswith(f".dramatiq_diag_version TO {limited.role};")


@pytest.mark.parametrize("limited", ["diag"], indirect=True)
def test_a_role_that_may_not_use_the_schema_is_to_be_granted_it(command: Command, limited: Limited) -> None:
    limited.execute(f"REVOKE USAGE ON SCHEMA diag FROM {limited.role}")

    found = rights_of(command, limited)

    assert found is not None
    assert found["detail"] == "the role of the database has no USAGE on the schema diag"
    limited.execute(found["remedy"].removeprefix("As the owner of the tables: "))
    assert rights_of(command, limited) is None


def test_a_role_that_owns_the_tables_lacks_nothing(command: Command, postgres: Postgres) -> None:
    with postgres.database() as name:
        checks = checks_of(command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=postgres.url(name)))

    assert "rights" not in checks
    assert checks["database"]["status"] == "ok"
