"""`show`, `compare` and the reports of memory, as they are typed."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from dramatiq_diag import Settings
from dramatiq_diag.cli.compare import compare
from dramatiq_diag.cli.figures import sparklines
from dramatiq_diag.cli.group import Commands
from dramatiq_diag.cli.report import report
from dramatiq_diag.cli.show import show
from dramatiq_diag.store.records import RunRecord
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.cli import make_runner
from support.records import NOW, bundle, run_record
from support.tasks import running_bench

SCRIPT = "from dramatiq_diag.cli.report import report; report()"

Command = Callable[..., Result]

pytest.importorskip("pyinstrument")
memray = pytest.importorskip("memray")


def hold(megabytes: int) -> bytes:
    return b"h" * (megabytes * MIB)


def spin(count: int) -> int:
    return sum(number for number in range(count))


def work(megabytes: int, count: int) -> None:
    held = hold(megabytes)
    spin(count)
    del held


def fail() -> None:
    raise ValueError("no such file: \x1b[2Jreport")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command on the data dir of this test, in this process."""
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path / "data"))
    group = Commands(commands={"show": show, "compare": compare, "report": report})

    def run(*arguments: str) -> Result:
        result = make_runner().invoke(group, arguments)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def execute(bench: Any, settings: Any) -> Callable[..., str]:
    """Executes a function as a task. Returns: The task's id."""

    def run(fn: Callable[..., None], *args: Any, names: tuple[str, ...] = ("memory", "pyinstrument", "memray")) -> str:
        with bench(settings(task_diagnostics=names, memory_interval=0.01, pyinstrument_interval=0.001)) as tasks:
            return str(tasks.run(fn, *args))

    return run


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Runs that many tests read, by the ids of their tasks."""

    data_dir: Path
    small: str
    large: str
    failed: str


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    names = ("memory", "pyinstrument", "memray")
    given = Settings(
        data_dir=tmp_path_factory.mktemp("show") / "data",
        task_diagnostics=names,
        memory_interval=0.01,
        pyinstrument_interval=0.001,
        cleanup_interval=0,
    )
    with running_bench(given) as tasks:
        actor = tasks.actor(work)
        small, large = (actor.send(*arguments).message_id for arguments in ((10, 1_000_000), (40, 6_000_000)))
        return Runs(data_dir=given.data_dir, small=small, large=large, failed=tasks.run(fail))


@pytest.fixture
def runs(made: Runs, command: Command, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Those runs; `command` works on their data dir."""
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(made.data_dir))
    return made


def part(text: str, heading: str) -> list[str]:
    """The lines of a part of what was printed."""
    [found] = [paragraph for paragraph in text.split("\n\n") if paragraph.startswith(heading)]
    return found.splitlines()[1:]


def test_show_tells_a_run_in_words(command: Command, runs: Runs) -> None:
    result = command("show", runs.large)

    assert result.exit_code == 0
    assert f"Task {runs.large}: work\n  attempt 1 of 1: succeeded after " in result.stdout
    curve, figures = part(result.stdout, "Memory")
    assert {*curve.strip()} <= {*"▁▂▃▄▅▆▇█"}
    assert all(word in figures for word in ("first", "peak", "last"))
    assert any("spin" in line and " % " in line for line in part(result.stdout, "Time: "))
    assert "40.0 MiB  100.0 %" in part(result.stdout, "Allocations")[1]
    assert "hold" in part(result.stdout, "Allocations")[1]


def test_show_as_json_has_the_same_figures(command: Command, runs: Runs) -> None:
    document = json.loads(command("show", runs.large, "--json").stdout)

    assert document["run"]["status"] == "succeeded"
    assert document["memory"]["peak_bytes"] >= document["memory"]["first_bytes"] > 0
    assert document["allocations"]["functions"][0]["function"] == "hold"
    assert document["allocations"]["functions"][0]["self"] == pytest.approx(40 * MIB, rel=0.01)
    assert document["time"]["unit"] == "ms"


def test_show_of_a_failure_names_it_and_steers_no_terminal(command: Command, runs: Runs) -> None:
    result = command("show", runs.failed)

    assert result.exit_code == 0
    assert ": failed after " in result.stdout
    assert "raised ValueError: no such file: \ufffd[2Jreport" in result.stdout


