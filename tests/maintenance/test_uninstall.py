"""`dramatiq-diag uninstall`: everything of ours goes, after a question, and nothing else does."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import dramatiq
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import inspect

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.cli import main
from dramatiq_diag.documents.signing import Signer
from dramatiq_diag.spool.entry import Entry
from dramatiq_diag.store.adoption import VERSION_TABLE
from dramatiq_diag.store.blobs import cache_of
from dramatiq_diag.store.database import make_engine
from dramatiq_diag.store.models import Base
from support.cli import TerminalRunner
from support.tasks import finish, running

Uninstall = Callable[..., Result]


@pytest.fixture
def given(settings, database_url) -> Settings:
    return settings(task_diagnostics=["memory"], database_url=database_url)


@pytest.fixture
def uninstall(given, monkeypatch) -> Uninstall:
    """Calls the command with the environment of the settings."""

    def call(*arguments: str, answer: str | None = None, **environment: str) -> Result:
        monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(given.data_dir))
        if given.database_url is not None:
            monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", given.database_url)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        runner = TerminalRunner() if answer is not None else CliRunner()
        return runner.invoke(main, ["uninstall", *arguments], input=answer, prog_name="dramatiq-diag")

    return call


@pytest.fixture
def used(given, stub_broker) -> Settings:
    """A store with runs, a key, and a run in the spool that a dead worker left."""
    stub_broker.add_middleware(Diagnostics(given))
    actor = dramatiq.actor(lambda: None, broker=stub_broker, actor_name="work")
    with running(stub_broker) as worker:
        for _ in range(3):
            actor.send()
        finish(stub_broker, worker, "default")
    Signer(given)
    cache = given.data_dir / "cache"
    cache.mkdir()
    (cache / "charts-1.0.js").touch()
    cache_of(given).put(f"{uuid.uuid4()}.0.html", lambda file: file.write(b"rendered"))
    owner = given.spool / str(uuid.uuid4())
    owner.mkdir()
    entry = Entry(owner, uuid.uuid4())
    entry.create()
    entry.append({"run": {}})
    entry.flush()
    entry.close()
    return given


def tables(given: Settings) -> set[str]:
    engine = make_engine(given)
    try:
        return {*inspect(engine).get_table_names()}
    finally:
        engine.dispose()


def execute(given: Settings, statement: str) -> None:
    engine = make_engine(given)
    with engine.begin() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


def test_everything_of_ours_goes(used, uninstall):
    result = uninstall("--yes")

    assert result.exit_code == 0, result.output
    assert "3 runs with 3 artifacts" in result.output
    assert not used.data_dir.exists()
    if used.database_url is not None:
        assert tables(used) == set()
    # And there is nothing to do for the next one
    again = uninstall("--yes")
    assert (again.exit_code, again.output) == (0, "Nothing is stored here.\n")


def test_nothing_else_goes(used, uninstall):
    # Given what others have put into the database and the directories
    execute(used, "CREATE TABLE orders (id INTEGER)")
    day = next(path for path in used.blob_dir.iterdir() if path.is_dir())
    foreign = [
        *(used.data_dir / "notes.txt", used.blob_dir / "notes.txt", day / "notes.txt"),
        *(used.spool / "notes.txt", next(used.spool.iterdir()) / "notes.txt"),
    ]
    for path in foreign:
        path.write_text("mine")

    result = uninstall("--yes")

    assert result.exit_code == 0, result.output
    assert tables(used) == {"orders"}
    left = {path for path in used.data_dir.rglob("*") if path.is_file()}
    database = {path for path in left if path.name.startswith("diagnostics.db")}
    assert left - database == {*foreign}
    assert bool(database) == (used.database_url is None)
    assert f"{used.data_dir} stays" in result.output


@pytest.mark.parametrize(("answer", "goes"), [("y\n", True), ("n\n", False)])
def test_it_asks_first(used, uninstall, answer, goes):
    result = uninstall(answer=answer)

    assert "Remove all of it for good? [y/N]" in result.output
    assert used.data_dir.exists() is not goes
    assert result.exit_code == (0 if goes else 1)


def test_without_a_terminal_it_wants_to_be_told(used, uninstall):
    result = uninstall()

    assert result.exit_code == 2
    assert "--yes" in result.output
    assert {*Base.metadata.tables} <= tables(used)


_WORKER = """
import sys
from dramatiq_diag import Settings
from dramatiq_diag.spool.directory import Spool

spool = Spool(Settings(data_dir=sys.argv[1]))
spool.open()
print("open", flush=True)
sys.stdin.read()
"""


def test_while_a_worker_runs_it_refuses(used, uninstall, python):
    # Given another process that owns a directory of the spool
    worker = python(_WORKER, str(used.data_dir))
    assert worker.stdout.readline() == "open\n"

    result = uninstall("--yes")

    assert result.exit_code == 1
    assert "stop all workers first" in result.output
    assert {*Base.metadata.tables} <= tables(used)


def test_blobs_of_another_store_stay(used, uninstall, tmp_path):
    before = {*used.blob_dir.rglob("*")}

    for url in (f"sqlite:///{tmp_path}/new.db", f"sqlite:///{used.data_dir}/new.db"):
        result = uninstall("--yes", DRAMATIQ_DIAG_DATABASE_URL=url)

        assert result.exit_code == 2
        assert str(used.blob_dir) in result.output
    assert {*used.blob_dir.rglob("*")} == before


def test_tables_of_another_version_stay(used, uninstall):
    execute(used, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")

    result = uninstall("--yes")

    assert result.exit_code == 1
    assert "9999" in result.output
    assert {*Base.metadata.tables} <= tables(used)
