"""Every query that lists, finds or counts uses an index, on both databases with 200,000 runs."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from dramatiq_diag import Settings
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.actor_stats import list_actors, summarize_actor
from dramatiq_diag.store.attempts import attempts_around, count_attempts, find_attempt, list_attempts
from dramatiq_diag.store.captures import find_capture, list_captures
from dramatiq_diag.store.cursors import FIGURES, write_cursor
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.runs import (
    RunFilter,
    Sort,
    artifacts_of,
    children_of,
    find_run,
    list_runs,
    overlapping_runs,
    parent_of,
    traceback_of,
)
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.values import task_key
from dramatiq_diag.store.worker_actors import close_names, is_known

RUNS = 200_000
#: So many of the runs are attempts at one task.
ATTEMPTS = 50_000
PERIODIC = "periodic"
START = datetime(2026, 1, 1, tzinfo=UTC)
RUN_ID = uuid.UUID(int=4000)
COLUMNS = (
    "run_id, task_key, task_id, actor_name, queue_name, status, started_at, finished_at, duration_ms, peak_rss_bytes, "
    "hostname, pid, overlapped_task_ids, parent_run_id, trace_id, "
    "queue_wait_ms, cpu_ms, run_queue_ms, gc_ms, touched_bytes"
)

#: Each row `n` of a series becomes a run; a quarter of them are attempts at the periodic task. A tenth are of
#: `actor_3`. The runs of `actor_1` are the quickest, and all of them succeeded.
SQLITE_RUNS = f"""
WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {RUNS})
INSERT INTO {TaskRun.__tablename__} ({COLUMNS})
SELECT printf('%032x', n),
  CASE WHEN n % 4 = 0 THEN :key ELSE printf('%032x', n * 7919 % {RUNS}) END,
  CASE WHEN n % 4 = 0 THEN '{PERIODIC}' ELSE 'task-' || n END,
  CASE WHEN n % 10 = 3 THEN 'actor_3' ELSE 'actor_' || (n % 50) END,
  CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'default' END,
  CASE WHEN n % 50 = 1 THEN 'succeeded' WHEN n % 500 = 0 THEN 'interrupted'
    WHEN n % 30 = 0 THEN 'failed' ELSE 'succeeded' END,
  strftime('%Y-%m-%d %H:%M:%f', '2026-01-01', '+' || n || ' seconds') || '000',
  strftime('%Y-%m-%d %H:%M:%f', '2026-01-01', '+' || (n + 1) || ' seconds') || '000',
  CASE WHEN n % 50 = 1 THEN 20 + n % 7 ELSE n * 7919 % 100000 END,
  CASE WHEN n % 10 > 0 THEN 100000000 + n * 7919 % 900000000 END,
  'host_' || (n % 8), n % 100, '[]', CASE WHEN n % 100 = 0 THEN printf('%032x', n / 100) END,
  CASE WHEN n % 2 = 0 THEN printf('%032x', n % 500) END,
  n * 7919 % 90001, n * 7919 % 80021, n * 7919 % 70001, n * 7919 % 60013, 4096 * (n * 7919 % 50021)
