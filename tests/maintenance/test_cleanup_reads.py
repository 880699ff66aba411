"""How many rows a cleanup reads in PostgreSQL while there are no statistics of the tables, as after a burst of runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import text

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.store.blobs.base import Found
from dramatiq_diag.store.store import Store

_RUNS = 5_000

#: How often a row may be read; a batch of 200 that reads all of them would read each 25 times.
_READS = 8

_RUNS_TABLE = "dramatiq_diag_task_runs"
_ARTIFACTS_TABLE = "dramatiq_diag_artifacts"
_ID = "md5(n::text)::uuid"
_FILL = (
    f"""INSERT INTO dramatiq_diag_task_runs (run_id, task_key, task_id, actor_name, queue_name, status, started_at,
        finished_at, hostname, pid, overlapped_task_ids)
        SELECT {_ID}, n, n, 'work', 'default', 'succeeded', now() - interval '2 day', now() - interval '2 day', 'host',
        1, '[]' FROM generate_series(1, {_RUNS}) AS n""",
    f"""INSERT INTO dramatiq_diag_artifacts (artifact_id, run_id, name, status, filename, media_type, published_at,
        expires_at, size_bytes, blob_name, sha256)
        SELECT {_ID}, {_ID}, 'memory_profile', 'stored', 'memory.datum', 'text/plain', now() - interval '2 day',
        now() + (n - {_RUNS} - 1) * interval '1 second', 1, '20260101/' || {_ID}, ''
        FROM generate_series(1, {_RUNS}) AS n""",
    f"""INSERT INTO dramatiq_diag_counters (actor_name, queue_name, series, label, value) VALUES
        ('work', '', 'stored_runs', '', {_RUNS}), ('work', '', 'stored_bytes', 'memory_profile', {_RUNS})""",
)


@pytest.fixture
def store(postgres, tmp_path) -> Iterator[Store]:
    with postgres.database() as name:
        # A small table is read through anyway; this one is read like one of millions.
        postgres.execute(f"ALTER DATABASE {name} SET enable_seqscan = off")
        store = Store(Settings(data_dir=tmp_path, database_url=postgres.url(name), run_retention=86400))
        store.open()
        execute(
            store,
            *(f"ALTER TABLE {table} SET (autovacuum_enabled = false)" for table in (_RUNS_TABLE, _ARTIFACTS_TABLE)),
            *_FILL,
        )
        yield store
        store.close()


def execute(store: Store, *statements: str) -> None:
    with store.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def rows_read(store: Store, table: str) -> int:
    """Returns: The rows of a table that were read so far, by the one connection of the store."""
    execute(store, "SELECT pg_stat_force_next_flush()")
    query = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = :table")
    with store.session() as session:
        return int(session.execute(query, {"table": table}).scalar_one())


def test_artifacts_that_expire_are_each_read_a_few_times(store):
    execute(store, f"UPDATE {_RUNS_TABLE} SET finished_at = now()")
    before = rows_read(store, _ARTIFACTS_TABLE)

    counts = Cleanup(store).run()

    assert (counts.expired_artifacts, counts.removed_runs) == (_RUNS, 0)
    assert rows_read(store, _ARTIFACTS_TABLE) - before <= _READS * _RUNS


def test_runs_that_are_old_are_each_read_a_few_times(store):
    execute(store, f"UPDATE {_ARTIFACTS_TABLE} SET status = 'expired'")
    before = rows_read(store, _RUNS_TABLE)

    counts = Cleanup(store).run()

    assert (counts.expired_artifacts, counts.removed_runs) == (0, _RUNS)
    assert rows_read(store, _RUNS_TABLE) - before <= _READS * _RUNS


@pytest.fixture
def bounded(store, tmp_path) -> Iterator[Store]:
    """The same store with bounds that leave one of all; nothing in it is past its time."""
    execute(store, f"UPDATE {_ARTIFACTS_TABLE} SET expires_at = expires_at + interval '1 day'")
    execute(store, f"UPDATE {_RUNS_TABLE} SET finished_at = now()")
    given = store.settings
    bounded = Store(
        Settings(data_dir=tmp_path, database_url=given.database_url, max_bytes=_RUNS // 3, max_runs=_RUNS // 2)
    )
    yield bounded
    bounded.close()


def test_what_is_beyond_the_bounds_is_read_a_few_times(store, bounded):
    before = rows_read(store, _ARTIFACTS_TABLE), rows_read(store, _RUNS_TABLE)

    counts = Cleanup(bounded).run()

    assert (counts.expired_artifacts, counts.removed_runs) == (_RUNS - _RUNS // 3, _RUNS // 2)
    bounded.close()  # So the server counts what it has read.
    assert rows_read(store, _ARTIFACTS_TABLE) - before[0] <= _READS * _RUNS
    assert rows_read(store, _RUNS_TABLE) - before[1] <= _READS * _RUNS


def test_artifacts_that_live_are_each_read_a_few_times_when_files_are_looked_at(store, monkeypatch):
    execute(store, f"UPDATE {_ARTIFACTS_TABLE} SET expires_at = NULL")
    with store.session() as session:
        rows = session.execute(text(f"SELECT blob_name, artifact_id FROM {_ARTIFACTS_TABLE}")).all()
    files = [Found(name=name, artifact_id=key, size_bytes=1, modified_at=0.0, suffix="") for name, key in rows]
    monkeypatch.setattr(store.blobs, "scan", lambda: iter(files))
    before = rows_read(store, _ARTIFACTS_TABLE)

    counts = Cleanup(store).run()

    assert counts.total == 0
    assert rows_read(store, _ARTIFACTS_TABLE) - before <= _READS * _RUNS
