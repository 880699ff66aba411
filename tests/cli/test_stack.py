"""The command `stack`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.documents.stacks import take_stacks
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.cli import Command
from support.hanging import hanging, is_line_that_hangs
from support.workers import is_executed

SOON = Tuning(attention_s=0.05, report_s=0.05)


def test_a_hanging_task_shows_its_line_and_the_address(
    command: Command, data_dir: Path, bench: Any, store_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dramatiq_diag.cli.stack.take_stacks", partial(take_stacks, timeout_s=PATIENCE_S))
    given = Settings(data_dir=data_dir, task_diagnostics_on_request=["memory"])
    store = store_of(given)

    with bench(given, tuning=SOON) as tasks, hanging(tasks) as (task_id, peer):
        eventually(lambda: is_executed(store, task_id), "the worker has said that it executes the task")
        text, all_threads = command("stack", task_id), command("stack", task_id, "--all")
        document = json.loads(command("stack", task_id, "--json").stdout)

    assert text.exit_code == 0
    assert f"{peer}" in text.stdout
    assert "executes the task: blocked" in text.stdout
    assert "connection.recv(1)  # It hangs here." in text.stdout
    assert text.stdout.count("threading.py") < all_threads.stdout.count("threading.py")
    assert is_line_that_hangs(document["threads"][0]["frames"][0])


def test_a_database_without_workers_ends_with_1(command: Command) -> None:
    result = command("stack", "nothing")
    assert result.exit_code == 1
    assert "No worker process has reported to this database" in result.stderr
