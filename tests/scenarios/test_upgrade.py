"""An upgrade from version 663677e: its store and its spool are migrated, salvaged and served."""

from __future__ import annotations

import json
import sqlite3
import tarfile
import uuid
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from falcon.testing import TestClient
from sqlalchemy import create_engine, inspect, text, update

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.store.captures import CaptureState
from dramatiq_diag.store.migration import check_schema, migrate
from dramatiq_diag.store.models import Capture
from dramatiq_diag.web import create_app
from support import eventually
from support.captures import knows, runs_of, standing, work
from support.early_version import make_early_tables
from support.tasks import running_bench

#: Written by tests/support/version_663677e.py.
_ARCHIVE = Path(__file__).parents[1] / "data" / "version_663677e.tar.gz"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def database(request):
    """The kind of the database."""
    return request.param


@contextmanager
def left_behind(request, database, directory):
    """Settings of the data directory and the database of that version, as its workers left both."""
    values = {
        "data_dir": directory / "data",
        "task_diagnostics": ["memory"],
        "task_diagnostics_on_request": ["pyinstrument", "logs"],
        "cleanup_interval": 0,
    }
    given = Settings(**values)
    given.data_dir.mkdir(mode=0o700)
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(given.data_dir, filter="data")
    if database == "sqlite":
        yield given
        return
    server = request.getfixturevalue("postgres")
    with server.database("template1") as name:
        copy_rows(given.data_dir / "diagnostics.db", server.url(name))
        yield Settings(**values, database_url=server.url(name))


def upgrade(given):
    """Migrates the store, and lets a worker of this version salvage the spool. Returns: The settings."""
    (owner,) = (given.data_dir / "spool").iterdir()
    migrate(given)
    with running_bench(given):
        eventually(lambda: not owner.exists(), "the spool is salvaged")
    return given


def copy_rows(path: Path, url: str) -> None:
    """Makes the tables of that version in PostgreSQL, with the rows of an SQLite file."""
    engine = create_engine(url)
    with closing(sqlite3.connect(path)) as source, engine.begin() as connection:
        source.row_factory = sqlite3.Row
        make_early_tables(connection)
        for table in ("task_runs", "artifacts", "store_state", "captures", "capture_permits", "worker_actors"):
            kinds = {column["name"]: str(column["type"]) for column in inspect(connection).get_columns(table)}
            fields = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in kinds.items())
            statement = text(f"INSERT INTO {table} ({', '.join(kinds)}) VALUES ({fields})")
            for row in source.execute(f"SELECT * FROM {table}"):
                # Times have no zone in SQLite; they are UTC.
                moments = {name: f"{row[name]}+00" for name, kind in kinds.items() if kind == "TIMESTAMP" and row[name]}
                connection.execute(statement, {**dict(row), **moments})
        connection.execute(text("INSERT INTO alembic_version VALUES ('0004')"))
    engine.dispose()


@pytest.fixture
def upgraded(request, database, tmp_path):
    """Settings of such a store and spool after an upgrade, for a test that changes them."""
    with left_behind(request, database, tmp_path) as given:
        yield upgrade(given)


@pytest.fixture(scope="module")
def read_only(request, database, tmp_path_factory):
    """The same for all tests that only read."""
    with left_behind(request, database, tmp_path_factory.mktemp("upgrade")) as given:
        yield upgrade(given)


