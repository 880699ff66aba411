"""A spool that cannot be used as a whole: other users' directories, foreign files, no locks, removed under a worker."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dramatiq_diag.cli import main
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.owner_lock import LOCK_FILE
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.spool import (
    END,
    KINDS,
    TEXT,
    dead_entry,
    dead_owners_seen_by_another_process,
    make_foreign,
    start_record,
    without_powers,
)

_WORKER = """
import dramatiq, logging, sys
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.worker.tuning import Tuning
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
broker = StubBroker()
settings = Settings(task_diagnostics=["memory"], data_dir=sys.argv[1], cleanup_interval=0)
diagnostics = Diagnostics(settings, tuning=Tuning(measure_s=0.0))
broker.add_middleware(diagnostics)
actor = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
worker = dramatiq.Worker(broker)
worker.start()
for _ in range(20):
    print(actor.send().message_id)
    broker.join("default")
    worker.join()
    assert diagnostics.flush(170)
worker.stop()
"""


_COMMAND = "from dramatiq_diag.cli import main; main()"


@pytest.fixture
def command(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(settings().data_dir))
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="dramatiq-diag")


def findings(result: Result) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in json.loads(result.stdout)["checks"] if check["status"] == "finding"}


def unprivileged(*arguments: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        without_powers(sys.executable, *arguments),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(data_dir)},
        check=False,
    )


_CLOSED_FOR_A_WHILE = """
import dramatiq, logging, os, sys, time
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.worker.tuning import Tuning
logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
broker = StubBroker()
settings = Settings(task_diagnostics=["memory"], data_dir=sys.argv[1], cleanup_interval=0)
diagnostics = Diagnostics(settings, tuning=Tuning(backoff_s=(0.01, 0.05)))
broker.add_middleware(diagnostics)
close = dramatiq.actor(lambda: os.chmod(settings.spool, 0), broker=broker, actor_name="close")
work = dramatiq.actor(lambda: None, broker=broker, actor_name="work")
worker = dramatiq.Worker(broker, worker_threads=1)
worker.start()
for actor in (work, close, work, work):
    print(actor.send().message_id)
broker.join("default")
worker.join()
assert not diagnostics.flush(1)
os.chmod(settings.spool, 0o700)
assert diagnostics.flush(170)
worker.stop()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Root's powers are taken away by a system call of Linux.")
def test_runs_of_a_spool_that_is_closed_for_a_while_are_published_when_it_is_open(settings, stored):
    given = settings(task_diagnostics=["memory"])

    done = unprivileged("-c", _CLOSED_FOR_A_WHILE, str(given.data_dir), data_dir=given.data_dir)

    assert done.returncode == 0, done.stderr
    assert {run.task_id for run in stored(given).all_runs()} == {*done.stdout.split()}
    assert "could not be published" not in done.stderr


# What belongs to another user, or is not ours.


@pytest.mark.skipif(sys.platform != "linux", reason="Root's powers are taken away by a system call of Linux.")
def test_directories_that_cannot_be_used_cost_themselves_alone(settings, stored):
    given = settings(task_diagnostics=["memory"])
    # Given what workers of another user left: what can be listed may have no status, and what has one no lock
    dead = {}
    for mode in (0o000, 0o400, 0o500):
        run_id = uuid.uuid4()
        dead[mode] = dead_entry(given.spool, [start_record(run_id, task_id=str(mode)), TEXT, END], run_id).owner
    for path in (given.data_dir, given.spool):
        path.chmod(0o700)
    for mode, owner in dead.items():
        owner.chmod(mode)

    # When a worker comes by that can do nothing with it
    done = unprivileged("-c", _WORKER, str(given.data_dir), data_dir=given.data_dir)
    looked = unprivileged("-c", _COMMAND, "doctor", "--json", data_dir=given.data_dir)
    recovered = unprivileged("-c", _COMMAND, "recover", data_dir=given.data_dir)
    for owner in dead.values():
        owner.chmod(0o700)

    # Then all its own runs are stored, it says once of each what is wrong, and so do doctor and recover
    assert done.returncode == 0, done.stderr
    ids = set(done.stdout.split())
    assert len(ids) == 20
    assert {run.task_id for run in stored(given).all_runs()} == ids
    assert "Traceback" not in done.stderr
    check = next(check for check in json.loads(looked.stdout)["checks"] if check["name"] == "unusable in the spool")
    assert (looked.returncode, check["status"]) == (1, "finding")
    assert "recover" in check["remedy"]
    assert recovered.returncode == 1
    for owner in dead.values():
        said = [line for line in done.stderr.splitlines() if str(owner) in line]
        assert len(said) == 1
        assert "Permission denied" in said[0]
        assert f"{owner}: Permission denied" in check["detail"]
        assert f"{owner} was passed over: Permission denied" in recovered.stdout

    # And whoever may use it publishes it
    assert CliRunner().invoke(main, ["recover"], env={"DRAMATIQ_DIAG_DATA_DIR": str(given.data_dir)}).exit_code == 0
    assert {run.task_id for run in stored(given).all_runs()} == ids | {str(mode) for mode in dead}


