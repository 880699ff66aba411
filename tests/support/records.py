"""Runs and artifacts as a publisher hands them to the store."""

from __future__ import annotations

import io
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.records import ArtifactRecord, FinishedRun, RunRecord

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
