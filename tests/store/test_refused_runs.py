"""What is held against a run, and what against the store: a run is refused only for what it brings itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from dramatiq_diag.errors import RunRefusedError, StoreError, StoreUnavailableError
from dramatiq_diag.store.models import TaskRun
from dramatiq_diag.store.records import FinishedRun
from dramatiq_diag.store.store import Store
from support.records import run_record
from support.store import Postgres

#: SQLSTATEs that a run causes: numeric overflow, characters that the database does not have, a constraint, a value that
#: is too long, a row that is too large.
OF_THE_RUN = ["22003", "22021", "22P05", "22001", "23502", "23514", "54000"]

#: SQLSTATEs of a server that takes the same run later: read-only, full disk, no memory, too many connections, shut down
#: by an administrator, cancelled, conflicts, locks, I/O errors, internal errors, a damaged index, a missing grant.
OF_THE_SERVER = [
    *("25006", "53100", "53200", "53300", "57P01", "57P03", "57014", "40001", "40P01", "55P03"),
    *("58030", "XX000", "XX001", "XX002", "42501", "0A000", "08006", "P0001"),
]


def bundle(**changes: Any) -> FinishedRun:
    now = datetime.now(UTC)
    values = {"task_id": "task", "started_at": now, "finished_at": now}
    return FinishedRun(run=run_record(**values | changes), artifacts=[])


@pytest.fixture(scope="module")
def raising(
    postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, str], Callable[[str], None]]]:
    """Settings of a store, and what lets a trigger in its database raise an error of that state at each run."""
    with postgres.database() as name:
        url = postgres.url(name)
        import psycopg

        with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(
                f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN END'; "
                f"CREATE TRIGGER fail BEFORE INSERT ON {TaskRun.__tablename__} FOR EACH ROW EXECUTE FUNCTION fail()"
            )

            def set_state(state: str) -> None:
                body = f"BEGIN RAISE EXCEPTION ''as if'' USING ERRCODE = ''{state}''; END"
                connection.execute(f"CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS '{body}'")

            yield {"database_url": url, "blob_url": str(tmp_path_factory.mktemp("blobs"))}, set_state


@pytest.mark.parametrize("state", OF_THE_RUN)
def test_postgresql_refuses_a_run_for_its_data(raising, settings, store_of, state):
    store_settings, set_state = raising
    set_state(state)

    with pytest.raises(RunRefusedError, match="as if"):
        store_of(settings(**store_settings)).publish([bundle()])


@pytest.mark.parametrize("state", OF_THE_SERVER)
def test_postgresql_in_trouble_refuses_no_run(raising, settings, store_of, state):
    store_settings, set_state = raising
    set_state(state)

    with pytest.raises(StoreError, match="as if") as caught:
        store_of(settings(**store_settings)).publish([bundle()])

    assert not isinstance(caught.value, RunRefusedError)


def test_a_missing_grant_is_not_taken_for_a_missing_schema(raising, settings, store_of):
    store_settings, set_state = raising
    set_state("42501")

    with pytest.raises(StoreUnavailableError, match="as if"):
        store_of(settings(**store_settings)).publish([bundle()])


def test_a_number_that_no_database_takes_is_held_against_the_run(settings, store_of, database_url):
    store = store_of(settings(database_url=database_url))

    with pytest.raises((RunRefusedError, ArithmeticError)):
        store.publish([bundle(pid=2**70)])


@contextmanager
def pragma(store: Store, *statements: str) -> Iterator[None]:
    """Sets pragmas on the store's connection."""

    def set_them(connection: Any, *_: Any) -> None:
        for statement in statements:
            connection.execute(f"PRAGMA {statement}").close()

    event.listen(store.engine, "checkout", set_them)
    yield
    event.remove(store.engine, "checkout", set_them)


def damaged(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))


def test_a_full_disk_or_a_read_only_file_of_sqlite_refuses_no_run(settings, store_of):
    store = store_of(settings())

    runs = [bundle(exception_message="x" * 4000) for _ in range(100)]
    for statement, text in (("max_page_count=1", "full"), ("query_only=ON", "readonly")):
        with pragma(store, statement), pytest.raises(StoreUnavailableError, match=text):
            store.publish(runs)


def test_a_damaged_file_of_sqlite_refuses_no_run(settings, store_of):
    store = store_of(settings())
    store.publish([bundle()])
    store.close()
    damaged(store.settings.data_dir / "diagnostics.db")

    with pytest.raises(StoreError) as caught:
        store.publish([bundle()])

    assert not isinstance(caught.value, RunRefusedError)