@pytest.fixture
def client(read_only):
    app = create_app(read_only, insecure=True)
    yield TestClient(app, headers={"Host": "127.0.0.1:8321"})
    app.close()


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What each run and capture is called -> its id."""
    directory = tmp_path_factory.mktemp("names")
    with tarfile.open(_ARCHIVE) as archive:
        archive.extractall(directory, filter="data")
    return json.loads((directory / "names.json").read_text())


def test_the_schema_is_that_of_this_version(read_only, store_of):
    check_schema(store_of(read_only).engine)


@pytest.mark.parametrize(
    ("name", "run_status", "artifacts"),
    [
        # What was stored.
        ("plain", "succeeded", {"memory_profile": "stored"}),
        ("asked", "succeeded", {"pyinstrument_profile": "stored", "task_logs": "stored"}),
        ("failed", "failed", {"memory_profile": "stored"}),
        ("parent", "succeeded", {"pyinstrument_profile": "stored"}),
        ("child", "succeeded", {"pyinstrument_profile": "stored"}),
        ("pinned", "succeeded", {"memory_profile": "stored"}),
        ("captured", "succeeded", {"memory_profile": "stored", "pyinstrument_profile": "stored"}),
        # What waited in the spool.
        ("ended", "succeeded", {"memory_profile": "stored", "pyinstrument_profile": "stored"}),
        ("killed-early", "interrupted", {"memory_profile": "partial", "pyinstrument_profile": "partial"}),
        ("killed-captured", "interrupted", {"memory_profile": "partial", "pyinstrument_profile": "partial"}),
        (
            "killed-asked",
            "interrupted",
            {"memory_profile": "partial", "pyinstrument_profile": "partial", "task_logs": "partial"},
        ),
    ],
)
def test_each_run_is_served_with_its_artifacts(client, names, name, run_status, artifacts):
    answer = client.simulate_get(f"/tasks/{names[name]}/profile_artifacts/").json

    assert answer["run"]["status"] == run_status
    assert answer["run"]["hostname"] == "worker-1"
    assert {artifact["name"]: artifact["status"] for artifact in answer["artifacts"]} == artifacts
    for artifact in artifacts:
        path = answer["urls"][artifact].partition("8321")[2]
        download = client.simulate_get(path.partition("?")[0], query_string=path.partition("?")[2])
        assert download.status_code == 200
        assert download.content or artifact == "task_logs"  # The tasks log nothing.
    page = client.simulate_get(f"/tasks/{names[name]}/", headers={"Accept": "text/html"})
    assert page.status_code == 200
    assert names[name] in page.text


def test_each_run_is_what_it_was(client, names):
    runs = {run["task_id"]: run for run in client.simulate_get("/tasks/", query_string="limit=100").json["runs"]}

    assert runs.keys() == {task_id for name, task_id in names.items() if not name.endswith("-capture")}
    assert runs[names["failed"]]["exception"] == {"type": "ValueError", "message": "it failed"}
    assert runs[names["child"]]["parent_run_id"] == runs[names["parent"]]["run_id"]
    assert [task_id for task_id, run in runs.items() if run["pinned"]] == [names["pinned"]]
    of_capture = client.simulate_get("/tasks/", query_string=f"capture={names['open-capture']}").json["runs"]
    assert [run["task_id"] for run in of_capture] == [names["killed-captured"]]


def test_captures_have_the_runs_that_they_had_and_an_open_one_goes_on(upgraded, names, store_of, bench, stored):
    store = store_of(upgraded)
    complete, left_open, ended = (uuid.UUID(names[f"{name}-capture"]) for name in ("complete", "open", "ended"))
    assert (standing(store, complete).state, standing(store, complete).captured_runs) == (CaptureState.COMPLETE, 1)
    assert (standing(store, ended).state, standing(store, ended).captured_runs) == (CaptureState.ENDED, 0)
    # Counted once, though its worker was killed: it had a permit.
    assert standing(store, left_open).captured_runs == 1

    with store.session() as session:  # However long ago the archive was written.
        soon = datetime.now(UTC) + timedelta(hours=1)
        session.execute(update(Capture).where(Capture.capture_id == left_open).values(expires_at=soon))
    with bench(upgraded) as tasks:
        actor = tasks.actor(work, actor_name="captured")
        eventually(lambda: knows(tasks, "captured"), "the worker knows of it")
        for _ in range(5):
            actor.send()
        tasks.finish()

    assert standing(store, left_open).state == CaptureState.COMPLETE
    assert len(runs_of(store, left_open)) == 3
    assert len(stored(upgraded).all_runs()) == 11 + 5


def test_the_store_is_consistent_and_can_be_cleaned_up(upgraded, stored, store_of, names):
    assert not stored(upgraded).check()

    Cleanup(store_of(upgraded)).run()

    assert not stored(upgraded).check()
    assert stored(upgraded).artifacts(names["pinned"])["memory_profile"].status == "stored"
