"""Ten million runs in PostgreSQL: fills them, then asks the web application for lists, runs and metrics."""

# ruff: noqa: S608 - the statements are put together from names of tables.

from __future__ import annotations

import gc
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import sqlalchemy
from falcon.testing import TestClient
from sqlalchemy import Table, event, text

from dramatiq_diag import Settings
from dramatiq_diag.documents.fields import task_href
from dramatiq_diag.store.counters import BUCKETS, Series
from dramatiq_diag.store.cursors import FIGURES, Sort, write_cursor
from dramatiq_diag.store.models import Artifact, Counter, TaskRun
from dramatiq_diag.store.store import Store
from dramatiq_diag.web import create_app

from .publisher import postgresql, served_postgresql
from .result import Result, percentile
from .serving import TYPES

_RUNS = int(os.environ.get("BENCH_LARGE_RUNS", "10_000_000"))
_ANSWERS = int(os.environ.get("BENCH_LARGE_ANSWERS", "200"))
#: Where the database is kept and found again, so that it is filled once; without it a temporary one is made.
_DIRECTORY = os.environ.get("BENCH_LARGE_DIRECTORY", "")
_BATCH = 250_000
#: Statements of the fill at a time.
_CONNECTIONS = 2
_DAYS = 30
#: The budgets are for so many runs; with fewer there is no verdict.
_BUDGET_RUNS = 10_000_000
_FILL_BUDGET_S = 600.0
_BUDGET_MS = 50.0
#: Where the cursor of a deep page is: after so many runs.
_DEEP = _RUNS // 2

_RUN, _ARTIFACT, _COUNTER = TaskRun.__tablename__, Artifact.__tablename__, Counter.__tablename__

