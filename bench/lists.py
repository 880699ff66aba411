"""The lists over HTTP with 100,000 runs of 50 actors stored: the first page of each filter and of each order."""

from __future__ import annotations

import http.client
import os
import random
import statistics
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy import insert

from dramatiq_diag import Settings
from dramatiq_diag.documents.fields import task_href
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.models import TaskRun
from dramatiq_diag.store.records import FinishedRun, RunRecord
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.values import task_key

from .publisher import postgresql
from .records import memory_log
from .result import Result, percentile
from .serving import TYPES, answers_ms, served

_RUNS = int(os.environ.get("BENCH_LIST_RUNS", "100_000"))
_BATCH = 10_000
_ANSWERS = 100
_BUDGET_MS = 100.0
#: Runs of the first page, which have the memory log of an hour each.
_NEWEST = 50
_LOG = "# Seconds\tMegabytes\n" + "".join(f"{2 * at}.000\t{100 + at % 50}.250\n" for at in range(1800))

#: Of a thousand runs, so many.
_STATUSES = {
    RunStatus.SUCCEEDED: 958,
    RunStatus.FAILED: 30,
    RunStatus.SKIPPED: 10,
    RunStatus.INTERRUPTED: 2,
}


def run() -> Iterator[Result]:
    """Yields a row for each list and database."""
    with postgresql() as url, tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_lists_") as directory:
        for database, changes in (("SQLite", {}), ("PostgreSQL", {"database_url": url})):
            settings = Settings(data_dir=Path(directory, database), **changes)
            fill(settings)
            newest = _publish_newest(settings)
            with served(settings) as connection:
                for what, path in (_paths() | {"one run": task_href(newest)}).items():
                    yield _measured(connection, f"{what}, {database}", path)


def _paths() -> dict[str, str]:
    """Returns: What is asked for -> its path; the first page of the runs, and the actors."""
    now = datetime.now(UTC)
    queries: dict[str, dict[str, str]] = {
        "all": {},
        "of an actor": {"actor": "actor_0"},
        "of a rare actor": {"actor": "actor_49"},
        "of a queue": {"queue": "mail"},
        "of a rare queue": {"queue": "reports"},
        "failed": {"status": "failed"},
        "interrupted": {"status": "interrupted"},
        "running, none": {"status": "running"},
        "by how a task's id begins": {"task_id": "00a"},
        "of the last hour": {"since": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}"},
        "older than two days": {"until": f"{now - timedelta(days=2):%Y-%m-%dT%H:%M:%SZ}"},
        "of ten seconds or more": {"min_duration_s": "10"},
        "of two milliseconds or less": {"max_duration_s": "0.002"},
        "of 800 MB or more": {"min_peak_rss_mib": "800"},
        "of the quickest actor, slowest first": {"actor": "actor_0", "sort": "slowest"},
        "of the quickest actor, a second or more": {"actor": "actor_0", "min_duration_s": "1"},
        "of an actor, failed, none": {"actor": "actor_0", "status": "failed"},
        "of an actor, the last hour, slowest first": {
            "actor": "actor_0",
            "since": f"{now - timedelta(hours=1):%Y-%m-%dT%H:%M:%SZ}",
            "sort": "slowest",
        },
        "slowest first": {"sort": "slowest"},
        "most memory first": {"sort": "memory"},
    }
    lists = {f"runs, {what}": f"/tasks/?{urlencode(query)}" for what, query in queries.items()}
    return lists | {"actors": "/actors/", "one actor": "/actors/actor_0/"}


def _measured(connection: http.client.HTTPConnection, what: str, path: str) -> Result:
    figures_ms = {name: answers_ms(connection, path, kind, _ANSWERS) for name, kind in TYPES.items()}
    tails_ms = {name: percentile(spent_ms, 99) for name, spent_ms in figures_ms.items()}
    texts = (
        f"{name} {statistics.median(spent_ms):.1f} ms, p99 {tails_ms[name]:.1f} ms"
        for name, spent_ms in figures_ms.items()
    )
    return Result(
        what=f"{what}, with {_RUNS:,} stored",
        budget=f"{_BUDGET_MS:.0f} ms",
        measured="; ".join(texts),
        met=all(statistics.median(spent_ms) <= _BUDGET_MS for spent_ms in figures_ms.values()),
    )


def fill(settings: Settings) -> None:
    """Writes runs of the last three days, as a busy installation has them."""
    store = Store(settings)
    store.open()
    chance = random.Random(7)  # noqa: S311
    first = datetime.now(UTC) - timedelta(days=3)
    step = timedelta(days=3) / _RUNS
    for start in range(0, _RUNS, _BATCH):
        rows = [_row(chance, first + number * step) for number in range(start, start + _BATCH)]
        with store.session() as session:
            session.connection().execute(insert(TaskRun), rows)
    if store.engine.dialect.name == "postgresql":  # What autovacuum does within a minute.
        with store.session() as session:
            session.connection().exec_driver_sql("ANALYZE")
    store.close()


def _publish_newest(settings: Settings) -> str:
    """Publishes what the first page shows. Returns: The id of one of the tasks."""
    store = Store(settings)
    store.open()
    now = datetime.now(UTC)
    log = memory_log(_LOG.encode())
    for number in range(_NEWEST):
        run = RunRecord(
            run_id=uuid.uuid4(),
            task_id=f"new-{number}",
            actor_name="actor_0",
            queue_name="default",
            status=RunStatus.SUCCEEDED,
            started_at=now,
            finished_at=now + timedelta(hours=1),
            duration_ms=3_600_000.0,
            peak_rss_bytes=150 * 1024**2,
            hostname="worker-1",
            pid=100,
        )
        store.publish([FinishedRun(run=run, artifacts=[log])])
    store.close()
    return run.task_id


def _row(chance: random.Random, started_at: datetime) -> dict[str, Any]:
    task_id = str(uuid.UUID(int=chance.getrandbits(128)))
    actor = int(50 * chance.random() ** 2)
    # Actors differ, as they do: a list of one actor cannot be read from the first of all runs.
    status = RunStatus.SUCCEEDED if actor % 5 == 0 else chance.choices(list(_STATUSES), list(_STATUSES.values()))[0]
    duration_ms = chance.lognormvariate(actor % 10, 0.5)
    return {
        "run_id": uuid.UUID(int=chance.getrandbits(128)),
        "task_key": task_key(task_id),
        "task_id": task_id,
        "actor_name": f"actor_{actor}",
        "queue_name": chance.choices(("default", "mail", "reports"), (900, 99, 1))[0],
        "status": status,
        "started_at": started_at,
        "finished_at": started_at + timedelta(milliseconds=duration_ms),
        "duration_ms": duration_ms,
        "peak_rss_bytes": int(chance.lognormvariate(18.5, 0.5)) if chance.random() < 0.9 else None,
        "hostname": f"worker-{chance.randrange(8)}",
        "pid": chance.randrange(100, 200),
        "exception_type": "ValueError" if status is RunStatus.FAILED else None,
        "exception_message": "no such thing" if status is RunStatus.FAILED else None,
        "exception_traceback": "Traceback (most recent call last):\n" + "  line\n" * 80
        if status is RunStatus.FAILED
        else None,
        "overlapped_task_ids": [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(chance.randrange(5))],
    }
