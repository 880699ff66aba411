"""`doctor`: what it looks at, and which remedies it names."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
import uuid
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.worker_actors import note_actors
from support.cli import Command, add_up, checks_of, document


class Disks:
    """The disks of a machine: a directory each, with the part that is free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free: dict[Path, float] = {}
        self.inodes = 1000, 500
        "Those of each disk, and the free ones; no test depends on those of its machine."
        stat = Path.stat
        monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_files=self.inodes[0], f_favail=self.inodes[1]))
        monkeypatch.setattr(shutil, "disk_usage", self._usage)
        monkeypatch.setattr(Path, "stat", lambda path, **options: self._on_disk(path, stat(path, **options)))

    def _usage(self, path: Path) -> Any:
        free = next((free for disk, free in self.free.items() if path.is_relative_to(disk)), 0.5)
        return SimpleNamespace(total=2**40, free=int(free * 2**40))

    def _on_disk(self, path: Path, found: os.stat_result) -> os.stat_result:
        number = next((number for number, disk in enumerate(self.free, 1000) if path.is_relative_to(disk)), None)
        return found if number is None else os.stat_result([*found[:2], number, *found[3:]])


@pytest.fixture(autouse=True)
def disks(monkeypatch: pytest.MonkeyPatch) -> Disks:
    """Lets half of each disk be free, however full the machine of the tests is."""
    return Disks(monkeypatch)


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


def test_doctor_on_the_web_host_names_the_actors_that_workers_reported(command: Command, data_dir: Path) -> None:
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
    assert workers["detail"].startswith("workers reported 2 actors, the last one at 20")


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
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))

    blobs = checks_of(command("doctor", "--json"))["blobs"]

    assert (blobs["status"], blobs["detail"].rpartition(": ")[2]) == ("finding", "No space left on device")


def test_doctor_names_the_disk_on_which_less_than_a_tenth_is_free(
    command: Command, disks: Disks, tmp_path: Path
) -> None:
    for name in ("spool", "blobs"):
        (tmp_path / name).mkdir(mode=0o700)
    elsewhere = {
        "DRAMATIQ_DIAG_SPOOL_DIR": str(tmp_path / "spool"),
        "DRAMATIQ_DIAG_BLOB_URL": str(tmp_path / "blobs"),
    }
    disks.free = {tmp_path / "spool": 0.101, tmp_path / "blobs": 0.099}

    checks = document(command("doctor", "--json", **elsewhere), 1)["checks"]

    found = {check["detail"]: check for check in checks if check["name"] == "free disk"}
    assert [(check["status"], detail) for detail, check in found.items()] == [
        ("ok", "512.0 GiB of 1.0 TiB are free for data dir"),
        ("ok", "103.4 GiB of 1.0 TiB are free for spool"),
        ("finding", "101.4 GiB of 1.0 TiB are free for blobs, less than 10%"),
    ]
    assert "DRAMATIQ_DIAG_MAX_BYTES" in [*found.values()][-1]["remedy"]


def test_doctor_names_a_disk_once_for_all_that_is_on_it(command: Command, disks: Disks) -> None:
    disks.free = {Path("/"): 0.01}

    checks = [check for check in document(command("doctor", "--json"), 1)["checks"] if check["name"] == "free disk"]

    assert [check["status"] for check in checks] == ["finding"]
    assert checks[0]["detail"].endswith("are free for data dir, spool, blobs, less than 10%")


@pytest.mark.parametrize(
    ("inodes", "finding"),
    [
        ((1000, 99), "99 of 1000 inodes are free for data dir, spool, blobs, less than 10%"),
        ((1000, 100), None),
        ((0, 0), None),  # As btrfs says, which makes them when they are needed.
    ],
)
def test_doctor_names_a_disk_that_takes_few_more_files(
    command: Command, disks: Disks, inodes: tuple[int, int], finding: str | None
) -> None:
    disks.inodes = inodes

    checks = document(command("doctor", "--json"), 0 if finding is None else 1)["checks"]

    found = [check["detail"] for check in checks if check["name"] == "free disk" and check["status"] == "finding"]
    assert found == ([] if finding is None else [finding])


def test_doctor_names_what_a_selected_collector_lacks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("memray", "pyinstrument"):
        monkeypatch.setitem(sys.modules, name, None)  # So it cannot be found.

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
    assert "1 run, " in check["detail"]
    assert " KiB, the oldest written to " in check["detail"]
    assert "left by workers that died: 1" in check["detail"]
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


def test_doctor_looks_at_no_disk_for_blobs_in_a_bucket(command: Command, s3_bucket: str) -> None:
    checks = checks_of(command("doctor", "--json", DRAMATIQ_DIAG_BLOB_URL=s3_bucket))

    assert checks["free disk"]["detail"].endswith("are free for data dir, spool")
