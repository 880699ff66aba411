"""Faults of the store while tasks run: they run on, sealed runs wait, and are published when the fault ends."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.blobs.objects import ObjectBlobStore
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.fault_proxy import FaultProxy
from support.object_stores import patient_blobs
from support.tasks import Bench, finish

ALL_THREE = ["memory", "pyinstrument", "memray"]
_TASKS = 10

#: A fault that lasts is warned of once in so many seconds.
_WARNING_EVERY_S = 60.0

#: The store is tried again soon, so that there are many failures and still one warning.
IMPATIENT = Tuning(backoff_s=(0.01, 0.05))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.execute("ROLLBACK")
    connection.close()


@contextmanager
def moved(path: Path, *, mount_point: bool) -> Iterator[None]:
    away = path.rename(path.with_name("away"))
    if mount_point:
        path.mkdir()
    yield
    if mount_point:
        path.rmdir()  # Fails if anything went into it.
    away.rename(path)


@contextmanager
def refusing(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory in which nothing can be made, for root either: read-only, full, or past a quota."""
    originals = {"open": os.open, "link": os.link, "mkdir": os.mkdir}

    def make(name: str) -> Any:
        def call(target: Any, *args: Any, **kwargs: Any) -> Any:
            made = args[0] if name == "link" else target
            writes = name != "open" or (args and args[0] & os.O_CREAT)
            if writes and str(made).startswith(str(path)):
                raise OSError(number, os.strerror(number), str(made))
            return originals[name](target, *args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in originals:
            patch.setattr(os, name, make(name))
        yield


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns: Our warnings, but for that of the contact, which may come before or after that of the publisher."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
        and record.name.startswith("dramatiq_diag")
        and not record.getMessage().startswith("The process could not talk to the database")
    ]


def run_through(tasks: Bench, fault: Any, caplog: Any) -> list[str]:
    """Runs tasks before, during and after a fault. Returns: The ids of all."""
    began = time.monotonic()
    calls: list[int] = []
    actor = tasks.actor(lambda: calls.append(1), actor_name="work")
    ids = [actor.send().message_id]
    tasks.finish()
    with fault:
        ids += [actor.send().message_id for _ in range(_TASKS)]
        finish(tasks.broker, tasks.worker, "tasks")
        assert len(calls) == len(ids)
        eventually(lambda: warnings_of(caplog), "a warning of the publisher")
        assert not tasks.diagnostics.flush(0.3)
    ids.append(actor.send().message_id)
    tasks.finish()
    assert len(calls) == len(ids)
    said = [text.partition(" sealed runs wait")[1:] for text in warnings_of(caplog)]
    assert set(said) == {(" sealed runs wait", " in the spool.")}
    assert len(said) <= 1 + (time.monotonic() - began) / _WARNING_EVERY_S
    return ids


def assert_whole(reader: Any, ids: list[str]) -> None:
    runs = reader.all_runs()
    assert sorted(run.task_id for run in runs) == sorted(ids)
    assert {run.status for run in runs} == {RunStatus.SUCCEEDED}
    for task_id in ids:
        assert {each.status for each in reader.artifacts(task_id).values()} == {ArtifactStatus.STORED}
    assert not reader.check()


@pytest.mark.parametrize("fault", ["locked", "away", "not mounted", "read-only", "full", "past a quota"])
def test_tasks_run_on_and_everything_gets_there(bench, settings, stored, monkeypatch, caplog, fault):
    # Waiting 10 s for the lock, as by default, would leave little time for failures.
    database = settings().data_dir / "diagnostics.db"
    url = f"sqlite:///{database}?timeout=0.2" if fault == "locked" else None
    given = settings(task_diagnostics=ALL_THREE, database_url=url)
    migrate(settings())
    faults = {
        "locked": lambda: locked(given.data_dir / "diagnostics.db"),
        "away": lambda: moved(given.blob_dir, mount_point=False),
        "not mounted": lambda: moved(given.blob_dir, mount_point=True),
        "read-only": lambda: refusing(given.blob_dir, errno.EROFS, monkeypatch),
        "full": lambda: refusing(given.blob_dir, errno.ENOSPC, monkeypatch),
        "past a quota": lambda: refusing(given.blob_dir, errno.EDQUOT, monkeypatch),
    }

    with bench(given, tuning=IMPATIENT) as tasks:
        ids = run_through(tasks, faults[fault](), caplog)

    assert_whole(stored(given), ids)
    assert list(given.spool.iterdir()) == []


@pytest.mark.parametrize("fault", ["refused", "silent", "slow", "500", "412", "cut request", "cut answer"])
def test_a_bucket_that_goes_wrong_costs_nothing(bench, settings, stored, s3, monkeypatch, caplog, fault):
    if fault in ("silent", "slow"):  # The others are seen at once.
        impatient = partial(ObjectBlobStore, timeout_s=0.5, request_timeout_s=1.0)
        monkeypatch.setattr("dramatiq_diag.store.blobs.ObjectBlobStore", impatient)
    proxy = FaultProxy(s3.endpoint)
    for name, value in s3.variables(proxy.endpoint).items():
        monkeypatch.setenv(name, value)
    given = settings(task_diagnostics=["memory", "logs"], blob_url=s3.make_bucket())

    with bench(given) as tasks:
        ids = run_through(tasks, proxy.fault(fault), caplog)

    assert proxy.connections > 0 or fault == "refused"
    monkeypatch.setattr("dramatiq_diag.store.blobs.ObjectBlobStore", patient_blobs)
    assert_whole(stored(given), ids)
    assert list(given.spool.iterdir()) == []
    proxy.close()