FROM series
"""
POSTGRESQL_RUNS = f"""
INSERT INTO {TaskRun.__tablename__} ({COLUMNS})
SELECT lpad(to_hex(n), 32, '0')::uuid,
  CASE WHEN n %% 4 = 0 THEN %(key)s ELSE lpad(to_hex(n::bigint * 7919 %% {RUNS}), 32, '0') END,
  CASE WHEN n %% 4 = 0 THEN '{PERIODIC}' ELSE 'task-' || n END,
  CASE WHEN n %% 10 = 3 THEN 'actor_3' ELSE 'actor_' || (n %% 50) END,
  CASE WHEN n %% 1000 = 0 THEN 'rare' ELSE 'default' END,
  CASE WHEN n %% 50 = 1 THEN 'succeeded' WHEN n %% 500 = 0 THEN 'interrupted'
    WHEN n %% 30 = 0 THEN 'failed' ELSE 'succeeded' END,
  timestamptz '2026-01-01 00:00:00+00' + n * interval '1 second',
  timestamptz '2026-01-01 00:00:01+00' + n * interval '1 second',
  CASE WHEN n %% 50 = 1 THEN 20 + n %% 7 ELSE n::bigint * 7919 %% 100000 END,
  CASE WHEN n %% 10 > 0 THEN 100000000 + n::bigint * 7919 %% 900000000 END,
  'host_' || (n %% 8), n %% 100, '[]', CASE WHEN n %% 100 = 0 THEN lpad(to_hex(n / 100), 32, '0')::uuid END,
  CASE WHEN n %% 2 = 0 THEN lpad(to_hex(n %% 500), 32, '0') END,
  n::bigint * 7919 %% 90001, n::bigint * 7919 %% 80021, n::bigint * 7919 %% 70001, n::bigint * 7919 %% 60013,
  4096 * (n::bigint * 7919 %% 50021)
FROM generate_series(1, {RUNS}) AS n
"""
SQLITE_ARTIFACTS = f"""
INSERT INTO {Artifact.__tablename__}
  (artifact_id, run_id, name, status, filename, media_type, blob_name, size_bytes, sha256, published_at)
