"""`report`: where the time went, and each of its formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.cli import Command, add_up


def add_up_a_lot() -> None:
    sum(number for number in range(2_000_000))


def test_report_prints_where_the_time_went(command: Command, execute: Any) -> None:
    task_id = execute(add_up_a_lot)

    result = command("report", task_id)

    assert result.exit_code == 0
    assert "add_up_a_lot" in result.stdout
    assert "_     ._   __/__" in result.stdout  # pyinstrument's head.


def test_report_writes_each_format_and_never_over_a_file(command: Command, execute: Any, tmp_path: Path) -> None:
    task_id = execute(add_up_a_lot)
    written = {}
    for name in ("html", "text", "speedscope", "firefox", "session"):
        target = tmp_path / name
        result = command("report", task_id, "time", "--format", name, "-o", str(target))
        assert (result.exit_code, result.stdout) == (0, "")
        written[name] = target.read_text("utf-8")

    assert written["html"].lower().startswith("<!doctype html>")
    assert all("add_up_a_lot" in text for text in written.values())
    assert json.loads(written["speedscope"])["exporter"] == "pyinstrument"
    assert json.loads(written["session"])["target_description"].startswith(f"Task {task_id}")
    again = command("report", task_id, "-o", str(tmp_path / "text"))
    assert again.exit_code == 1
    assert "exists" in again.stderr
    assert (tmp_path / "text").read_text("utf-8") == written["text"]


def test_report_of_a_missing_artifact_gives_the_reason(command: Command, bench: Any, settings: Any) -> None:
    with bench(settings(task_diagnostics=["memory"])) as tasks:
        task_id = tasks.run(add_up)

    for arguments, said in (
        ((task_id,), "pyinstrument_profile was not collected for this run"),
        (("no-such-task",), "Nothing was ever collected for task 'no-such-task'"),
        ((task_id, "--attempt", "7"), "Nothing was ever collected for attempt 7 of task"),
    ):
        result = command("report", *arguments)
        assert result.exit_code == 1
        assert said in result.stderr


def test_report_of_a_removed_artifact_gives_the_reason(command: Command, bench: Any, settings: Any) -> None:
    with bench(settings(task_diagnostics=["pyinstrument"], pyinstrument_start_after=60)) as tasks:
        task_id = tasks.run(add_up)

    result = command("report", task_id)

    assert result.exit_code == 1
    assert "pyinstrument_profile is skipped: The run ended before it had lasted 60 s." in result.stderr