def test_show_has_the_reason_in_place_of_a_missing_artifact(command: Command, execute: Any) -> None:
    result = command("show", execute(work, 1, 10, names=("memory",)))

    assert result.exit_code == 0
    assert part(result.stdout, "Time") == ["  pyinstrument_profile was not collected for this run."]
    assert part(result.stdout, "Allocations") == ["  memray_profile was not collected for this run."]


def test_show_names_the_coroutine_that_kept_the_event_loop(command: Command, bench: Any, settings: Any) -> None:
    asleep = threading.Event()

    async def nap() -> None:
        asleep.set()
        await asyncio.sleep(0.01)

    async def keep_loop() -> None:
        while not asleep.is_set():
            await asyncio.sleep(0.001)
        time.sleep(0.3)

    with bench(settings(task_diagnostics=["accounting"]), threads=2) as tasks:
        keeping = tasks.actor(keep_loop).send().message_id
        napping = tasks.actor(nap).send().message_id
        tasks.finish()

    lines = part(command("show", napping).stdout, "Tasks that used the CPU or kept the event loop meanwhile")
    assert lines[0].split() == ["KEPT", "THE", "LOOP", "CPU", "OF", "ITS", "TIME", "TASK"]
    assert lines[1].endswith(f"{keeping}  keep_loop")


def test_show_lists_the_tasks_that_overlapped(command: Command, bench: Any, settings: Any) -> None:
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(PATIENCE_S)

    with bench(settings(task_diagnostics=["memory"]), threads=2) as tasks:
        actor = tasks.actor(meet)
        first, second = actor.send().message_id, actor.send().message_id
        tasks.finish()

    lines = part(command("show", first).stdout, "Beside it")
    assert len(lines) == 2
    assert lines[1].endswith(f"succeeded  {second}  meet")
    assert command("show", second).stdout.count(first) == 1


def test_show_names_the_sender_of_a_run_and_the_runs_it_sent(command: Command, settings: Any, store_of: Any) -> None:
    def run(task_id: str, second: int, parent_run_id: uuid.UUID | None) -> RunRecord:
        return run_record(task_id=task_id, started_at=NOW + timedelta(seconds=second), parent_run_id=parent_run_id)

    parent = run("parent", 0, None)
    one = run("one", 2, parent.run_id)
    child = run("child \x1b[2J", 5, one.run_id)
    store_of(settings()).publish([bundle(each) for each in (parent, one, child, run("orphan", 0, uuid.UUID(int=7)))])

    text = command("show", "one").stdout
    assert part(text, "Sent by")[1].split()[0] == "-2.00"
    assert "parent" in part(text, "Sent by")[1]
    assert part(text, "Sent\n")[1].split()[0] == "+3.00"
    assert "child \ufffd[2J" in part(text, "Sent\n")[1]
    assert "Run 00000000-0000-0000-0000-000000000007, which no longer exists" in command("show", "orphan").stdout
    document = json.loads(command("show", "one", "--json").stdout)
    assert document["parent"]["task_id"] == "parent"
    assert [each["run_id"] for each in document["children"]] == [str(child.run_id)]


@pytest.mark.parametrize(
    "arguments", [("show", "no-such"), ("compare", "no-such", "no-such"), ("report", "no-such", "memory")]
)
def test_an_unknown_task_is_a_finding(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)

    assert result.exit_code == 1
    assert "Nothing was ever collected for task 'no-such'" in result.stderr


def test_compare_lists_the_largest_growth_first(command: Command, runs: Runs) -> None:
    result = command("compare", runs.small, runs.large)

    assert result.exit_code == 0
    time = part(result.stdout, "Time: ")
    assert time[1].lstrip().startswith("+")
    assert "spin" in time[1] or "genexpr" in time[1]
    allocations = part(result.stdout, "Allocations")
    assert allocations[1].split()[:6] == ["+30.0", "MiB", "10.0", "MiB", "40.0", "MiB"]
    assert "hold" in allocations[1]
    assert [line[:4] for line in part(result.stdout, "Memory")[::2]] == ["  A ", "  B "]


def test_compare_as_json_is_the_document_of_the_web(command: Command, runs: Runs) -> None:
    document = json.loads(command("compare", runs.large, runs.small, "--json").stdout)

    assert (document["a"]["task_id"], document["b"]["task_id"]) == (runs.large, runs.small)
    last = document["allocations"]["functions"][-1]
    assert last["function"] == "hold"
    assert last["difference"] == pytest.approx(-30 * MIB, rel=0.01)