SELECT run_id, run_id, 'memory_profile', 'stored', 'memory.datum', 'text/plain', run_id, 7, '', started_at
FROM {TaskRun.__tablename__}
"""
POSTGRESQL_ARTIFACTS = SQLITE_ARTIFACTS.replace("'text/plain', run_id,", "'text/plain', run_id::text,")

Query = Callable[[Session], Any]


def of_page(wanted: RunFilter, sort: Sort = Sort.NEWEST) -> Query:
    """Reads the first page and the one after it."""

    def read(session: Session) -> None:
        _, cursor = list_runs(session, wanted, 50, None, sort)
        if cursor is not None:
            list_runs(session, wanted, 50, cursor, sort)

    return read


def attempts(session: Session) -> None:
    _, cursor = list_attempts(session, PERIODIC, 50)
    list_attempts(session, PERIODIC, 50, cursor)


def around(session: Session) -> None:
    run = find_run(session, RUN_ID)
    assert run is not None
    overlapping_runs(session, run)
    parent_of(session, run)
    children_of(session, RUN_ID)
    traceback_of(session, TaskRun(run_id=RUN_ID, exception_type="ValueError"))
    artifacts_of(session, [RUN_ID])


QUERIES: dict[str, Query] = {
    "all": of_page(RunFilter()),
    "slowest": of_page(RunFilter(), Sort.SLOWEST),
    "most memory": of_page(RunFilter(), Sort.MEMORY),
    **{str(sort): of_page(RunFilter(), sort) for sort in (Sort.QUEUE_WAIT, Sort.CPU, Sort.TOUCHED)},
    "actor": of_page(RunFilter(actor_name="actor_7")),
    "slowest of the quickest actor": of_page(RunFilter(actor_name="actor_1"), Sort.SLOWEST),
    "failed of an actor": of_page(RunFilter(actor_name="actor_7", status=RunStatus.FAILED)),
    "failed of an actor, none": of_page(RunFilter(actor_name="actor_1", status=RunStatus.FAILED)),
    "slow of an actor": of_page(RunFilter(actor_name="actor_7", min_duration_ms=50_000)),
    "all but the slowest of an actor": of_page(RunFilter(actor_name="actor_3", max_duration_ms=90_000)),
    "all but the smallest of an actor": of_page(RunFilter(actor_name="actor_3", min_peak_rss_bytes=1)),
    "failed of an actor, slowest first": of_page(
        RunFilter(actor_name="actor_7", status=RunStatus.FAILED), Sort.SLOWEST
    ),
    "lately of an actor, slowest first": of_page(
        RunFilter(actor_name="actor_7", started_since=START + timedelta(seconds=RUNS - 10_000)), Sort.SLOWEST
    ),
    "lately, slowest first": of_page(RunFilter(started_since=START + timedelta(seconds=RUNS - 2_000)), Sort.SLOWEST),
    # To see that the duration leaves many, 10,001 runs are counted for each page.
    "lately and not quick, slowest first": lambda session: list_runs(
        session,
        RunFilter(started_since=START + timedelta(seconds=RUNS - 200), min_duration_ms=10),
        50,
        None,
        Sort.SLOWEST,
    ),
    "failed of an actor and not quick, slowest first": of_page(
        RunFilter(actor_name="actor_3", status=RunStatus.FAILED, min_duration_ms=10), Sort.SLOWEST
    ),
    "slow and not small": of_page(RunFilter(min_duration_ms=99_000, min_peak_rss_bytes=1)),
    "slow and succeeded": of_page(RunFilter(min_duration_ms=99_000, status=RunStatus.SUCCEEDED)),
    "large of a queue": of_page(RunFilter(min_peak_rss_bytes=999_000_000, queue_name="default")),
    "all but the slowest of an actor, slowest first": of_page(
        RunFilter(actor_name="actor_3", max_duration_ms=90_000), Sort.SLOWEST
    ),
    "slow of an actor, none": of_page(RunFilter(actor_name="actor_1", min_duration_ms=30)),
    "queue": of_page(RunFilter(queue_name="rare")),
    "failed": of_page(RunFilter(status=RunStatus.FAILED)),
    "interrupted": of_page(RunFilter(status=RunStatus.INTERRUPTED)),
    "running, none": of_page(RunFilter(status=RunStatus.RUNNING)),
    "task": of_page(RunFilter(task_id="task-77")),
    "periodic task": of_page(RunFilter(task_id=PERIODIC)),
    "beginning of an id": of_page(RunFilter(task_id="task-7")),
    "beginning of few ids": of_page(RunFilter(task_id="task-7777")),
    "beginning of no id": of_page(RunFilter(task_id="other")),
    "since": of_page(RunFilter(started_since=START + timedelta(seconds=RUNS - 100))),
    "until": of_page(RunFilter(started_before=START + timedelta(seconds=1000))),
    "between": of_page(RunFilter(started_since=START + timedelta(days=1), started_before=START + timedelta(days=1.1))),
    "slow": of_page(RunFilter(min_duration_ms=99_000)),
    "quick": of_page(RunFilter(max_duration_ms=10)),
    "large": of_page(RunFilter(min_peak_rss_bytes=999_000_000)),
    "slow, most memory first": of_page(RunFilter(min_duration_ms=99_000), Sort.MEMORY),
    "large, slowest first": of_page(RunFilter(min_peak_rss_bytes=999_000_000), Sort.SLOWEST),
    "captured, none": of_page(RunFilter(capture_id=uuid.UUID(int=5))),
    "latest attempt": lambda session: find_attempt(session, PERIODIC),
    "an attempt": lambda session: find_attempt(session, PERIODIC, ATTEMPTS // 2),
    "attempts": attempts,
    "number of attempts": lambda session: count_attempts(session, PERIODIC),
    "attempts around one": lambda session: attempts_around(session, PERIODIC, 30_000, 5),
    "page of a run": around,
    "actors": list_actors,
    "an actor": lambda session: summarize_actor(session, "actor_7"),
    "of a trace": of_page(RunFilter(trace_id="0" * 31 + "7")),
    "of a trace, none": of_page(RunFilter(trace_id="f" * 32)),
    "captures": list_captures,
    "open captures": lambda session: list_captures(session, actor_name="actor_7", only_open=True),
    "a capture": lambda session: find_capture(session, uuid.UUID(int=5)),
    "known actor": lambda session: is_known(session, "actor_7"),
    "close names": lambda session: close_names(session, "actor"),
}


#: These find few runs by an index, and sort them.
FEW = (
    "captured, none",
    "beginning of few ids",
    "beginning of no id",
    "slow",
    "quick",
    "large",
    "slow, most memory first",
    "large, slowest first",
    "slow of an actor",
    "slow of an actor, none",
    "failed of an actor, slowest first",
    "lately of an actor, slowest first",
    "lately, slowest first",
    *(
        COMBINED := {
            "lately and not quick, slowest first": "_started_at_run_id",
            "failed of an actor and not quick, slowest first": "_actor_not_succeeded",
            "slow and not small": "_runs_duration_ms_run_id",
            "slow and succeeded": "_runs_duration_ms_run_id",
            "large of a queue": "_runs_peak_rss_bytes_run_id",
        }
    ),
)

#: These find what one actor alone has, or has not.
RARE = ("_actor_not_succeeded", "_actor_name_duration_ms_run_id")
OF_ACTOR = ("slowest of the quickest actor", "failed of an actor", "failed of an actor, none")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def full_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with 200,000 runs, with an artifact each; the tests of this module only read it."""
    directory = tmp_path_factory.mktemp("full")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DRAMATIQ_DIAG_DATABASE_URL", "DRAMATIQ_DIAG_BLOB_URL"):
            patch.delenv(name, raising=False)
        if request.param == "sqlite":
            store = Store(Settings(data_dir=directory))
            store.open()
            yield from _filled(store, SQLITE_RUNS, SQLITE_ARTIFACTS, "ANALYZE")
        else:
            server = request.getfixturevalue("postgres")
            with server.database() as name:
                store = Store(Settings(data_dir=directory, database_url=server.url(name)))
                store.open()
                yield from _filled(store, POSTGRESQL_RUNS, POSTGRESQL_ARTIFACTS, "VACUUM ANALYZE")
    shutil.rmtree(directory)