#: The runs from number *first* to *last*, of 50 actors of which one has a quarter of all runs, and of one with a run in
#: 100,000. Each 50th run is another attempt at the task of an earlier one. The last 20 are running.
_FILL_RUNS = f"""
INSERT INTO {_RUN} (run_id, task_key, task_id, actor_name, queue_name, status, started_at, finished_at, duration_ms,
  collection_ms, queue_wait_ms, peak_rss_bytes, hostname, pid, exception_type, exception_message, overlapped_task_ids)
SELECT md5('run ' || n)::uuid, left(encode(sha256(convert_to(task_id, 'UTF8')), 'hex'), 32), task_id, actor_name,
  queue_name, status, started_at,
  CASE WHEN status <> 'running' THEN started_at + duration_ms * interval '1 millisecond' END,
  CASE WHEN status <> 'running' THEN duration_ms END, 0.4, queue_wait_ms,
  CASE WHEN status <> 'running' THEN peak_rss_bytes END, 'worker-' || n % 8, 100 + n % 100,
  CASE WHEN status = 'failed' THEN 'ValueError' END, CASE WHEN status = 'failed' THEN 'no such thing' END, '[]'
FROM (
  SELECT n,
    md5('task ' || CASE WHEN n % 50 = 0 THEN n - 49 ELSE n END)::uuid::text AS task_id,
    actor_name,
    CASE WHEN actor_name IN ('nightly', 'actor_49') THEN 'reports' WHEN actor_name LIKE '%5' THEN 'mail'
      ELSE 'default' END AS queue_name,
    CASE WHEN n > :runs - 20 THEN 'running' WHEN n % 500 = 1 THEN 'interrupted' WHEN n % 100 = 2 THEN 'skipped'
      WHEN n % 33 = 3 THEN 'failed' ELSE 'succeeded' END AS status,
    CAST(:now AS timestamptz) - (:runs - n) * interval '1 second' * :step_s AS started_at,
    exp(random_normal(5, 1.5)) AS duration_ms,
    exp(random_normal(3, 1.5)) AS queue_wait_ms,
    CASE WHEN random() < 0.9 THEN exp(random_normal(18.5, 0.5))::bigint END AS peak_rss_bytes
  FROM (
    SELECT n, CASE WHEN n % 100000 = 7 THEN 'nightly' ELSE 'actor_' || floor(50 * power(random(), 3)) END AS actor_name
    FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n
  ) AS chosen
) AS made
"""
#: Each run of the last three days has a memory log; it is still there of those that started within the last day.
_FILL_ARTIFACTS = f"""
INSERT INTO {_ARTIFACT} (artifact_id, run_id, name, status, reason, filename, media_type, blob_name, size_bytes, sha256,
  published_at, expires_at)
SELECT md5(run_id::text)::uuid, run_id, 'memory_profile', CASE WHEN is_new THEN 'stored' ELSE 'expired' END,
  CASE WHEN NOT is_new THEN 'Removed by the cleanup, after its protection time.' END, 'memory.datum', 'text/plain',
  '20261101/' || md5(run_id::text)::uuid, 400, repeat('0', 64), finished_at, finished_at + interval '1 day'
FROM (SELECT run_id, finished_at, started_at > now() - interval '1 day' AS is_new FROM {_RUN}
      WHERE status <> 'running' AND started_at > now() - interval '3 days') AS run
"""
_COLUMNS = f"INSERT INTO {_COUNTER} (actor_name, queue_name, series, label, value) SELECT"
_FILL_COUNTERS = (
    f"""
{_COLUMNS} actor_name, queue_name, '{Series.RUNS}', status, count(*) FROM {_RUN} WHERE status <> 'running'
GROUP BY actor_name, queue_name, status
""",
    f"""
{_COLUMNS} actor_name, '', '{Series.STORED_RUNS}', '', count(*) FROM {_RUN} WHERE status <> 'running'
GROUP BY actor_name
""",
    f"""
{_COLUMNS} actor_name, '', '{Series.STORED_FAILED_RUNS}', '', count(*) FROM {_RUN}
WHERE status IN ('failed', 'interrupted') GROUP BY actor_name
""",
    f"""
{_COLUMNS} run.actor_name, '', series, artifact.name, sum(CASE series WHEN 'stored_bytes' THEN size_bytes ELSE 1 END)
FROM {_ARTIFACT} AS artifact JOIN {_RUN} AS run USING (run_id),
  (VALUES ('{Series.STORED_ARTIFACTS}'), ('{Series.STORED_BYTES}')) AS kind (series)
WHERE artifact.status = 'stored' GROUP BY run.actor_name, series, artifact.name
""",
)
#: A bucket of a histogram, and its sum.
_FILL_HISTOGRAM = f"""
INSERT INTO {_COUNTER} (actor_name, queue_name, series, label, value, exemplar_run_id, exemplar_value, exemplar_at)
SELECT actor_name, queue_name, :series, (CAST(:labels AS text[]))[1 + width_bucket(figure, CAST(:bounds AS float8[]))],
  count(*), (array_agg(run_id))[1], max(figure), max(finished_at)
FROM (SELECT *, CAST({{figure}} AS float8) AS figure FROM {_RUN} WHERE status <> 'running') AS run
WHERE figure IS NOT NULL GROUP BY 1, 2, 4
UNION ALL
SELECT actor_name, queue_name, :series, 'sum', sum({{figure}}), NULL, NULL, NULL FROM {_RUN}
WHERE status <> 'running' GROUP BY 1, 2
"""
_FIGURES = {
    Series.RUN_SECONDS: "duration_ms / 1000",
    Series.RUN_QUEUE_SECONDS: "queue_wait_ms / 1000",
    Series.RUN_PEAK_RSS_BYTES: "peak_rss_bytes",
}


def run() -> Iterator[Result]:
    """Yields the time of the fill, then a row for each path."""
    server = served_postgresql(Path(_DIRECTORY)) if _DIRECTORY else postgresql()
    with server as url, tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_large_") as data_dir:
        settings = Settings(data_dir=data_dir, database_url=url)
        store = Store(settings)
        store.open()
        if not _is_filled(store):
            yield _fill_result(store)
        yield from measure(store)
        store.close()


def _is_filled(store: Store) -> bool:
    with store.session() as session:
        return session.execute(sqlalchemy.select(TaskRun.run_id).limit(1)).first() is not None


def _fill_result(store: Store) -> Result:
    started = time.perf_counter()
    fill(store)
    spent_s = time.perf_counter() - started
    return Result(
        what=f"fill of {_RUNS:,} runs",
        budget=f"{_FILL_BUDGET_S:.0f} s",
        measured=f"{spent_s:.0f} s, {_size_gib(store):.1f} GiB in the database",
        met=_verdict(spent_s <= _FILL_BUDGET_S),
    )


