"""Commands that find a run by the beginning of its task's id, list actors, and print logs and resources."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from dramatiq_diag.cli import main
from dramatiq_diag.statuses import ArtifactStatus, MemoryRole, RunStatus
from dramatiq_diag.store.store import Store
from support import PATIENCE_S
from support.cli import make_runner
from support.records import NOW, artifact_record, bundle, run_record

OOM = "The worker process died while the task ran; this is what it left. At the last look: it looks like an OOM kill."
LOG = b"2026-05-04 INFO work: began\n2026-05-04 ERROR work: \x1b[2Jcleared\tthe screen\n"

Command = Callable[..., Result]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command on the data dir of this test, in this process."""
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments: str) -> Result:
        result = make_runner().invoke(main, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def store(settings: Any, store_of: Any) -> Store:
    opened: Store = store_of(settings())
    return opened


def log_record() -> Any:
    return artifact_record(name="task_logs", filename="task.log", open=lambda: io.BytesIO(LOG))


@pytest.mark.parametrize("name", ["show", "artifacts", "report"])
def test_the_beginning_of_an_id_is_enough_where_one_task_has_it(command: Command, store: Store, name: str) -> None:
    store.publish([bundle(run_record(task_id=task_id)) for task_id in ("4c1d-first", "4c2e-second")])
    kind = ["memory"] if name == "report" else []

    found = command(name, "4c1", *kind)

    assert found.exit_code == 0
    exact = command(name, "4c1d-first", *kind)
    assert _without_signatures(exact.stdout) == _without_signatures(found.stdout)
    assert command(name, "nothing", *kind).stderr == "Error: Nothing was ever collected for task 'nothing'.\n"


def _without_signatures(text: str) -> str:
    """Returns: A text without the parts of URLs that are others each second."""
    return re.sub(r"\?expires=\S+", "", text)


def test_the_beginning_of_several_ids_names_the_tasks(command: Command, store: Store) -> None:
    store.publish([bundle(run_record(task_id=f"4c{number}")) for number in range(7)])

    result = command("show", "4c")

    assert result.exit_code == 1
    assert result.stderr == "Error: Several tasks begin with '4c': 4c0, 4c1, 4c2, 4c3, 4c4 and more.\n"


def test_a_whole_id_comes_before_longer_ones_that_begin_like_it(command: Command, store: Store) -> None:
    store.publish([bundle(run_record(task_id=task_id)) for task_id in ("import", "import-2")])

    assert "Task import:" in command("show", "import").stdout
    assert command("show", "import", "--attempt", "2").stderr == (
        "Error: Nothing was ever collected for attempt 2 of task 'import'.\n"
    )


def test_commands_that_change_a_run_need_its_whole_id(command: Command, store: Store) -> None:
    store.publish([bundle(run_record(task_id="4c1d-first"))])

    assert command("pin", "4c1d").exit_code == 1
    assert command("delete", "4c1d", "--yes").exit_code == 1
    assert command("pin", "4c1d-first").exit_code == 0


def test_actors_are_listed_with_their_figures(command: Command, store: Store) -> None:
    store.publish(
        [
            bundle(run_record(actor_name="mail", duration_ms=10.0, peak_rss_bytes=5 * 1024**2)),
            bundle(run_record(actor_name="mail", duration_ms=30.0, status=RunStatus.FAILED)),
            bundle(run_record(actor_name="resize", duration_ms=2500.0, started_at=NOW + timedelta(days=1))),
        ]
    )

    lines = [line.split() for line in command("actors").stdout.splitlines()]

    assert lines[1][:10] == ["mail", "2", "1", "20.0", "ms", "30.0", "ms", "-", "5.0", "MiB"]
    assert lines[2] == ["resize", "1", "0", "2.50", "s", "2.50", "s", "-", "-", "2026-05-05T03:02:01Z"]
    recent = json.loads(command("actors", "--since", "2026-05-05", "--json").stdout)
    assert [(actor["actor_name"], actor["run_count"]) for actor in recent["actors"]] == [("resize", 1)]


def test_without_actors_it_says_so(command: Command, store: Store) -> None:
    assert command("actors").stdout.startswith("No actors: there is no stored run")


def test_logs_go_out_as_they_are_stored_unless_to_a_terminal(command: Command, store: Store, tmp_path: Path) -> None:
    store.publish([bundle(run_record(task_id="t"), log_record())])

    piped = make_runner().invoke(main, ["report", "t", "logs"])
    shown = on_terminal(tmp_path, "report", "t", "logs")

    assert piped.stdout_bytes == LOG
    assert b"\x1b" not in shown
    assert "ERROR work: \ufffd[2Jcleared" in shown.decode()


def on_terminal(tmp_path: Path, *arguments: str) -> bytes:
    """Returns: What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(tmp_path / "data")}
    command = [sys.executable, "-c", "from dramatiq_diag.cli import main; main()", *arguments]
    subprocess.run(command, stdout=theirs, env=environment, check=True, timeout=PATIENCE_S)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # The terminal's other end is closed.
        pass
    finally:
        os.close(ours)
    return shown


def test_resources_go_out_as_a_table(command: Command, store: Store) -> None:
    table = b"elapsed_seconds,threads\n0.000,3\n"
    resources = artifact_record(table, name="resources_profile", filename="resources.csv", media_type="text/csv")
    store.publish([bundle(run_record(task_id="t"), resources)])

    assert make_runner().invoke(main, ["report", "t", "resources"]).stdout_bytes == table
    assert command("report", "t", "logs").stderr == "Error: task_logs was not collected for this run.\n"


def test_a_run_that_grew_its_process_says_so(command: Command, store: Store) -> None:
    reason = "At the last look this task was growing by 210.0 MiB/s; it was at eat (/app/work.py:12)."
    roles = {"eater": MemoryRole.GROWER, "asleep": MemoryRole.VICTIM}
    for task_id, role in roles.items():
        others = [other for other in roles if other != task_id]
        run = run_record(
            task_id=task_id,
            status=RunStatus.INTERRUPTED,
            overlapped_task_ids=others,
            memory_role=role,
            death_reason=reason if role == MemoryRole.GROWER else "This task was a victim.",
        )
        store.publish([bundle(run)])

    shown = command("show", "eater").stdout

    assert shown.count(reason) == 1
    assert "attempt 1 of 1: interrupted, grew after" in shown
    assert "interrupted, victim" in shown
    document = json.loads(command("show", "eater", "--json").stdout)["run"]
    assert (document["memory_role"], document["death_reason"]) == ("grower", reason)
    listed = command("tasks").stdout
    assert "interrupted, grew" in listed
    assert "interrupted, victim" in listed


def test_show_says_once_why_a_run_was_cut_short(command: Command, store: Store) -> None:
    partial = {"status": ArtifactStatus.PARTIAL, "reason": OOM}
    other = {"status": ArtifactStatus.PARTIAL, "reason": "The worker process died before it was saved."}
    curve = artifact_record(b"0.000\t100.000\n1.000\t200.000\n", **partial)
    profile = artifact_record(b"x", name="pyinstrument_profile", filename="p.html", **other)
    run = run_record(task_id="t", status=RunStatus.INTERRUPTED)
    store.publish(
        [bundle(run, curve, log_record(), profile, artifact_record(b"x", name="resources_profile", **partial))]
    )

    shown = command("show", "t").stdout

    assert shown.count("it looks like an OOM kill") == 1
    assert shown.index("it looks like an OOM kill") < shown.index("Memory of the process")
    assert shown.index("died before it was saved") > shown.index("Time")
    assert json.loads(command("show", "t", "--json").stdout)["interruption"] == OOM
