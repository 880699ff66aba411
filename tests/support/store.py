"""Stores of the tests: made fast, set to another time, and read."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from dramatiq_diag import Settings
from dramatiq_diag.maintenance import cleanup as retention
from dramatiq_diag.maintenance.consistency import Findings, check
from dramatiq_diag.runtime.private_files import make_directory, make_file
from dramatiq_diag.statuses import FAILED_STATUSES, RunStatus
from dramatiq_diag.store.attempts import Attempt, find_attempt, list_attempts
from dramatiq_diag.store.blobs.base import BlobStore
from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.counters import Series
from dramatiq_diag.store.migration import head_revision, migrate
from dramatiq_diag.store.models import Artifact, Counter, TaskRun, is_live
from dramatiq_diag.store.runs import RunFilter, artifacts_of, list_runs
from dramatiq_diag.store.store import Store

from .blobs import put_one

#: For tests of what is the same in any database, in a module whose settings are those of both.
IN_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class SqliteTemplate:
    """A migrated SQLite database as statements: to execute them takes a few milliseconds, the migrations more than most
    tests.

    Parameters:
      settings: Those of the template, which is migrated here.
    """

    def __init__(self, settings: Settings) -> None:
        migrate(settings)
        with closing(sqlite3.connect(settings.database.database or "")) as connection:
            self._statements = [
                statement for statement in connection.iterdump() if statement not in ("BEGIN TRANSACTION;", "COMMIT;")
            ]

    def migrate(self, settings: Settings) -> str:
        """Does what `store.migration.migrate` does. An empty SQLite file is filled, and gets a store id of its own."""
        if not settings.migrates_itself:
            return migrate(settings)
        path = Path(settings.database.database or "")
        try:
            make_directory(path.parent)
            make_file(path)
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                is_filled = self._fill(connection)
        except (OSError, sqlite3.Error):  # The real one knows what to say.
            return migrate(settings)
        return head_revision() if is_filled else migrate(settings)

    def _fill(self, connection: sqlite3.Connection) -> bool:
        """Returns: False where there are tables already: another one was faster, or it is of an older version."""
        for pragma in ("auto_vacuum=INCREMENTAL", "journal_mode=WAL", "synchronous=OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is not None:
            connection.execute("ROLLBACK")
            return False
        for statement in self._statements:
            connection.execute(statement)
        connection.execute("UPDATE dramatiq_diag_store_state SET store_id = ?", [uuid.uuid4().hex])
        connection.execute("COMMIT")
        return True


class Breaks(io.BytesIO):
    """Gives a part and then fails, as a disk does."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(size)


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


#: The file system in memory of Linux. Servers of several processes need so many bytes there, mostly for an instant.
_MEMORY, _NEEDED_BYTES = Path("/dev/shm"), 8 * 1024**3


def in_memory() -> Path | None:
    """Returns: A directory in memory, for the files of servers; None if it is missing or has too little room.

    Each new database of PostgreSQL is 300 files, which take a tenth of the time there.
    """
    if not os.access(_MEMORY, os.W_OK) or shutil.disk_usage(_MEMORY).free < _NEEDED_BYTES:
        return None
    return _MEMORY


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

    def connections(self, database: str | None) -> int:
        """Returns: The number of connections to a database."""
        query = sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE datname = :name")
        with self._engine.connect() as connection:
            return int(connection.execute(query, {"name": database}).scalar_one())

    @contextmanager
    def database(self, template: str = "template_migrated") -> Iterator[str]:
        """Yields the name of a new database."""
        name = f"test_{uuid.uuid4().hex}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")  # Faster without fsync.
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

    def attached(self) -> dict[uuid.UUID, list[Artifact]]:
        """Returns: Attachment id -> its artifacts."""
        found: dict[uuid.UUID, list[Artifact]] = {}
        with self.store.session() as session:
            for artifact in session.execute(select(Artifact).where(Artifact.attachment_id.is_not(None))).scalars():
                found.setdefault(artifact.attachment_id, []).append(artifact)
        return found

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
        """Compares rows with blobs; the counters of what is stored must be those of the rows besides."""
        findings = check(self.store)
        with self.store.session() as session:
            assert kept_counters(session) == counted_anew(session)
        return findings


def files(store: Store) -> list[str]:
    """Returns: The names of what the blob directory has."""
    return sorted(found.name for found in store.blobs.scan())


def kept_counters(session: Session) -> dict[tuple[str, str, str], float]:
    """Returns: The counters of what is stored that are not 0: by series, actor and label."""
    stored = [Series.STORED_RUNS, Series.STORED_FAILED_RUNS, Series.STORED_ARTIFACTS, Series.STORED_BYTES]
    query = select(Counter).where(Counter.series.in_(stored), Counter.value != 0)
    return {(row.series, row.actor_name, row.label): row.value for row in session.execute(query).scalars()}


def counted_anew(session: Session) -> dict[tuple[str, str, str], float]:
    """Returns: What `kept_counters` must return, by counting rows."""
    ended = select(TaskRun.actor_name, func.count()).where(TaskRun.status != RunStatus.RUNNING)
    found = {
        (Series.STORED_RUNS.value, actor_name, ""): count
        for actor_name, count in session.execute(ended.group_by(TaskRun.actor_name))
    }
    failed = ended.where(TaskRun.status.in_(FAILED_STATUSES)).group_by(TaskRun.actor_name)
    found |= {(Series.STORED_FAILED_RUNS.value, actor_name, ""): count for actor_name, count in session.execute(failed)}
    live = select(TaskRun.actor_name, Artifact.name, func.count(), func.sum(Artifact.size_bytes)).join(Artifact.run)
    live = live.where(is_live(Artifact.status)).group_by(TaskRun.actor_name, Artifact.name)
    for actor_name, name, count, size_bytes in session.execute(live):
        found[Series.STORED_ARTIFACTS.value, actor_name, name] = count
        if size_bytes:
            found[Series.STORED_BYTES.value, actor_name, name] = size_bytes
    return found


@contextmanager
def replaced_meanwhile(blobs: BlobStore, artifact_id: uuid.UUID, versions: Sequence[bytes]) -> Iterator[None]:
    """Puts the versions of a blob one after the other, over and over, on another thread."""
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for version in versions:
                put_one(blobs, artifact_id, io.BytesIO(version))

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