@pytest.mark.parametrize("name", ["an owner", "a lock", "an entry"])
def test_foreign_files_are_passed_over_and_said_once(settings, bench, stored, command, tmp_path, caplog, name):
    given = settings(task_diagnostics=["memory"])
    secret = tmp_path / "secret"
    secret.mkdir()
    made = {}
    for kind in KINDS:
        if (name, kind) == ("an owner", "directory"):  # That is what an owner is.
            continue
        owner = given.spool / str(uuid.uuid4())
        file = {"an owner": owner, "a lock": owner / LOCK_FILE, "an entry": owner / f"{uuid.uuid4()}.entry"}[name]
        file.parent.mkdir(parents=True, exist_ok=True)
        make_foreign(kind, file, secret)
        made[owner] = file

    with bench(given, tuning=Tuning(salvage_s=0.0)) as tasks:
        ids = {tasks.run(lambda: None, actor_name=f"work{number}") for number in range(3)}

    assert {run.task_id for run in stored(given).all_runs()} == ids
    assert not [record for record in caplog.records if record.exc_info]
    assert list(secret.iterdir()) == []
    result = command("recover")
    assert result.exit_code == 1
    for owner, file in made.items():
        assert len([text for text in caplog.messages if f"{owner} is passed over" in text]) == 2  # One by `recover`.
        assert os.path.lexists(file)
        assert f"{owner} was passed over" in result.stdout
    detail = findings(command("doctor", "--json"))["unusable in the spool"]["detail"]
    assert detail.endswith(f" and {len(made) - 3} more")


def test_a_file_that_vanishes_while_the_spool_is_listed_costs_itself_alone(settings):
    spool = Spool(settings())
    owner = dead_entry(spool.root, ["x" * 10]).owner
    for _ in range(9):
        dead_entry(spool.root, ["x" * 10], owner=owner.name)

    # When others remove half of the files right after the first one was looked at
    listing = spool.files(owner)
    first = next(listing).run_id
    others = sorted(path for path in owner.iterdir() if path.stem != str(first))
    for path in others[:5]:
        path.unlink()

    assert {str(found.run_id) for found in listing} == {path.stem for path in others[5:]}