def fill(store: Store) -> None:
    """Writes the runs of thirty days, inside the server: without indexes, which are built in the end."""
    tables: list[Table] = [TaskRun.__table__, Artifact.__table__]  # type: ignore[list-item]
    indexes = [index for table in tables for index in table.indexes]
    engine = sqlalchemy.create_engine(store.settings.database, isolation_level="AUTOCOMMIT")
    event.listen(engine, "connect", _hasten)

    def execute(statement: str, parameters: dict[str, Any] | None = None) -> None:
        with engine.connect() as connection:
            connection.execute(text(statement), parameters or {})

    step_s = _DAYS * 86400 / _RUNS
    batches = [
        {
            "first": first,
            "last": min(first + _BATCH - 1, _RUNS),
            "runs": _RUNS,
            "step_s": step_s,
            "now": datetime.now(UTC),
        }
        for first in range(1, _RUNS + 1, _BATCH)
    ]
    for setting in ("max_wal_size = '4GB'", "fsync = off", "full_page_writes = off"):  # A crash only costs a benchmark.
        execute(f"ALTER SYSTEM SET {setting}")
    execute("SELECT pg_reload_conf()")
    for table in (_ARTIFACT, _RUN):  # The log of ten million rows is as large as these. Reading is the same without it.
        execute(f"ALTER TABLE {table} SET UNLOGGED")
    for index in indexes:
        index.drop(engine)
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for made in [pool.submit(execute, _FILL_RUNS, batch) for batch in batches]:
            made.result()
        summaries = [pool.submit(execute, statement) for statement in (_FILL_ARTIFACTS, *_FILL_COUNTERS[:3])]
        for series, figure in _FIGURES.items():
            labels = [*map(str, BUCKETS[series]), "+Inf"]
            parameters = {"series": series.value, "labels": labels, "bounds": list(BUCKETS[series])}
            summaries.append(pool.submit(execute, _FILL_HISTOGRAM.format(figure=figure), parameters))
        for made in [*summaries, *(pool.submit(index.create, engine) for index in indexes)]:
            made.result()
    for statement in (*_FILL_COUNTERS[3:], "VACUUM ANALYZE"):  # Autovacuum analyzes within minutes.
        execute(statement)
    engine.dispose()


def _hasten(connection: Any, _: Any) -> None:
    settings = (
        "statement_timeout = 0",
        "synchronous_commit = off",
        "maintenance_work_mem = '512MB'",
        "work_mem = '128MB'",
    )
    for setting in settings:
        connection.execute(f"SET {setting}")


def _size_gib(store: Store) -> float:
    with store.session() as session:
        return float(session.execute(text("SELECT pg_database_size(current_database())")).scalar_one()) / 1024**3


def measure(store: Store) -> Iterator[Result]:
    """Yields a row for each path: as JSON, and as a page where there is one."""
    app = create_app(store.settings, insecure=True)
    client = TestClient(app, headers={"Host": "localhost"})
    gc.collect()
    gc.freeze()  # As `dramatiq-diag serve` does.
    with closing(app):
        for what, (paths, types, budget_ms) in _paths(store).items():
            spent = {kind: _spent(client, store, paths, TYPES.get(kind, "*/*")) for kind in types}
            yield Result(
                what=f"{what}, of {_RUNS:,} runs in PostgreSQL",
                budget=f"p99 {budget_ms:.0f} ms",
                measured="; ".join(f"{kind} {each}" for kind, each in spent.items()),
                met=_verdict(all(percentile(each.worked_ms, 99) <= budget_ms for each in spent.values())),
            )


@dataclass(frozen=True, kw_only=True)
class _Spent:
    """The milliseconds of each answer of a path."""

    worked_ms: list[float]
    "Processor time of the application and of the database's process; it is judged, as other work does not change it."
    passed_ms: list[float]

    def __str__(self) -> str:
        texts = (
            f"{statistics.median(ms):.1f}, p99 {percentile(ms, 99):.1f}" for ms in (self.worked_ms, self.passed_ms)
        )
        return "{} ms of work ({} ms passed)".format(*texts)


def _spent(client: Any, store: Store, paths: list[str], media_type: str) -> _Spent:
    """Asks for each path in turn, twice before the measurement."""
    spent = _Spent(worked_ms=[], passed_ms=[])
    processes: list[int] = []
    for number in range(-2, _ANSWERS):
        path = paths[number % len(paths)]
        processes = processes if number > 0 else _processes(store)
        started = time.perf_counter(), _worked_s(processes)
        answer = client.simulate_get(path, headers={"Accept": media_type})
        ended = time.perf_counter(), _worked_s(processes)
        assert answer.status_code == 200, f"{path} answers {answer.status_code}: {answer.text}"
        if number >= 0:
            spent.passed_ms.append((ended[0] - started[0]) * 1000)
            spent.worked_ms.append((ended[1] - started[1]) * 1000)
    return spent


def _processes(store: Store) -> list[int]:
    """Returns: The process ids of the database's connections."""
    with store.session() as session:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
        return list(session.execute(text(query)).scalars())


