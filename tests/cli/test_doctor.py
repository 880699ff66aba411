"""`doctor`: what it looks at, and which remedies it names."""

from __future__ import annotations

import io
import os
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.cli import doctor_checks as doctor
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.worker_actors import note_actors
from support.cli import Command, add_up, checks_of


def test_doctor_finds_nothing_in_a_fresh_place_and_leaves_nothing_there(command: Command, data_dir: Path) -> None:
    result = command("doctor", "--json", TASK_DIAGNOSTICS="all")

    assert result.exit_code == 0, result.output
    assert {"python", "dramatiq", "memory", "spool", "blobs", "database"} <= set(checks_of(result))
    assert not data_dir.exists()


def test_doctor_compares_schema_and_store_ids_of_a_store_in_use(command: Command, execute: Any, data_dir: Path) -> None:
    execute(add_up)
    assert {check["status"] for check in checks_of(command("doctor", "--json")).values()} == {"ok", "info"}

    (data_dir / "blobs" / ".store-id").write_text(f"{uuid.uuid4()}\n")

    assert checks_of(command("doctor", "--json"))["store id"]["status"] == "finding"


def test_doctor_in_the_shell_of_the_web_part_says_what_workers_told_the_database(
    command: Command, data_dir: Path
) -> None:
    # Given a store that no worker has used yet, and an environment that selects nothing
    assert command("tasks").exit_code == 0
    checks = checks_of(command("doctor", "--json"))
    assert "workers may have another" in checks["selection"]["detail"]
    assert checks["workers"]["status"] == "info"

    # When a worker has said which actors it has, then that is told, whatever is selected here
    with closing(Store(Settings(data_dir=data_dir))) as store, store.session() as session:
        note_actors(session, {"resize": "default", "mail": "default"})
    workers = checks_of(command("doctor", "--json"))["workers"]
    assert workers["status"] == "ok"
    assert workers["detail"].startswith("they have named 2 actors, the last of them at 20")


def test_doctor_names_a_misspelt_variable_and_what_was_meant(command: Command) -> None:
    result = command("doctor", "--json", DRAMATIQ_DIAG_MEMORY_INTERVALL="1", TASK_DIAGNOSTIC="memory")

    checks = checks_of(result)
    assert checks["variable DRAMATIQ_DIAG_MEMORY_INTERVALL"]["remedy"] == "Did you mean DRAMATIQ_DIAG_MEMORY_INTERVAL?"
    assert checks["variable TASK_DIAGNOSTIC"]["remedy"] == "Did you mean TASK_DIAGNOSTICS?"


def test_doctor_names_a_directory_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = command("doctor", DRAMATIQ_DIAG_SPOOL_DIR=str(tmp_path / "file" / "spool"))

    assert result.exit_code == 1
    assert "DRAMATIQ_DIAG_SPOOL_DIR" in result.stdout


def test_doctor_names_a_disk_that_is_full(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))

    blobs = checks_of(command("doctor", "--json"))["blobs"]

    assert (blobs["status"], blobs["detail"].rpartition(": ")[2]) == ("finding", "No space left on device")


def test_doctor_names_what_a_selected_collector_lacks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: name == "memory")

    missing = checks_of(command("doctor", "--json", TASK_DIAGNOSTICS="memory,memray"))

    assert missing["memray"]["status"] == "finding"
    assert missing["memray"]["remedy"] == "pip install 'dramatiq_diag[memray]'"
    assert missing["pyinstrument"]["status"] == "info"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("sqlite:////{tmp_path}/none.db", "dramatiq-diag migrate"),
        ("postgresql://me@127.0.0.1:1/none", "Check DRAMATIQ_DIAG_DATABASE_URL"),
    ],
)
def test_doctor_names_a_database_that_cannot_be_used(command: Command, tmp_path: Path, url: str, remedy: str) -> None:
    result = command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=url.format(tmp_path=tmp_path))

    check = checks_of(result)["database"]
    assert check["status"] == "finding"
    assert remedy in check["remedy"]


def test_doctor_counts_the_runs_that_dead_workers_left(command: Command, killed_worker: None) -> None:
    check = checks_of(command("doctor", "--json"))["backlog"]

    assert check["status"] == "finding"
    assert "1 runs, " in check["detail"]
    assert " bytes, the oldest written to " in check["detail"]
    assert "1 of the runs were left by workers that died" in check["detail"]
    assert "dramatiq-diag recover" in check["remedy"]


def test_doctor_tells_runs_that_wait_for_the_store_from_those_that_run(command: Command, data_dir: Path) -> None:
    spool = Spool(Settings(data_dir=data_dir))
    spool.open()
    entry = spool.entry()
    entry.append({"a": "run"})
    entry.flush()
    entry.close()
    assert checks_of(command("doctor", "--json"))["backlog"]["status"] == "ok"

    # When nobody has written to it for long, though its worker lives
    os.utime(entry.path("entry"), (1, 1))

    check = checks_of(command("doctor", "--json"))["backlog"]
    assert check["status"] == "finding"
    assert "ended runs wait for the store" in check["detail"]
    entry.remove(())
    spool.close()
