"""`cleanup`, `check` and `migrate`: the store's upkeep."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.store import Store
from support.cli import SCRIPT, Command, add_up, document
from support.records import bundle
from support.store import Postgres, Stored


def test_cleanup_prints_the_counts_by_their_names(command: Command, execute: Any) -> None:
    execute(add_up)

    counts = document(command("cleanup", "--json"))

    names = ["expired_artifacts", "removed_blobs", "freed_bytes", "removed_runs", "removed_spool_entries"]
    assert counts == dict.fromkeys(names, 0)
    assert "expired artifacts" in command("cleanup").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks",),
        ("actors",),
        ("workers",),
        ("storage",),
        ("leaks",),
        ("captures",),
        ("check",),
        ("doctor",),
        ("recover",),
        ("cleanup", "--dry-run"),
        ("cleanup",),
    ],
    ids=" ".join,
)
def test_what_stores_nothing_claims_no_blob_directory(
    command: Command, data_dir: Path, tmp_path: Path, database_url: str | None, arguments: tuple[str, ...]
) -> None:
    shared = database_url or f"sqlite:///{tmp_path}/shared.db"
    migrate(Settings(database_url=shared))

    result = command(*arguments, DRAMATIQ_DIAG_DATABASE_URL=shared)

    assert result.exit_code == 0 or arguments == ("doctor",), result.output
    assert not (data_dir / "blobs").exists()
    with closing(Store(Settings(database_url=shared, data_dir=tmp_path / "worker"))) as store:
        store.publish([bundle()])
        assert not check(store)


def test_check_fix_claims_the_blob_directory(command: Command, data_dir: Path) -> None:
    assert command("check", "--fix").exit_code == 0
    with closing(Store(Settings())) as store:
        assert store.identity() == store.blobs.see_root()


def test_cleanup_removes_expired_artifacts_unless_it_is_a_dry_run(
    command: Command, data_dir: Path, bench: Any, settings: Any
) -> None:
    with bench(settings(task_diagnostics=["memory"], orphan_protection_time=0)) as tasks:
        task_id = tasks.run(add_up)

    planned = document(command("cleanup", "--dry-run", "--json"))
    assert document(command("artifacts", task_id, "--json"))["urls"]
    done = document(command("cleanup", "--json"))

    assert planned == done
    assert done["expired_artifacts"] == done["removed_blobs"] == 1
    assert done["freed_bytes"] > 0
    after = document(command("artifacts", task_id, "--json"))
    assert after["urls"] == {}
    assert [artifact["status"] for artifact in after["artifacts"]] == ["expired"]


def test_check_exits_1_when_it_finds_something_and_mends_it_when_asked(
    command: Command, execute: Any, stored: Callable[[Settings], Stored]
) -> None:
    task_id = execute(add_up)
    assert command("check").exit_code == 0
    artifact = stored(Settings()).artifacts(task_id)["memory_profile"]
    stored(Settings()).path(task_id, "memory_profile").unlink()
    found = {
        "missing_blobs": [str(artifact.artifact_id)],
        "damaged_blobs": [],
        "unknown_blobs": [],
        "wrong_counters": [],
    }

    assert document(command("check", "--json"), exit_code=1) == found
    assert document(command("check", "--fix", "--json"), exit_code=1) == found
    assert document(command("check", "--json")) == {name: [] for name in found}


@pytest.mark.parametrize("arguments", [("cleanup",), ("check", "--fix"), ("check",)])
def test_blobs_of_another_store_are_left_alone_with_exit_2(
    command: Command, execute: Any, data_dir: Path, arguments: tuple[str, ...]
) -> None:
    execute(add_up)
    (data_dir / "blobs" / ".store-id").write_text(f"{uuid.uuid4()}\n")
    before = sorted(data_dir.glob("blobs/*/*"))

    result = command(*arguments)

    assert result.exit_code == 2
    assert "belong to store" in result.stderr
    assert sorted(data_dir.glob("blobs/*/*")) == before


def test_migrate_makes_the_schema_of_an_empty_database(command: Command, postgres: Postgres) -> None:
    with postgres.database("template0") as name:
        url = postgres.url(name)

        before = command("tasks", DRAMATIQ_DIAG_DATABASE_URL=url)
        migrated = [command("migrate", DRAMATIQ_DIAG_DATABASE_URL=url).exit_code for _ in range(2)]

        assert (before.exit_code, migrated) == (1, [0, 0])
        assert "dramatiq-diag migrate" in before.stderr
        assert command("tasks", DRAMATIQ_DIAG_DATABASE_URL=url).exit_code == 0


def test_progress_is_shown_to_a_terminal_only(command: Command, execute: Any, tmp_path: Path) -> None:
    task_id = execute(add_up)
    assert command("check").stderr == ""

    terminal, standard_error = os.openpty()
    arguments = ["artifacts", task_id, "--download", str(tmp_path / "files"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=standard_error, check=True
    )
    os.close(standard_error)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)

    assert "memory_profile" in shown
    assert "100%" in shown
    assert json.loads(done.stdout)["run"]["task_id"] == task_id
