"""The reports of a capture of 50 MB over HTTP: how long each takes, and again once it is kept."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from dramatiq_diag import Settings
from dramatiq_diag.reports.process import TIMEOUT_S
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.records import ArtifactRecord, FinishedRun, RunRecord, artifact_id
from dramatiq_diag.store.store import Store

from .result import Result, percentile
from .serving import answer_ms, answers_ms, served

_CAPTURE_BYTES = 50 * 1024**2
_ANSWERS = 50
_KEPT_BUDGET_MS = 20.0
_KINDS = ("flamegraph", "flamegraph-process", "tree", "calltree")

#: Allocates until the capture has that size: many small objects by many lines of many functions, as programs do.
_ALLOCATE = """
import ast, os, sys, memray
path, size_bytes = sys.argv[1], int(sys.argv[2])
source = open(ast.__file__).read()
with memray.Tracker(
    destination=memray.FileDestination(path, compress_on_exit=False), file_format=memray.FileFormat.ALL_ALLOCATIONS,
    trace_python_allocators=True,
):
    held = []
    while os.path.getsize(path) < size_bytes:
        held.append(ast.dump(ast.parse(source)))
"""


def run() -> Iterator[Result]:
    """Yields a row for each report."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_reports_") as directory:
        path = Path(directory, "memray.bin")
        subprocess.run([sys.executable, "-c", _ALLOCATE, str(path), str(_CAPTURE_BYTES)], check=True)  # noqa: S603
        settings = Settings(data_dir=Path(directory, "data"))
        address = f"/artifacts/{_publish(settings, path)}/reports"
        with served(settings) as connection:
            for kind in _KINDS:
                started = time.perf_counter()
                while (status := answer_ms(connection, f"{address}/{kind}", "application/json")[0]) == 202:
                    continue
                first_s = time.perf_counter() - started
                assert status == 200, f"{kind} answers {status}"
                kept_ms = answers_ms(connection, f"{address}/{kind}", "application/json", _ANSWERS)
                yield Result(
                    what=f"{kind} of a capture of {path.stat().st_size / 1024**2:.0f} MiB, and again",
                    budget=f"{TIMEOUT_S:.0f} s, {_KEPT_BUDGET_MS:.0f} ms",
                    measured=f"{first_s:.1f} s; {statistics.median(kept_ms):.1f} ms, p99 {percentile(kept_ms, 99):.1f}",
                    met=first_s <= TIMEOUT_S and statistics.median(kept_ms) <= _KEPT_BUDGET_MS,
                )


def _publish(settings: Settings, path: Path) -> uuid.UUID:
    """Returns: The id of the artifact."""
    store = Store(settings)
    store.open()
    now = datetime.now(UTC)
    run = RunRecord(
        run_id=uuid.uuid4(),
        task_id="large",
        actor_name="hoard",
        queue_name="default",
        status=RunStatus.SUCCEEDED,
        started_at=now,
        finished_at=now,
        hostname="here",
        pid=1,
    )
    artifact = ArtifactRecord(
        name="memray_profile",
        filename="memray.bin",
        media_type="application/octet-stream",
        stored_as=None,
        status=ArtifactStatus.STORED,
        open=lambda: path.open("rb"),
    )
    store.publish([FinishedRun(run=run, artifacts=[artifact])])
    store.close()
    return artifact_id(run.run_id, artifact.name)
