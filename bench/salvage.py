"""What 40,000 runs of a dead worker cost the one that salvages them, and how soon its own are seen meanwhile."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import dramatiq
from falcon.testing import TestClient

from dramatiq_diag import Settings
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.store.store import Store
from dramatiq_diag.web import create_app

from .publisher import one_message
from .result import Result, percentile
from .worker import worker

_ENTRIES = (10_000, 40_000)

#: Runs of the worker's own while it salvages the larger number.
_OWN_RUNS = 60


def run() -> Iterator[Result]:
    """Yields a row for what a salvage costs for each run, and one for the worker's own runs meanwhile."""
    low_us, high_us = (_cpu_us(count) for count in _ENTRIES)
    yield Result(
        what=f"salvage of {_ENTRIES[1]:,} runs that a dead worker left, with `memory`: CPU time for each",
        budget=f"1.2 times that of {_ENTRIES[0]:,} runs",
        measured=f"{high_us:.0f} us, {high_us / low_us:.2f} times",
        reference=f"{_ENTRIES[0]:,} runs: {low_us:.0f} us",
        met=high_us <= 1.2 * low_us,
    )
    delays_ms = _delays_ms(_ENTRIES[1])
    p99_ms = percentile(delays_ms, 99)
    yield Result(
        what=f"sealed run visible over HTTP meanwhile, {len(delays_ms)} runs",
        budget="1 s",
        measured=f"{statistics.median(delays_ms):.0f} ms, p99 {p99_ms:.0f} ms",
        met=p99_ms <= 1000,
    )


def _cpu_us(count: int) -> float:
    """Returns: Microseconds of CPU time for each run, all in all."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_salvage_") as data_dir:
        settings = Settings(data_dir=data_dir)
        _leave_behind(settings.spool, count)
        with closing(Store(settings)) as store:
            store.open()
            started = time.process_time()
            salvaged = Delivery(Spool(settings), store).salvage()
            assert salvaged.recovered_runs == count
            return (time.process_time() - started) / count * 1e6


def _delays_ms(count: int) -> list[float]:
    """Returns: How long each of the worker's own runs took to be seen while it salvages."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_salvage_") as spool:
        _leave_behind(Path(spool), count)
        delays_ms = []
        with (
            worker(task_diagnostics=["memory"], spool_dir=spool, shutdown_timeout=0.1) as (broker, diagnostics),
            closing(create_app(diagnostics.settings, insecure=True)) as app,
        ):
            actor = dramatiq.actor(lambda: None, actor_name="nothing", broker=broker)
            client = TestClient(app, headers={"Host": "localhost"})
            for _ in range(_OWN_RUNS):
                task_id = one_message(broker, diagnostics, actor)
                ended = time.perf_counter()
                while client.simulate_get(f"/tasks/{task_id}/profile_artifacts/").status_code != 200:
                    time.sleep(0.02)
                delays_ms.append((time.perf_counter() - ended) * 1000)
                time.sleep(0.1)
            assert any(Path(spool).glob("*/*.entry")), "the salvage was over too soon"
        return delays_ms


def _leave_behind(spool: Path, count: int) -> None:
    owner = spool / str(uuid.uuid4())
    owner.mkdir(mode=0o700, parents=True)
    for number in range(count):
        run_id, now = uuid.uuid4(), datetime.now(UTC).isoformat()
        artifact = {"name": "memory_profile", "filename": "memory.datum", "media_type": "text/plain"}
        run = {"run_id": str(run_id), "task_id": f"left-{number}", "actor_name": "work", "queue_name": "default"}
        records = [
            {"run": run | {"started_at": now, "hostname": "host", "pid": 1, "artifacts": [artifact]}},
            {"to": "memory_profile", "text": "0.000\t100.000\n"},
            {"end": {"status": "succeeded", "finished_at": now, "duration_ms": 1.0}},
        ]
        text = "".join(f"\n{json.dumps(record)}\n" for record in records)
        (owner / f"{run_id}.entry").write_text(text)