def test_a_database_server_that_is_restarted_gets_everything(bench, settings, stored, caplog, make_postgres_server):
    # Not below pytest's directories: another run of the tests makes them unreadable for the server's user.
    directory = Path(tempfile.mkdtemp(prefix="diag-pg-"))
    server = make_postgres_server(directory)
    try:
        url = str(server.get_uri()).replace("postgresql://", "postgresql+psycopg://")
        migrate(Settings(database_url=url))
        given = settings(task_diagnostics=["memory"], database_url=url)

        @contextmanager
        def stopped() -> Iterator[None]:
            server.stop()
            yield
            server.ensure_postgres_running()

        with bench(given, tuning=IMPATIENT) as tasks:
            ids = run_through(tasks, stopped(), caplog)

        assert_whole(stored(given), ids)
        stored(given).store.close()
    finally:
        server.cleanup()
        shutil.rmtree(directory, ignore_errors=True)


def test_a_server_that_is_read_only_for_a_while_refuses_no_run_and_gets_all_in_order(
    bench, settings, stored, monkeypatch, caplog, postgres
):
    original = Store.publish
    order: list[str] = []

    def publish(store: Store, bundles: Any) -> None:
        original(store, bundles)
        order.extend(bundle.run.task_id for bundle in bundles)

    monkeypatch.setattr(Store, "publish", publish)

    @contextmanager
    def read_only() -> Iterator[None]:
        postgres.execute("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        try:
            yield
        finally:
            postgres.execute("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")

    with postgres.database() as name:
        given = settings(task_diagnostics=["memory"], database_url=postgres.url(name))
        with bench(given, tuning=IMPATIENT) as tasks:
            ids = run_through(tasks, read_only(), caplog)

        assert "read-only" in warnings_of(caplog)[0]
        assert order == ids
        assert_whole(stored(given), ids)
        assert list(given.spool.iterdir()) == []
        stored(given).store.close()


def test_a_server_that_answers_and_takes_nothing_is_tried_less_and_less(bench, settings, postgres):
    with postgres.database() as name:
        given = settings(task_diagnostics=["memory"], database_url=postgres.url(name), shutdown_timeout=0.1)
        with bench(given, tuning=IMPATIENT) as tasks:
            tasks.run(lambda: None, actor_name="before")
            postgres.execute(
                f"ALTER DATABASE {name} SET default_transaction_read_only = on",
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
            )
            tasks.actor(lambda: None, actor_name="after").send()
            publisher = tasks.diagnostics.process.publisher
            shortest_s, _ = IMPATIENT.backoff_s
            eventually(lambda: publisher.thread.pause_left_s > 2.5 * shortest_s, "the third pause, at least")


def test_a_blob_directory_that_was_removed_is_used_again_once_someone_says_it_is_lost(
    bench, settings, stored, store_of, caplog
):
    given = settings(task_diagnostics=["memory"])
    with bench(given, tuning=IMPATIENT) as tasks:
        before = tasks.run(lambda: None, actor_name="before")
        # Given a blob directory that was removed with all that was in it
        shutil.rmtree(given.blob_dir)
        message = tasks.actor(lambda: None, actor_name="after").send()
        finish(tasks.broker, tasks.worker, "tasks")
        eventually(lambda: [text for text in warnings_of(caplog) if "is away" in text], "the warning")
        assert not tasks.diagnostics.flush(0.1)
        # When someone says so
        findings = check(store_of(given), fix=True, blobs_lost=True)
        # Then the worker goes on, without a restart
        assert len(findings.missing_blobs) == 1
        assert tasks.diagnostics.flush(PATIENCE_S)

    assert stored(given).artifacts(before)["memory_profile"].status == ArtifactStatus.FAILED
    assert stored(given).artifacts(message.message_id)["memory_profile"].status == ArtifactStatus.STORED
    assert not stored(given).check()


def test_a_database_that_is_slow_makes_no_task_wait(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    original = Store.publish
    tasks_done: list[int] = []

    def slow(store: Store, bundles: Any) -> None:
        done = len(tasks_done)
        eventually(lambda: len(tasks_done) > done or len(tasks_done) == _TASKS, "tasks go on meanwhile")
        original(store, bundles)

    monkeypatch.setattr(Store, "publish", slow)
    with bench(given, tuning=IMPATIENT) as tasks:
        actor = tasks.actor(lambda: tasks_done.append(1), actor_name="work")
        ids = [actor.send().message_id for _ in range(_TASKS)]
        tasks.finish()

    assert_whole(stored(given), ids)
