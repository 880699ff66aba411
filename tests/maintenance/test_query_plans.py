"""Query plans: what is asked again and again of a large store reads no table through, on both databases."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text, update

from dramatiq_diag import Settings
from dramatiq_diag.documents.storage import storage_document
from dramatiq_diag.errors import StoreMismatchError
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.store.blobs.local import LocalBlobStore
from dramatiq_diag.store.models import StoreState
from dramatiq_diag.store.pins import delete, pin, unpin
from dramatiq_diag.store.store import Store
from support.records import bundle, run_record

#: So many runs with an artifact each, of which the first half has expired and the others live for days.
_RUNS = 60_000

#: The tables that grow with the runs; the others have a few rows.
_LARGE = ("dramatiq_diag_task_runs", "dramatiq_diag_artifacts")

_NUMBERS = {
    "sqlite": "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)",
    "postgresql": "WITH numbers AS (SELECT n FROM generate_series(1, :count) AS n)",
}
_ID = {"sqlite": "printf('%032x', n + {})", "postgresql": "lpad(to_hex(n + {}), 32, '0')::uuid"}
_MOMENT = {
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f000', 'now', ({}) || ' seconds')",
    "postgresql": "now() + ({}) * interval '1 second'",
}
_INDEX_OF_THE_LIVE = "USING INDEX ix_dramatiq_diag_artifacts_expires_at"

#: A list of parameters, as long as it may be.
_PARAMETERS = re.compile(r"(\(?(\?|%\([a-z0-9_]+\)s(::\w+)?)\)?(, )?)+")
_FILL = (
    """INSERT INTO dramatiq_diag_task_runs (run_id, task_key, task_id, actor_name, queue_name, status, started_at,
       finished_at, duration_ms, hostname, pid, overlapped_task_ids) {numbers}
       SELECT {id}, n, n, 'work', 'default', 'succeeded', {moment}, {moment}, 1.0, 'host', 1, '[]' FROM numbers""",
    """INSERT INTO dramatiq_diag_artifacts (artifact_id, run_id, name, status, filename, media_type, published_at,
       expires_at, size_bytes, blob_name, sha256) {numbers}
       SELECT {other_id}, {id}, 'memory_profile', CASE WHEN n <= :count / 2 THEN 'expired' ELSE 'stored' END,
       'memory.datum', 'text/plain', {moment}, {expiry}, 1, 'blob' || n, '' FROM numbers""",
    """INSERT INTO dramatiq_diag_counters (actor_name, queue_name, series, label, value)
       SELECT 'work', '', series, label, :count / part FROM (SELECT 'stored_runs' AS series, '' AS label, 1 AS part
       UNION ALL SELECT 'stored_artifacts', 'memory_profile', 2 UNION ALL SELECT 'stored_bytes', 'memory_profile', 2)
       AS stored""",
)


def fill(connection: Connection) -> None:
    """Writes the runs; each began a second after the one before, and those that live expire a day from now on."""
    kind = connection.dialect.name
    values = {
        "numbers": _NUMBERS[kind],
        "id": _ID[kind].format(0),
        "other_id": _ID[kind].format(2**30),
        "moment": _MOMENT[kind].format("n - :count - 7 * 86400"),
        "expiry": _MOMENT[kind].format("n - :count / 2 + 86400"),
    }
    for statement in _FILL:
        escaped = statement.format(**values).replace("::uuid", "\\:\\:uuid").replace("%H:%M:%f", "%H\\:%M\\:%f")
        connection.execute(text(escaped), {"count": _RUNS})


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request, tmp_path_factory) -> Iterator[Store]:
    own = {"data_dir": tmp_path_factory.mktemp("large"), "run_retention": 30 * 86400.0}
    if request.param == "sqlite":
        store = Store(Settings(**own))
        store.open()
        yield from filled(store)
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        store = Store(Settings(database_url=server.url(name), **own))
        store.open()
        yield from filled(store)


def filled(store: Store) -> Iterator[Store]:
    with store.engine.begin() as connection:
        fill(connection)
    if store.engine.dialect.name == "postgresql":
        with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    yield store
    store.close()


@contextmanager
def statements(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Yields the statements that are executed meanwhile, with their parameters, as the driver gets them."""
    seen: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, executemany):
        if statement.lstrip().startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH")):
            seen.append((statement, parameters[0] if executemany else parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield seen
    event.remove(engine, "before_cursor_execute", note)


def plans(engine: Engine, seen: list[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yields each statement of another shape, with its plan."""
    explain = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
    shapes = {_PARAMETERS.sub("?", statement): (statement, parameters) for statement, parameters in seen}
    with engine.connect() as connection:
        for statement, parameters in shapes.values():
            rows = connection.exec_driver_sql(explain + statement, parameters).all()
            yield statement, "\n".join(str(row[-1]) for row in rows)
        connection.rollback()


def read_through(plan: str) -> list[str]:
    """Returns: The lines of a plan that read a large table through, by its rows or by an index of all of them."""
    scans = [line for line in plan.split("\n") if re.search(r"\bSCAN\b|Seq Scan on", line)]
    return [line for line in scans if any(name in line for name in _LARGE) and _INDEX_OF_THE_LIVE not in line]


def assert_nothing_is_read_through(store: Store, seen: list[tuple[str, Any]]) -> None:
    looked_at = 0
    for statement, plan in plans(store.engine, seen):
        assert read_through(plan) == [], f"{statement}\n{plan}"
        looked_at += any(name in statement for name in _LARGE)
    assert looked_at, "no statement was about a large table"


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_cleanup(store, dry_run):
    with statements(store.engine) as seen:
        Cleanup(store, dry_run=dry_run).run()

    assert any("expires_at <=" in statement for statement, _ in seen)
    assert_nothing_is_read_through(store, seen)


#: The oldest runs, of which the first rows are read.
_OLDEST_RUNS = "INDEX ix_dramatiq_diag_task_runs_started_at_run_id"


@pytest.fixture
def bounded(store) -> Iterator[Store]:
    """The same store with bounds, which leave out ten runs and ten artifacts."""
    given = store.settings
    own = {"data_dir": given.data_dir, "database_url": given.database_url, "run_retention": given.run_retention}
    bounded = Store(Settings(**own, max_runs=_RUNS - 10, max_bytes=_RUNS // 2 - 10))
    yield bounded
    bounded.close()


def assert_only_the_oldest_are_read(store: Store, seen: list[tuple[str, Any]]) -> None:
    for statement, plan in plans(store.engine, seen):
        scans = [line for line in read_through(plan) if _OLDEST_RUNS not in line or "LIMIT" not in statement]
        assert scans == [], f"{statement}\n{plan}"


def test_what_is_stored_and_what_the_next_cleanup_removes(bounded):
    bounded.open()
    with statements(bounded.engine) as seen, bounded.session() as session:
        document = storage_document(session, bounded.settings)

    assert document["next_cleanup"]["by_max_runs"]["run_count"] == 10
    assert document["next_cleanup"]["by_max_bytes"]["artifact_count"] == 10
    assert_only_the_oldest_are_read(bounded, seen)


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_cleanup_that_keeps_bounds(bounded, dry_run):
    with statements(bounded.engine) as seen:
        counts = Cleanup(bounded, dry_run=dry_run, chunk_size=7).run()

    assert (counts.removed_runs, counts.expired_artifacts) == (10, 10)
    assert_only_the_oldest_are_read(bounded, seen)


def set_root(store: Store, root_id: uuid.UUID | None) -> None:
    with store.session() as session:
        session.execute(update(StoreState).values(blob_root_id=root_id))


def test_the_turn_to_clean_up_and_what_opens_a_store(store, tmp_path, monkeypatch):
    with statements(store.engine) as seen:
        store.claim_cleanup()
        store.check_identity()

        # With a directory that is empty, where none was claimed yet, the rows are asked for a blob.
        root_id = store.identity().root_id
        monkeypatch.setattr(store, "blobs", LocalBlobStore(tmp_path / "empty"))
        set_root(store, None)
        with pytest.raises(StoreMismatchError):
            store.check_identity()
        set_root(store, root_id)

    assert_nothing_is_read_through(store, seen)


def test_publishing_and_what_a_person_decides(store):
    made = bundle(run_record())
    with statements(store.engine) as seen:
        store.publish([made])
        pin(store, made.run.run_id)
        unpin(store, made.run.run_id)
        delete(store, made.run.run_id)

    assert_nothing_is_read_through(store, seen)


class WholeBlobs(LocalBlobStore):
    """Says of each blob that it is as its row has it."""

    def size_bytes(self, name: str) -> int | None:
        return 1

    def sha256(self, name: str) -> str:
        return ""


def test_a_check_of_blobs_that_have_rows(store, monkeypatch):
    monkeypatch.setattr(store, "blobs", WholeBlobs(store.settings.blob_dir))
    with statements(store.engine) as seen:
        assert not check(store)

    (statement, parameters) = next(each for each in reversed(seen) if "blob_name" in each[0] and "ORDER BY" in each[0])
    ((_, plan),) = plans(store.engine, [(statement, parameters)])
    assert read_through(plan) == [], plan
    assert "TEMP B-TREE" not in plan, plan