def test_compare_takes_two_attempts_of_one_task(command: Command, bench: Any, settings: Any) -> None:
    def fail_once(tries: list[int] = []) -> None:  # noqa: B006 - which attempt it is.
        tries.append(1)
        if len(tries) == 1:
            raise ValueError

    with bench(settings(task_diagnostics=["memory"])) as tasks:
        task_id = tasks.run(fail_once, max_retries=1)

    result = command("compare", task_id, task_id, "--attempt-a", "1", "--attempt-b", "2")

    assert result.exit_code == 0
    assert "attempt 1: failed" in result.stdout
    assert "attempt 2: succeeded" in result.stdout
    assert "memray_profile was not collected for run A" in result.stdout
    assert command("compare", task_id, task_id, "--attempt-b", "3").exit_code == 1


def test_without_memray_the_rest_is_shown(
    command: Command, execute: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task_id = execute(work, 10, 1_000_000)
    # Given an interpreter that has no memray
    (tmp_path / "without" / "memray").mkdir(parents=True)
    (tmp_path / "without" / "memray" / "__init__.py").write_text("raise ImportError('there is none')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "without"), prepend=os.pathsep)

    for result in (command("show", task_id), command("compare", task_id, task_id)):
        assert result.exit_code == 0
        assert "pip install 'dramatiq_diag[memray]'" in part(result.stdout, "Allocations")[0]
        assert any("spin" in line for line in part(result.stdout, "Time: "))


@pytest.mark.parametrize(
    ("curves", "lines"),
    [
        ([[(0.0, 0), (60.0, 100)]], ["▁" * 59 + "█"]),
        # On one scale of memory and of time.
        ([[(0.0, 0), (60.0, 100)], [(0.0, 100), (29.5, 100)]], ["▁" * 59 + "█", "█" * 30]),
        # What hardly moves is flat.
        ([[(0.0, 10_000), (60.0, 10_001)]], ["▁" * 60]),
        ([[(0.0, 5)]], ["▁"]),
        ([], []),
    ],
)
def test_curves_are_drawn_in_blocks(curves: Any, lines: list[str]) -> None:
    assert sparklines(*curves) == lines


# The report of memory.


def test_a_report_of_memory_is_a_table_for_a_spreadsheet_and_files_for_the_rest(
    command: Command, runs: Runs, tmp_path: Path
) -> None:
    pytest.importorskip("vl_convert")
    task_id = runs.small

    assert command("report", task_id, "memory").stdout.startswith("seconds,rss_bytes\n0.0")
    for name, begins in (("svg", b"<svg"), ("png", b"\x89PNG"), ("html", b"<!doctype html>"), ("datum", b"# Seconds")):
        target = tmp_path / name
        assert command("report", task_id, "memory", "--format", name, "-o", str(target)).exit_code == 0
        assert target.read_bytes().startswith(begins)


@pytest.mark.parametrize(("kind", "name"), [("memory", "png"), ("allocations", "capture")])
def test_a_binary_report_is_refused_at_a_terminal(runs: Runs, kind: str, name: str) -> None:
    ours, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, runs.small, kind, "--format", name],
            stdout=terminal,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE_S,
        )
    finally:
        os.close(terminal)
        os.close(ours)

    assert done.returncode == 2
    assert f"{name} cannot be shown in a terminal" in done.stderr


def test_open_writes_a_private_file_and_hands_it_to_the_browser(runs: Runs, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    seen, browser = tmp_path / "seen", tmp_path / "xdg-open"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}.new\nmv {seen}.new {seen}\n')
    browser.chmod(0o700)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}

    subprocess.run([sys.executable, "-c", SCRIPT, runs.small, "memory", "--open"], env=environment, check=True)

    path = Path(eventually(lambda: seen.exists() and seen.read_text(), "the browser is started"))
    assert path.parent == tmp_path
    assert path.suffix == ".html"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"<!doctype html>")


def test_open_without_a_browser_says_where_the_file_is(command: Command, runs: Runs, tmp_path: Path) -> None:
    task_id = runs.small
    environment = os.environ | {"PATH": str(tmp_path / "nothing"), "TMPDIR": str(tmp_path)}
    script = "from dramatiq_diag.cli.group import Commands; from dramatiq_diag.cli.report import report; "
    script += "Commands(commands={'report': report})()"

    done = subprocess.run(
        [sys.executable, "-c", script, "report", task_id, "memory", "--format", "csv", "--open"],
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "No browser could be started; open " in done.stderr
    assert command("report", task_id, "memory", "--open", "-o", str(tmp_path / "x")).exit_code == 2
