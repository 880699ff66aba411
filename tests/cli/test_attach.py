"""The command `attach`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dramatiq_diag import Settings
from support import eventually
from support.attachments import SOON, Attaching
from support.cli import Command
from support.hanging import hanging


def test_it_waits_for_the_files_and_writes_them(
    command: Command, data_dir: Path, bench: Any, store_of: Any, tmp_path: Path
) -> None:
    given = Settings(data_dir=data_dir, task_diagnostics_on_request=["memory"])
    ask = Attaching(store_of(given))
    allowed = {"TASK_DIAGNOSTICS_ON_REQUEST": "memory"}
    with bench(given, tuning=SOON) as tasks, hanging(tasks, actor_name="hangs") as (task_id, _):
        eventually(lambda: ask.is_executed(task_id), "the worker has said that it executes the task")
        target = str(tmp_path / "files")
        text = command("attach", task_id, "--diagnostics", "memory", "--for", "1s", "--download", target, **allowed)
        of_actor = command("attach", "--actor", "hangs", "--diagnostics", "memory", "--for", "1s", "--json", **allowed)

    shown, listed = command("show", task_id), command("artifacts", task_id)
    both = tmp_path / "both"
    written = command("artifacts", task_id, "--download", str(both), "--json")

    assert text.exit_code == 0, text.stderr
    assert "memory_profile: stored, memory.datum" in text.stdout
    assert "Attachments: 1 done" in text.stderr
    assert (tmp_path / "files" / "memory.datum").read_text().startswith("# Seconds since task start")
    assert of_actor.exit_code == 0, of_actor.stderr
    (document,) = json.loads(of_actor.stdout)["attachments"]
    assert (document["task_id"], document["state"], [*document["urls"]]) == (task_id, "done", ["memory_profile"])
    # And what is said of the run names them
    attachment_id = document["attachment_id"]
    assert f"{attachment_id}: memory, done\n    memory_profile: stored, memory.datum" in shown.stdout
    assert f"dramatiq-diag artifacts {task_id} --download DIR" in shown.stdout
    assert f"Attachment {attachment_id}: memory, done\n\nmemory_profile: stored, memory.datum" in listed.stdout
    assert written.exit_code == 0, written.stderr
    found = json.loads(written.stdout)["attachments"]
    assert found[0]["attachment_id"] == attachment_id  # The newest.
    assert {file.relative_to(both).as_posix() for file in both.rglob("*.datum")} == {
        f"{each['attachment_id']}/memory.datum" for each in found
    }


def test_a_task_that_nobody_executes_ends_with_1(command: Command) -> None:
    result = command("attach", "nothing", "--diagnostics", "memory", TASK_DIAGNOSTICS="memory")
    assert result.exit_code == 1
    assert "No worker process has reported to this database" in result.stderr


def test_wrong_usage_ends_with_2(command: Command) -> None:
    assert command("attach", "--diagnostics", "memory").exit_code == 2
    refused = command("attach", "task", "--diagnostics", "memray", TASK_DIAGNOSTICS="memory")
    assert refused.exit_code == 2
    assert "TASK_DIAGNOSTICS_ON_REQUEST has 'memray'" in refused.stderr
