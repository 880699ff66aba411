"""Runs and artifacts as a publisher hands them to the store."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.blobs.base import Blob
from dramatiq_diag.store.records import ArtifactRecord, FinishedRun, RunRecord, artifact_id
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.values import task_key
from dramatiq_diag.store.workers import ExecutedTask, WorkerReport

from .blobs import put_one

NOW = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)


def run_record(**changes: Any) -> RunRecord:
    values = {
        "run_id": uuid.uuid4(),
        "task_id": str(uuid.uuid4()),
        "actor_name": "work",
        "queue_name": "default",
        "status": RunStatus.SUCCEEDED,
        "started_at": NOW,
        "finished_at": NOW + timedelta(seconds=1),
        "duration_ms": 1000.5,
        "hostname": "host",
        "pid": 4711,
    }
    return RunRecord(**values | changes)


def worker_report(**changes: Any) -> WorkerReport:
    values = {
        "worker_id": uuid.uuid4(),
        "hostname": "host",
        "pid": 4711,
        "version": "1",
        "spool_bytes": 0,
        "unpublished_s": None,
        "queues": ["default"],
        "threads": 8,
        "rss_bytes": 100_000_000,
        "cpu_s": 1.5,
        "diagnostics_cpu_s": 0.25,
        "tasks": [],
        "age_s": 0.0,
    }
    return WorkerReport(**values | changes)


def executed_task(task_id: str = "task", **changes: Any) -> ExecutedTask:
    values = {
        "task_key": task_key(task_id),
        "task_id": "shown",
        "run_id": None,
        "actor_name": "work",
        "queue_name": "default",
        "started_at": "2026-05-04T03:02:01.123456Z",
        "age_s": 2.5,
    }
    return ExecutedTask(**values | changes)


def artifact_record(data: bytes | None = b"0.000\t1.000\n", **changes: Any) -> ArtifactRecord:
    values: dict[str, Any] = {
        "name": "memory_profile",
        "filename": "memory.datum",
        "media_type": "text/plain",
        "stored_as": None,
        "status": ArtifactStatus.STORED if data is not None else ArtifactStatus.FAILED,
        "reason": None if data is not None else "nothing",
        "open": None if data is None else lambda: io.BytesIO(data),
    }
    return ArtifactRecord(**values | changes)


def bundle(run: RunRecord | None = None, *artifacts: ArtifactRecord) -> FinishedRun:
    return FinishedRun(run=run or run_record(), artifacts=artifacts or [artifact_record()])


def put_blob(store: Store, finished: FinishedRun) -> Blob:
    """Puts the blob of the only artifact of a run, as a publisher does before it writes the rows."""
    (artifact,) = finished.artifacts
    assert artifact.open is not None
    key = artifact_id(finished.run.run_id, artifact.name)
    return put_one(store.blobs, key, artifact.open(), finished.run.started_at.date())
