"""Stores of the tests: made fast, set to another time, and read."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import select
from sqlalchemy.orm import undefer

from dramatiq_diag import Settings
from dramatiq_diag.maintenance import cleanup as retention
from dramatiq_diag.maintenance.consistency import Findings, check
from dramatiq_diag.store.attempts import Attempt, find_attempt, list_attempts
from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.migration import HEAD_REVISION, migrate
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.runs import RunFilter, artifacts_of, list_runs
from dramatiq_diag.store.store import Store


def migrate_from(template: Settings, settings: Settings) -> str:
    """Does what `migrate` does; an SQLite file that is not there yet is cloned, and gets a store id of its own."""
    path = Path(settings.database.database or "")
    if not settings.migrates_itself or path.exists():
        return migrate(settings)
    clone = path.with_name(f"{uuid.uuid4()}.db")
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(template.database.database or "", clone)
        with closing(sqlite3.connect(clone, isolation_level=None)) as connection:
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute("UPDATE dramatiq_diag_store_state SET store_id = ?", [uuid.uuid4().hex])
        os.link(clone, path)
    except OSError:  # Another one was faster, or it cannot be made; the real one knows what to say.
        return migrate(settings)
    finally:
        with suppress(FileNotFoundError, NotADirectoryError):
            clone.unlink()
    return HEAD_REVISION


class FakeClock:
    """The database's clock, set ahead: what was published now is then as old as it says.

    The worker's own clock, by which it judges the files of its spool, goes with it.
    """

    ahead = timedelta(0)

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        after = Clock.after
        monkeypatch.setattr(Clock, "after", lambda clock, seconds: after(clock, seconds + self.ahead.total_seconds()))
        monkeypatch.setattr(retention, "time", self)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def time(self) -> float:
        return self.now().timestamp()

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


class Postgres:
    """One server; a fresh database for each test is cloned from a migrated template."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._engine = sqlalchemy.create_engine(
            self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.pool.NullPool
        )
        self.execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE template_migrated")
        migrate(Settings(database_url=self.url("template_migrated")))

    def url(self, database: str) -> str:
        return str(self._server.get_uri(database)).replace("postgresql://", "postgresql+psycopg://")

    def execute(self, *statements: str) -> None:
        with self._engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    @contextmanager
    def database(self, template: str = "template_migrated") -> Iterator[str]:
        """Yields the name of a new database."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield name
        finally:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


class Stored:
    """What a store holds, read the way the web app reads it."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def runs(self, task_id: str) -> list[Attempt]:
        """First attempt first."""
        with self.store.session() as session:
            runs, _ = list_attempts(session, task_id, 100_000)
            with_text = select(Attempt).where(TaskRun.run_id.in_([each.run_id for each in runs]))
            session.execute(
                with_text.options(undefer(TaskRun.exception_traceback)).execution_options(populate_existing=True)
            ).all()
            return runs

    def all_runs(self) -> list[TaskRun]:
        """Newest first."""
        with self.store.session() as session:
            return [*list_runs(session, RunFilter(), 100_000)[0]]

    def artifacts(self, task_id: str, attempt: int | None = None) -> dict[str, Artifact]:
        with self.store.session() as session:
            chosen = find_attempt(session, task_id, attempt)
            assert chosen is not None, f"no run of task {task_id!r} is stored"
            found = artifacts_of(session, [chosen.run_id])[chosen.run_id]
        return {artifact.name: artifact for artifact in found}

    def data(self, task_id: str, name: str, attempt: int | None = None) -> bytes:
        with self.open(task_id, name, attempt) as file:
            return file.read()

    def open(self, task_id: str, name: str, attempt: int | None = None) -> Any:
        artifact = self.artifacts(task_id, attempt)[name]
        assert artifact.blob_name is not None, f"{name} is {artifact.status}: {artifact.reason}"
        return self.store.blobs.open(artifact.blob_name)

    def path(self, task_id: str, name: str, attempt: int | None = None) -> Path:
        artifact = self.artifacts(task_id, attempt)[name]
        assert artifact.blob_name is not None, f"{name} is {artifact.status}: {artifact.reason}"
        return self.store.blobs.root / artifact.blob_name

    def check(self) -> Findings:
        return check(self.store)


def files(store: Store) -> list[str]:
    """Returns: The names of what the blob directory has."""
    return sorted(found.name for found in store.blobs.scan())