def _filled(store: Store, runs: str, artifacts: str, analyze: str) -> Iterator[Store]:
    indexes = [*TaskRun.__table__.indexes, *Artifact.__table__.indexes]
    with store.engine.begin() as connection:
        for index in indexes:
            index.drop(connection)
        connection.exec_driver_sql(runs, {"key": task_key(PERIODIC)})
        connection.exec_driver_sql(artifacts)
        for index in indexes:  # To build them at once takes a tenth of the time.
            index.create(connection)
    # SQLite has no statistics in use, so there the planner is asked without; PostgreSQL analyzes by itself.
    if store.engine.dialect.name == "postgresql":
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(analyze)
    yield store
    store.close()


@contextmanager
def statements(store: Store) -> Iterator[list[tuple[str, Any]]]:
    """Yields the list that every statement is put into with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if not statement.startswith(("PRAGMA", "SET ", "EXPLAIN")):
            seen.append((statement, parameters))

    event.listen(store.engine, "before_cursor_execute", note)
    yield seen
    event.remove(store.engine, "before_cursor_execute", note)


def plan(session: Session, statement: str, parameters: Any) -> list[str]:
    """Returns: The steps of the plan that read a table."""
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        return [row[3] for row in rows]
    (document,) = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).one()
    return list(_nodes((document if isinstance(document, list) else json.loads(document))[0]["Plan"]))


def _nodes(node: dict[str, Any]) -> Iterator[str]:
    yield f"{node['Node Type']} {node.get('Relation Name', '')} {node.get('Index Name', '')}".strip()
    for child in node.get("Plans", []):
        yield from _nodes(child)


def reads_whole_table(step: str) -> bool:
    """Returns: Whether a step reads every row of a large table from its heap."""
    tables = (TaskRun.__tablename__, Artifact.__tablename__)
    if step.startswith("Seq Scan"):
        return step.split()[2] in tables
    return step.startswith("SCAN") and " USING " not in step and step.split()[1].rstrip("_0123456789") in tables


@pytest.mark.parametrize("name", QUERIES)
def test_no_query_reads_a_whole_table(full_store: Store, name: str) -> None:
    with statements(full_store) as seen, full_store.session() as session:
        QUERIES[name](session)
        asked = list(seen)
        plans = {statement: plan(session, statement, parameters) for statement, parameters in asked}

    assert plans
    assert {statement: steps for statement, steps in plans.items() if any(map(reads_whole_table, steps))} == {}


def test_the_guard_sees_a_query_that_reads_a_whole_table(full_store: Store) -> None:
    query = select(TaskRun.run_id).where(TaskRun.hostname == "host_3", TaskRun.pid == 3)
    with statements(full_store) as seen, full_store.session() as session:
        session.execute(query).all()
        ((statement, parameters),) = list(seen)
        steps = plan(session, statement, parameters)

    assert any(map(reads_whole_table, steps))


@pytest.mark.parametrize(
    "name",
    [name for name, query in QUERIES.items() if query.__name__ == "read" and name not in FEW],
)
def test_no_list_is_sorted(full_store: Store, name: str) -> None:
    with statements(full_store) as seen, full_store.session() as session:
        QUERIES[name](session)
        lists = [found for found in seen if "LIMIT" in found[0] and "ORDER BY" in found[0]]
        plans = [plan(session, statement, parameters) for statement, parameters in lists]

    assert plans
    assert [steps for steps in plans if _is_sorted(steps)] == []


def _is_sorted(steps: list[str]) -> bool:
    """Returns: Whether rows are sorted; not where PostgreSQL sorts the few rows that another index has found."""
    found = any(step.startswith("Bitmap Index Scan") for step in steps)
    return "USE TEMP B-TREE FOR ORDER BY" in steps or ("Sort" in steps and not found)


@pytest.mark.parametrize("name", ["actors", "an actor", *FEW, *OF_ACTOR])
def test_the_rows_read_do_not_grow_with_the_runs(full_store: Store, name: str) -> None:
    with statements(full_store) as seen, full_store.session() as session:
        QUERIES[name](session)
        # To number the attempts at a task all its runs are counted: 50,000 of the periodic one.
        asked = [found for found in seen if "lag(" not in found[0]]
        read = sum(rows_read(session, statement, parameters) for statement, parameters in asked)

    if full_store.engine.dialect.name == "sqlite" and "beginning" in name:
        assert read == RUNS  # SQLite has no index of the beginnings of task ids.
        return
    # 50 actors, of each of which 100 durations are read; and up to 2,000 runs that match
    assert read < RUNS / 10


@pytest.mark.parametrize("name", OF_ACTOR)
def test_the_rare_runs_of_an_actor_have_an_index(full_store: Store, name: str) -> None:
    with statements(full_store) as seen, full_store.session() as session:
        QUERIES[name](session)
        steps = plan(session, *next(found for found in seen if "ORDER BY" in found[0]))

    (index,) = (index.name for index in TaskRun.__table__.indexes if index.name.endswith(RARE[name.startswith("slow")]))
    assert any(index in step for step in steps), steps


@pytest.mark.parametrize("name", [*COMBINED, "all but the slowest of an actor, slowest first"])
def test_runs_are_found_by_the_condition_that_leaves_few(full_store: Store, name: str) -> None:
    with statements(full_store) as seen, full_store.session() as session:
        QUERIES[name](session)
        (step, *_) = plan(session, *next(found for found in seen if "ORDER BY" in found[0]))

    used = COMBINED.get(name, "_actor_name_duration_ms_run_id (actor_name=? AND duration_ms>? AND duration_ms<?)")
    # PostgreSQL has statistics, and several ways to combine the conditions.
    assert not reads_whole_table(step)
    assert used in step or full_store.engine.dialect.name == "postgresql"


def test_the_first_of_many_runs_that_a_run_sent_are_not_sorted(full_store: Store) -> None:
    with statements(full_store) as seen, full_store.session() as session:
        children_of(session, RUN_ID)
        steps = plan(session, *next(found for found in seen if "ORDER BY" in found[0]))

    assert any("parent_run_id_started_at_run_id" in step for step in steps), steps
    assert not _is_sorted(steps)


@pytest.mark.parametrize("sort", [Sort.NEWEST, Sort.SLOWEST, Sort.MEMORY])
@pytest.mark.parametrize("least_ms", [10, 99_900], ids=["many", "few"])
def test_pages_have_all_runs_in_order_whether_they_are_many_or_few(
    full_store: Store, least_ms: int, sort: Sort
) -> None:
    wanted = RunFilter(actor_name="actor_3", min_duration_ms=least_ms)
    found: list[uuid.UUID] = []
    with full_store.session() as session:
        cursor: str | None = None
        for _ in range(3):
            runs, cursor = list_runs(session, wanted, 7, cursor, sort)
            found += [run.run_id for run in runs]
        of_actor = select(TaskRun.run_id, FIGURES[sort]).where(TaskRun.actor_name == "actor_3")
        rows = session.execute(of_actor.where(TaskRun.duration_ms >= least_ms)).all()

    known = [(figure, run_id) for run_id, figure in rows if figure is not None]
    assert found == [run_id for _, run_id in sorted(known, reverse=True)[:21]]


@pytest.mark.parametrize("sort", list(Sort))
def test_a_deep_page_begins_at_its_cursor(full_store: Store, sort: Sort) -> None:
    with full_store.session() as session:
        middle = select(TaskRun).where(FIGURES[sort].is_not(None)).order_by(FIGURES[sort]).offset(RUNS // 4).limit(1)
        cursor = write_cursor(sort, session.execute(middle).scalar_one())
    with statements(full_store) as seen, full_store.session() as session:
        runs, _ = list_runs(session, RunFilter(), 50, cursor, sort)
        statement, parameters = seen[0]
        read = blocks_read(session, statement, parameters)

    assert len(runs) == 50
    assert read < 200


def blocks_read(session: Session, statement: str, parameters: Any) -> int:
    """Returns: How many blocks of tables and indexes PostgreSQL reads for a statement; 0 for SQLite."""
    if session.get_bind().dialect.name == "sqlite":
        return 0
    explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}"
    (document,) = session.connection().exec_driver_sql(explain, parameters).one()
    node = (document if isinstance(document, list) else json.loads(document))[0]["Plan"]
    return int(node["Shared Hit Blocks"] + node["Shared Read Blocks"])


def rows_read(session: Session, statement: str, parameters: Any) -> int:
    """Returns: How many entries of tables and indexes a statement reads; for SQLite, all runs where it scans them."""
    if session.get_bind().dialect.name == "sqlite":
        steps = plan(session, statement, parameters)
        return RUNS if any(step.startswith(f"SCAN {TaskRun.__tablename__}") for step in steps) else 0
    explain = f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}"
    (document,) = session.connection().exec_driver_sql(explain, parameters).one()
    return _rows_of((document if isinstance(document, list) else json.loads(document))[0]["Plan"])


def _rows_of(node: dict[str, Any]) -> int:
    own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return (round(own) if "Scan" in node["Node Type"] else 0) + sum(map(_rows_of, node.get("Plans", [])))


def test_the_ranks_of_a_page_are_counted_in_one_pass(full_store: Store) -> None:
    # Given the last 1,000 attempts of 50,000
    newest = RunFilter(task_id=PERIODIC)

    # When they are listed
    with statements(full_store) as seen, full_store.session() as session:
        runs, _ = list_runs(session, newest, 1000)
        steps = [plan(session, statement, parameters) for statement, parameters in seen]

    # Then each rank is right, and each run is counted once: from the attempt before it on
    assert [run.attempt for run in runs] == list(range(ATTEMPTS, ATTEMPTS - 1000, -1))
    counting = [step for step in steps[-1] if "task_key" in step and "task_runs_1" in step]
    if full_store.engine.dialect.name == "sqlite":
        (step,) = counting
        assert "(task_key=? AND (started_at,run_id)>(?,?) AND " in step
    else:
        assert [step for step in steps[-1] if step.startswith("Index Only Scan")] != []
