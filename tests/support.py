"""What the fixtures are made of, for tests to import by name."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import dramatiq
import pytest
import sqlalchemy
from dramatiq import Broker, Message, Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO, Middleware, Retries
from sqlalchemy import select
from sqlalchemy.orm import undefer

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.maintenance import cleanup as retention
from dramatiq_diag.maintenance.consistency import Findings, check
from dramatiq_diag.store.attempts import Attempt, find_attempt, list_attempts
from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.database import HEAD_REVISION, migrate
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.runs import RunFilter, artifacts_of, list_runs
from dramatiq_diag.store.store import Store

#: Longest wait for something that happens in another thread or process, in seconds; no test waits it out.
PATIENCE_S = 60.0

RABBITMQ_URL = os.environ.get("DRAMATIQ_DIAG_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672")


def missing(what: str, remedy: str) -> NoReturn:
    """Skips where a newcomer lacks a service, and fails where continuous integration does."""
    text = f"{what}. {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Polls another process or thread until the condition holds. Returns: What the condition gave."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"never happened: {what}"
        time.sleep(0.02)
    return found


def encodable(data: Any) -> Any:
    """Returns: The same dicts, lists and strings, with lone surrogates escaped."""
    if isinstance(data, dict):
        return {encodable(key): encodable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(map(encodable, data))
    return data.encode("utf-8", "backslashreplace").decode() if isinstance(data, str) else data


def python_path(directory: Path) -> str:
    """Returns: A `PYTHONPATH` that begins with the directory; what it was before comes after it."""
    return os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))


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


def middleware_under_test(*more: Middleware) -> list[Middleware]:
    """Dramatiq's own, without the default back-off of 15 seconds, and what a test adds."""
    defaults = [m() for m in dramatiq.middleware.default_middleware if m is not Retries]
    return [*defaults, Retries(min_backoff=1, max_backoff=1), AsyncIO(), *more]


@contextmanager
def running(broker: Broker, *, threads: int = 1, **options: Any) -> Iterator[Worker]:
    worker = Worker(broker, worker_timeout=10, worker_threads=threads, **options)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def finish(broker: Broker, worker: Worker, *queue_names: str) -> None:
    """Waits until the worker has done all messages of the queues, retries included."""
    for queue_name in queue_names:
        broker.join(queue_name, timeout=int(PATIENCE_S * 1000))
    worker.join()


class Bench:
    """A stub broker with `Diagnostics` and one worker: the shortest way from a function to its artifacts."""

    def __init__(self, broker: StubBroker, diagnostics: Diagnostics, worker: Worker) -> None:
        self.broker = broker
        self.diagnostics = diagnostics
        self.worker = worker

    def actor(self, fn: Callable[..., Any], **options: Any) -> Any:
        return dramatiq.actor(fn, broker=self.broker, **{"max_retries": 0, "queue_name": "tasks"} | options)

    def finish(self) -> None:
        finish(self.broker, self.worker, *(set(self.broker.queues) - self.broker.delay_queues))
        assert self.diagnostics.flush(PATIENCE_S)

    def run(self, fn: Callable[..., Any], *args: Any, **options: Any) -> str:
        """Executes a function as a task and publishes its run. Returns: The task's id."""
        message: Message[Any] = self.actor(fn, **options).send(*args)
        self.finish()
        return message.message_id