def _worked_s(processes: list[int]) -> float:
    """Returns: The processor time of this process and of others."""
    others_ns = sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in processes)
    return time.process_time() + others_ns / 1e9


_Paths = tuple[list[str], tuple[str, ...], float]


def _paths(store: Store) -> dict[str, _Paths]:
    """Returns: What is asked for -> its paths, media types and budget in milliseconds."""
    deep = _deep_cursors(store)
    now = datetime.now(UTC)
    day, middle = timedelta(days=1), now - timedelta(days=_DAYS / 2)
    queries: dict[str, dict[str, str]] = {
        "all": {},
        "all, deep": {"cursor": deep["newest"]},
        "of the largest actor": {"actor": "actor_0"},
        "of a rare actor": {"actor": "nightly"},
        "of a queue": {"queue": "mail"},
        "of a rare queue": {"queue": "reports"},
        "failed": {"status": "failed"},
        "interrupted": {"status": "interrupted"},
        "running": {"status": "running"},
        "interrupted, of an actor": {"status": "interrupted", "actor": "actor_20"},
        "failed, of a queue, deep": {"status": "failed", "queue": "mail", "cursor": deep["newest"]},
        "by one digit of task ids": {"task_id": "0"},
        "by three digits of task ids": {"task_id": "0a1"},
        "by six digits of task ids": {"task_id": _known(store)[0][:6]},
        "by a beginning that no task id has": {"task_id": "zzz"},
        "of a day": {"since": _text(middle - day), "until": _text(middle)},
        "of an actor before a day": {"actor": "actor_30", "until": _text(middle)},
        "of ten seconds or more": {"min_duration_s": "10"},
        "of 800 MB or more": {"min_peak_rss_mib": "800"},
        "slowest first": {"sort": "slowest"},
        "slowest first, deep": {"sort": "slowest", "cursor": deep["slowest"]},
        "slowest first, of an actor": {"sort": "slowest", "actor": "actor_20"},
        "slowest first, of a rare actor": {"sort": "slowest", "actor": "nightly"},
        "most memory first": {"sort": "memory"},
        "most memory first, of an actor": {"sort": "memory", "actor": "actor_20"},
    }
    both = tuple(TYPES)
    found: dict[str, _Paths] = {
        f"runs, {what}": ([f"/tasks/?{urlencode(query)}"], both, _BUDGET_MS) for what, query in queries.items()
    }
    tasks = [task_href(task_id) for task_id in _known(store)]
    return found | {
        "a task, and the page of its run": (tasks, both, _BUDGET_MS),
        "`profile_artifacts`": ([f"{task}profile_artifacts/" for task in tasks], ("JSON",), 5.0),
        "actors": (["/actors/"], both, _BUDGET_MS),
        "actors, of the last hour": (["/actors/?since=1h"], both, _BUDGET_MS),
        "actors, of the last day": (["/actors/?since=24h"], both, _BUDGET_MS),
        "the largest actor": (["/actors/actor_0/"], both, _BUDGET_MS),
        "a rare actor": (["/actors/nightly/"], both, _BUDGET_MS),
        "`/metrics`": (["/metrics"], ("OpenMetrics",), _BUDGET_MS),
    }


def _text(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _known(store: Store) -> list[str]:
    """Returns: The ids of tasks of all ages, in a fixed order."""
    with store.session() as session:
        numbers = [(7919 * at) % _RUNS + 1 for at in range(1000)]
        query = "SELECT md5('task ' || n)::uuid::text FROM unnest(CAST(:numbers AS bigint[])) AS n WHERE n % 50 <> 0"
        return list(session.execute(text(query), {"numbers": numbers}).scalars())


def _deep_cursors(store: Store) -> dict[str, str]:
    """Returns: Order -> the cursor of a page in the middle of all runs."""
    found = {}
    with store.session() as session:
        session.execute(text("SET LOCAL statement_timeout = 0"))
        for sort in (Sort.NEWEST, Sort.SLOWEST):
            column = FIGURES[sort]
            position = sqlalchemy.select(TaskRun.run_id).where(column.is_not(None)).order_by(column, TaskRun.run_id)
            run_id = session.execute(position.offset(_DEEP).limit(1)).scalar_one()
            deep = session.get(TaskRun, run_id)
            assert deep is not None
            found[sort.value] = write_cursor(sort, deep)
    return found


def _verdict(met: bool) -> bool | None:
    return met if _RUNS >= _BUDGET_RUNS else None