def test_entries_that_cannot_be_removed_are_said_once_for_each_directory(settings, bench, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"])
    ids = [uuid.uuid4() for _ in range(5)]
    owner = str(uuid.uuid4())
    for run_id in ids:
        dead_entry(given.spool, [start_record(run_id, task_id=str(run_id)), TEXT, END], run_id, owner)
    unlink = os.unlink

    def refuse(path: Any, *arguments: Any, **options: Any) -> None:
        if f"{owner}/" in str(path):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(path, *arguments, **options)

    monkeypatch.setattr(os, "unlink", refuse)

    with bench(given, tuning=Tuning(salvage_s=0.0)) as tasks:
        own = tasks.run(lambda: None, actor_name="work")
        again = tasks.run(lambda: None, actor_name="again")

    assert {run.task_id for run in stored(given).all_runs()} == {own, again, *map(str, ids)}
    assert len([record for record in caplog.records if "could not be removed" in record.getMessage()]) == 1
    assert not [record for record in caplog.records if record.exc_info]


# Locks.


def test_two_salvagers_in_one_process_never_have_the_same_owner_and_drop_no_lock(settings):
    owner = dead_entry(settings().spool, [start_record(uuid.uuid4())]).owner

    for claimed in Spool(settings()).dead_owners():
        assert claimed == owner
        assert list(Spool(settings()).dead_owners()) == []
        assert dead_owners_seen_by_another_process(settings().data_dir) == []

    assert list(Spool(settings()).dead_owners()) == [owner]


def test_a_second_worker_of_a_process_leaves_the_first_ones_lock_alone(settings, bench):
    given = settings(task_diagnostics=["memory"])
    spool = Spool(given)
    spool.open()

    with bench(given) as tasks:
        tasks.run(lambda: None, actor_name="work")
        assert spool.owner.name not in dead_owners_seen_by_another_process(given.data_dir)

    assert dead_owners_seen_by_another_process(given.data_dir) == []
    spool.close()


def test_a_lock_file_that_a_cleaner_of_old_files_removed_is_made_again(settings):
    spool = Spool(settings())
    spool.open()
    owner = spool.owner
    (owner / LOCK_FILE).unlink()

    spool.refill_pool()

    assert spool.owner == owner
    assert dead_owners_seen_by_another_process(settings().data_dir) == []
    spool.close()
    assert list(spool.root.iterdir()) == []


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A file system that has no locks, as FUSE and NFS may be."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    return monkeypatch


def test_without_locks_runs_are_published_from_memory_and_it_is_said_what_to_do(
    settings, bench, stored, command, caplog, no_locks
):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED
    errors = [record.getMessage() for record in caplog.records if "has no locks" in record.getMessage()]
    assert any("DRAMATIQ_DIAG_SPOOL_DIR" in text for text in errors)
    assert list(given.spool.iterdir()) == []
    check = findings(command("doctor", "--json"))["spool locks"]
    assert "DRAMATIQ_DIAG_SPOOL_DIR" in check["remedy"]


def test_entries_on_a_file_system_without_locks_are_said_and_the_remedy_works(
    settings, stored, command, tmp_path, no_locks
):
    given = settings()
    dead = dead_entry(given.spool, [start_record(run_id := uuid.uuid4()), TEXT, END], run_id)

    # Nothing is salvaged without a lock, and it is said
    result = command("recover")
    assert result.exit_code == 1
    assert "has no locks" in result.stdout
    assert "move what is in it there" in result.stdout
    assert dead.path("entry").exists()
    assert "move what is in it there" in findings(command("doctor", "--json"))["unusable in the spool"]["remedy"]

    # When that is done
    no_locks.undo()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(dead.owner, elsewhere)
    environment = {"DRAMATIQ_DIAG_DATA_DIR": str(given.data_dir), "DRAMATIQ_DIAG_SPOOL_DIR": str(elsewhere)}
    assert CliRunner().invoke(main, ["recover"], env=environment).exit_code == 0

    assert [run.status for run in stored(given).runs("task-1")] == [RunStatus.SUCCEEDED]


# Removed under a worker.


def test_a_data_directory_that_is_removed_under_a_worker_is_made_anew(settings, bench, stored, caplog):
    given = settings(task_diagnostics=["memory", "memray"])

    with bench(given) as tasks:
        tasks.run(lambda: None, actor_name="before")
        old = tasks.diagnostics.process.spool.owner
        # When everything is removed; under another name first, as the worker may make files while the tree is walked
        shutil.rmtree(given.data_dir.rename(given.data_dir.with_name("removed")))
        # Then runs are stored where a new reader finds them, and soon with their files again
        ids = [tasks.run(lambda: None, actor_name="after")]
        spool = tasks.diagnostics.process.spool
        eventually(lambda: spool.owner not in (None, old), "the saver noticed that its directory is gone")
        ids.append(tasks.run(lambda: None, actor_name="last"))
        assert spool.owner.is_dir()
        assert dead_owners_seen_by_another_process(given.data_dir) == []

    assert {run.task_id for run in stored(given).all_runs()} == set(ids)
    last = stored(given).artifacts(ids[-1])
    assert {artifact.status for artifact in last.values()} == {ArtifactStatus.STORED}
    assert not stored(given).check()
    assert [text for text in caplog.messages if f"database file {given.data_dir}" in text and "was removed" in text]
    assert len([text for text in caplog.messages if f"spool directory {old} was removed" in text]) == 1
    assert not [text for text in caplog.messages if "unexpected error" in text]


def test_runs_whose_entries_are_removed_before_they_are_published_are_counted_as_lost(
    settings, bench, monkeypatch, caplog
):
    from dramatiq_diag.errors import StoreUnavailableError

    given = settings(task_diagnostics=["memory"])
    original = Store.publish
    removed: list[int] = []

    # Given a spool that is removed while three runs wait for the store; the publisher has then none of them in hand
    def publish(store: Store, bundles: Any) -> None:
        if removed:
            return original(store, bundles)
        if len(backlog) == 3:
            shutil.rmtree(given.spool.rename(given.spool.with_name("removed")))
            removed.append(1)
        raise StoreUnavailableError

    with bench(given, tuning=Tuning(backoff_s=(0.01, 0.01))) as tasks:
        backlog = tasks.diagnostics.process.publisher.backlog
        monkeypatch.setattr(Store, "publish", publish)
        actor = tasks.actor(lambda: None, actor_name="work")
        for _ in range(3):
            actor.send()
        eventually(lambda: removed and len(backlog) == 0, "they are saved, and not waited for")
        # Then nobody says that they were published
        assert not tasks.diagnostics.flush(PATIENCE_S)

    lost = [text.split()[0] for text in caplog.messages if "runs are lost: someone removed" in text]
    assert lost == ["3"]


def test_a_database_file_that_is_replaced_is_followed(settings, store_of, caplog):
    given = settings()
    store = store_of(given)
    path = given.data_dir / "diagnostics.db"
    before = store.store_id()
    for name in (path, path.with_name("diagnostics.db-wal"), path.with_name("diagnostics.db-shm")):
        name.unlink(missing_ok=True)
    other = store_of(given)

    assert other.store_id() != before
    assert store.store_id() == other.store_id()
    assert len([text for text in caplog.messages if "was removed or replaced" in text]) == 1
