"""`recover`: what dead workers left is published once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from support import PATIENCE_S
from support.cli import SCRIPT, Command, checks_of, document
from support.tasks import Gate


def test_recover_publishes_the_runs_of_dead_workers_once(command: Command, killed_worker: None) -> None:
    assert document(command("recover", "--json")) == {"recovered_runs": 1, "refused_runs": 0}

    (run,) = document(command("tasks", "--json"))["runs"]
    assert (run["actor_name"], run["status"]) == ("die", "interrupted")
    assert document(command("recover", "--json")) == {"recovered_runs": 0, "refused_runs": 0}
    assert document(command("check", "--json")) == {
        "missing_blobs": [],
        "damaged_blobs": [],
        "unknown_blobs": [],
        "wrong_counters": [],
    }
    assert checks_of(command("doctor", "--json"))["backlog"]["detail"] == "0 runs, 0 B"


def test_recover_leaves_entries_that_cannot_be_published_and_counts_them(
    command: Command, data_dir: Path, killed_worker: None
) -> None:
    (entry,) = (path for path in (data_dir / "spool").glob("*/*.entry") if path.stat().st_size)
    entry.write_text("no record of ours\n")

    result = command("recover")

    assert result.exit_code == 1
    assert "Recovered 0 runs" in result.output
    assert "Not published, and left in place: 1 entry." in result.output
    assert entry.exists()


def test_recover_leaves_the_runs_of_a_living_worker_alone(
    command: Command, data_dir: Path, bench: Any, settings: Any
) -> None:
    gate = Gate()
    with bench(settings(task_diagnostics=["memory"])) as tasks:
        tasks.actor(gate.wait).send()
        assert gate.reached.wait(PATIENCE_S)
        script = subprocess.run(
            [sys.executable, "-c", SCRIPT, "recover", "--json"], capture_output=True, text=True, timeout=PATIENCE_S
        )
        gate.opened.set()
        tasks.finish()

    assert (script.returncode, json.loads(script.stdout)) == (0, {"recovered_runs": 0, "refused_runs": 0})
