"""`doctor`: the remedy is that of the error, and no error ends it."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from dramatiq_diag import Settings
from dramatiq_diag.cli.doctor_checks.remedies import place_of, remedy_of
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.store.store import Store
from support.cli import SCRIPT, Command, Unprivileged, checks_of, document
from support.store import Postgres

#: Nobody's id: what it owns is closed to the command without privileges.
OTHER = 65534

DIRECTORIES = ("data dir", "spool", "cache", "blobs")
_VARIABLES = {Settings.variable(field.name) for field in fields(Settings)}


@pytest.fixture(autouse=True)
def half_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets half of each disk be free, however full the machine of the tests is."""
    usage = type("Usage", (), {"total": 2**40, "free": 2**39})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)


@pytest.fixture
def database(data_dir: Path) -> Path:
    """The SQLite file of a store that was used."""
    with closing(Store(Settings(data_dir=data_dir))) as store:
        store.open()
    return data_dir / "diagnostics.db"


@pytest.fixture
def unprivileged() -> Unprivileged:
    return Unprivileged()


def variables_in(text: str) -> set[str]:
    """Returns: The settings that a remedy names."""
    return set(re.findall(r"[A-Z_]{8,}", text)) & _VARIABLES


def findings(result: Any) -> dict[str, dict[str, Any]]:
    return {name: check for name, check in checks_of(result).items() if check["status"] == "finding"}


# Directories and files that this user may not use.


def test_the_doctor_outlives_a_data_dir_of_another_user(
    unprivileged: Unprivileged, database: Path, data_dir: Path
) -> None:
    data_dir.chmod(0o700)
    os.chown(data_dir, OTHER, OTHER)

    found = unprivileged.findings()

    assert {*DIRECTORIES, "database"} <= {*found}
    for name in (*DIRECTORIES, "database", "unusable in the spool"):
        assert "Permission denied" in found[name]["detail"]
        assert f"chown -R root {data_dir}" in found[name]["remedy"]
        assert variables_in(found[name]["remedy"]) == set()


def test_a_directory_that_is_to_be_made_in_one_of_another_user_is_made_by_root(
    unprivileged: Unprivileged, tmp_path: Path
) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o755)
    os.chown(above, OTHER, OTHER)

    found = unprivileged.findings(DRAMATIQ_DIAG_DATA_DIR=str(above / "data dir"))

    assert {*found} == {*DIRECTORIES}
    assert {check["remedy"].rpartition(": ")[2] for check in found.values()} == {
        f"install -d -o root -m 0700 '{above / 'data dir'}'"
    }


def test_a_directory_above_that_cannot_be_entered_is_named(unprivileged: Unprivileged, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    os.chown(above, OTHER, OTHER)

    found = unprivileged.findings(DRAMATIQ_DIAG_DATA_DIR=str(above / "data"))

    assert {*DIRECTORIES, "database"} <= {*found}
    for check in found.values():
        assert f"enter {above} " in check["remedy"]
        assert variables_in(check["remedy"]) == {"DRAMATIQ_DIAG_DATA_DIR"}


@pytest.mark.parametrize(
    ("mode", "owner", "remedy"),
    [(0o400, 0, "chmod u+rw {database}"), (0o600, OTHER, "chown root {database}")],
)
def test_an_sqlite_file_that_cannot_be_written_is_a_matter_of_owner_and_mode(
    unprivileged: Unprivileged, database: Path, mode: int, owner: int, remedy: str
) -> None:
    database.chmod(mode)
    os.chown(database, owner, owner)

    found = unprivileged.findings()["database"]

    assert found["detail"] == f"{database} cannot be read and written: Permission denied"
    assert found["remedy"].endswith(remedy.format(database=database))
    assert variables_in(found["remedy"]) == set()


def test_a_closed_directory_of_blobs_is_a_finding(unprivileged: Unprivileged, database: Path, data_dir: Path) -> None:
    # Given blobs without an id, so that they are looked for, in a day's directory that cannot be entered
    (data_dir / "blobs" / ".store-id").unlink()
    day = data_dir / "blobs" / "20261128"
    day.mkdir(mode=0o700)
    os.chown(day, OTHER, OTHER)

    found = unprivileged.findings()["store id"]

    assert found["detail"].startswith(f"The blob directory {data_dir / 'blobs'} cannot be read: ")


def test_migrate_says_why_an_sqlite_file_cannot_be_looked_at(unprivileged: Unprivileged, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir(mode=0o700)
    os.chown(above, OTHER, OTHER)

    done = unprivileged("migrate", DRAMATIQ_DIAG_DATABASE_URL=f"sqlite:///{above}/d.db")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: The database cannot be used: unable to open database file: [Errno 13] ")


# Other states of files and databases.


def test_a_full_disk_is_to_be_freed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))

    found = findings(command("doctor", "--json"))

    assert {*found} == {*DIRECTORIES}
    assert all(check["remedy"].startswith("Free some space ") for check in found.values())


