"""What a process keeps open and takes up: connections to PostgreSQL, space on the disk, lines in the log."""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.store import vacuum
from dramatiq_diag.store.database import WRITERS_TURN_S, make_engine
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.models import Artifact
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.records import artifact_record, bundle, run_record


@pytest.fixture
def postgres_settings(postgres, settings):
    with postgres.database() as name:
        yield settings(database_url=postgres.url(name), task_diagnostics=["memory"])


def test_a_worker_has_one_connection_while_nothing_happens(postgres, postgres_settings, bench):
    database = postgres_settings.database.database
    # Given a worker that looks into the database over and over
    with bench(postgres_settings, threads=2, tuning=Tuning(attention_s=0.02)) as tasks:
        for number in range(3):
            tasks.run(lambda: None, actor_name=f"work-{number}")

        # Then it comes to rest with one
        eventually(lambda: postgres.connections(database) == 1, "one connection is left")

    # The server's process of a closed connection ends a moment later.
    eventually(lambda: postgres.connections(database) == 0, "no connection is left")


def test_threads_that_use_a_store_at_once_leave_one_connection(postgres, postgres_settings, store_of):
    store = store_of(postgres_settings)
    inside = threading.Barrier(6)

    def use() -> None:
        with store.session() as session:
            session.execute(text("SELECT 1"))
            inside.wait(PATIENCE_S)

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    database = postgres_settings.database.database
    eventually(lambda: postgres.connections(database) == 1, "one connection is left")


# The file.


def fill(store: Store) -> None:
    """Adds 19 MB: more than is kept free, and many times what is given back in one step."""
    store.publish([bundle(run_record(exception_traceback="x" * 2**16), artifact_record()) for _ in range(300)])


def make_old(store: Store) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=400)
    with store.session() as session:
        session.execute(update(Artifact).values(expires_at=long_ago, published_at=long_ago))


def test_the_file_shrinks_with_what_a_cleanup_removes(settings, store_of, stored):
    given = settings()
    path = given.data_dir / "diagnostics.db"
    store = store_of(given)
    store.publish([bundle(run_record(task_id="young", started_at=datetime.now(UTC), finished_at=datetime.now(UTC)))])
    fill(store)
    make_old(store)
    with store.session() as session:
        session.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))
    before = path.stat().st_size

    assert Cleanup(store).run().removed_runs == 300

    assert path.stat().st_size < before / 2
    assert len(stored(given).runs("young")) == 1


def test_a_file_that_may_not_be_looked_at_for_a_while_is_not_called_removed(settings, store_of, caplog, monkeypatch):
    given = settings()
    path = str(given.data_dir / "diagnostics.db")
    store = store_of(given)
    with store.session() as session:
        session.execute(text("SELECT 1"))
    look = os.stat

    def refuse(looked_at: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(looked_at) == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return look(looked_at, *arguments, **options)

    # When a process has the id of another user for a while, as a task may set it
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", refuse)
        with store.session() as session:
            assert session.execute(text("SELECT 1")).scalar() == 1
    with store.session() as session:
        assert session.execute(text("SELECT 1")).scalar() == 1

    assert "was removed or replaced" not in caplog.text


def test_other_writers_write_while_the_file_shrinks(settings, store_of):
    given = settings()
    store, writer = store_of(given), store_of(given)
    fill(store)
    with store.session() as session:
        session.execute(text("DELETE FROM dramatiq_diag_task_runs"))
    pauses: list[float] = []

    def write_then(seconds: float) -> None:
        pauses.append(seconds)
        writer.announce([run_record(finished_at=None, duration_ms=None, status="running")])

    vacuum.give_back(store.engine, sleep=write_then)

    assert len(pauses) > 3
    assert min(pauses) >= WRITERS_TURN_S
    with writer.session() as session:
        assert session.execute(text("SELECT count(*) FROM dramatiq_diag_task_runs")).scalar() == len(pauses)


def test_a_file_that_others_use_is_rewritten_another_time(settings, caplog):
    # Given a file that cannot give anything back, and a process that writes to it
    given = settings()
    migrate(given)
    path = given.data_dir / "diagnostics.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA auto_vacuum=NONE")
        other.execute("VACUUM")
        other.execute("BEGIN IMMEDIATE")

        engine = make_engine(settings(database_url=f"sqlite:///{path}?timeout=0"))  # Not after ten seconds.
        vacuum.enable(engine)
        engine.dispose()

        assert "dramatiq-diag migrate" in caplog.text
        other.execute("ROLLBACK")

    # When it is migrated by hand
    migrate(given)

    # Then it can shrink
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("PRAGMA auto_vacuum").fetchone() == (2,)


# The log.


def test_the_first_start_says_one_line_about_the_schema(settings, caplog):
    with caplog.at_level(logging.INFO):
        migrate(settings())
        assert [record.name for record in caplog.records] == ["dramatiq_diag.store.migration"]
        migrate(settings())

    assert len(caplog.records) == 1
    assert "was brought to revision" in caplog.text


def test_another_threads_alembic_is_heard_meanwhile(settings, caplog, monkeypatch):
    logger = logging.getLogger("alembic.runtime.migration")

    def say(_step: str) -> None:
        thread = threading.Thread(target=logger.info, args=("of an application",))
        thread.start()
        thread.join()
        logger.warning("of ours")

    with caplog.at_level(logging.INFO):
        migrate(settings(), say)

    assert "of an application" in caplog.text
    assert "of ours" in caplog.text
    assert logger.filters == []