def test_a_file_in_place_of_the_data_dir_is_named(command: Command, data_dir: Path) -> None:
    data_dir.touch(mode=0o600)

    found = findings(command("doctor", "--json"))

    assert {*found} == {*DIRECTORIES, "database"}
    assert all(check["remedy"].startswith(f"{data_dir} is no directory: ") for check in found.values())


def test_a_database_that_is_not_migrated_is_to_be_migrated(command: Command, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "empty.db")) as connection:
        connection.execute("CREATE TABLE other (id)")
    (tmp_path / "empty.db").chmod(0o600)

    found = findings(command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=f"sqlite:///{tmp_path}/empty.db"))

    assert {*found} == {"database"}
    assert found["database"]["remedy"].startswith("Run: dramatiq-diag migrate")
    assert variables_in(found["database"]["remedy"]) == set()


def test_a_damaged_sqlite_file_is_the_database_s(command: Command, database: Path) -> None:
    # Given that the schema can be read, and the row of the store cannot
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [page] = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'dramatiq_diag_store_state'"
        ).fetchone()
        [page_bytes] = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xff" * page_bytes)

    checks = document(command("doctor", "--json"), 1)["checks"]

    of_store = [check for check in checks if check["name"] in ("database", "store id")]
    assert [(check["name"], check["status"]) for check in of_store] == [("database", "finding")]
    assert "malformed" in of_store[0]["detail"]
    assert of_store[0]["remedy"].startswith(f"Restore {database} from a backup")
    assert variables_in(of_store[0]["remedy"]) == set()


def test_halves_of_two_stores_are_told_apart_by_the_variables_that_are_set(
    command: Command, database: Path, data_dir: Path
) -> None:
    (data_dir / "blobs" / ".store-id").write_text("6b8a1cbb-7a55-4f4e-a4b3-111111111111\n")

    neither = findings(command("doctor", "--json"))["store id"]
    one = findings(command("doctor", "--json", DRAMATIQ_DIAG_BLOB_URL=str(data_dir / "blobs")))["store id"]

    assert neither["remedy"].startswith("Restore ")
    assert variables_in(neither["remedy"]) == {"DRAMATIQ_DIAG_DATA_DIR"}
    assert one["remedy"] == "Point DRAMATIQ_DIAG_BLOB_URL at one store."


def test_a_database_that_the_server_does_not_have_is_to_be_made(command: Command, postgres: Postgres) -> None:
    found = findings(command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=postgres.url("no_such_database")))

    assert "no_such_database" in found["database"]["detail"]
    assert variables_in(found["database"]["remedy"]) == {"DRAMATIQ_DIAG_DATABASE_URL"}


def test_the_spool_on_a_read_only_disk_is_no_matter_of_an_owner(
    command: Command, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a spool whose owners cannot be locked, as their disk is read-only
    spool = Spool(Settings(data_dir=data_dir))
    spool.open()
    owner = spool.owner
    spool.close()
    assert owner is not None
    owner.mkdir(mode=0o700)

    def refuse(owner: Path) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("dramatiq_diag.spool.contents.OwnerLock", refuse)

    found = findings(command("doctor", "--json"))["unusable in the spool"]

    assert found["detail"] == f"{owner}: Read-only file system"
    assert found["remedy"].startswith("Mount the disk of ")


class RefusedError(Exception):
    """What a driver of PostgreSQL raises."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__("refused")
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "remedy"),
    [
        ("42501", "Grant "),
        ("28P01", "Correct the user or the password in DRAMATIQ_DIAG_DATABASE_URL"),
        ("3D000", "Make the database on the server"),
        ("53100", "Free some space on the disk of the database's server."),
        ("53300", "Raise max_connections"),
        ("53400", "The database's server lacks something"),
        ("57P03", "The database's server starts or stops"),
        ("08006", "Check DRAMATIQ_DIAG_DATABASE_URL"),
    ],
)
def test_the_remedy_is_that_of_the_sqlstate(settings: Callable[..., Settings], sqlstate: str, remedy: str) -> None:
    place = place_of(settings(database_url="postgresql://diag@db/diag"), "database_url")
    error = StoreUnavailableError("The database cannot be used: refused")
    error.__cause__ = OperationalError("SELECT 1", {}, RefusedError(sqlstate))

    assert remedy_of(error, place).startswith(remedy)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EDQUOT, "Free some space, or raise the quota"),
        (errno.EROFS, "Mount the disk of "),
        (errno.EIO, "The disk of "),
        (errno.EMFILE, "Raise the limit of open files"),
        (errno.EXDEV, "Repair "),
    ],
)
def test_the_remedy_is_that_of_the_error_number(settings: Callable[..., Settings], number: int, remedy: str) -> None:
    given = settings(blob_url=None)

    assert remedy_of(OSError(number, os.strerror(number)), place_of(given, "blob_url")).startswith(remedy)


# What no check expects.


@pytest.mark.parametrize(
    ("function", "name"),
    [
        ("installation.discover", "collectors of other packages"),
        ("installation.platform.python_version", "versions"),
        ("directories.tempfile.TemporaryFile", "cache"),
        ("directories.shutil.disk_usage", "free disk"),
        ("directories.open_to_others", "privacy"),
        ("spool.Spool.measure", "backlog"),
        ("spool.try_lock", "spool locks"),
        ("store.check_schema", "database"),
        ("store.worker_standing", "workers"),
        ("store.place_of", "database"),
    ],
)
def test_an_error_that_no_check_expects_is_a_finding_and_the_other_checks_go_on(
    command: Command, database: Path, monkeypatch: pytest.MonkeyPatch, function: str, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(f"dramatiq_diag.cli.doctor_checks.{function}", fail)

    checks = document(command("doctor", "--json"), 1)["checks"]

    found = {check["name"]: check for check in checks if check["name"] == name}[name]
    assert found["status"] == "finding"
    assert found["detail"] == "the check itself failed with ZeroDivisionError: division by zero"
    assert {"memory", "blobs", "privacy", "backlog", "database"} <= {check["name"] for check in checks}


def test_a_disk_that_cannot_be_measured_is_a_finding(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(shutil, "disk_usage", fail)

    found = findings(command("doctor", "--json"))["free disk"]

    assert found["detail"].endswith("cannot be measured: Input/output error")
    assert found["remedy"].startswith("The disk of ")


def test_a_working_directory_that_was_removed_is_named(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    removal = f"os.chdir({str(tmp_path / 'gone')!r}); os.rmdir(os.getcwd())"
    script = f"import os; import dramatiq_diag.cli; {removal}; {SCRIPT}"

    done = subprocess.run([sys.executable, "-c", script, "doctor"], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr.startswith("Error: DRAMATIQ_DIAG_DATA_DIR: ")
    assert "the working directory cannot be found" in done.stderr
