"""The `dramatiq-diag` command: its help, and its errors in words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.store.captures import create
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.workers import note_worker
from support import PATIENCE_S
from support.cli import SCRIPT, Command
from support.records import artifact_record, bundle, executed_task, run_record, worker_report

COMMANDS = (
    *("demo", "serve", "migrate", "cleanup", "tasks", "artifacts", "report", "recover", "doctor", "check"),
    *("capture", "captures", "uninstall"),
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_an_example(command: Command, name: str) -> None:
    result = command(name, "--help")

    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"dramatiq-diag {name}" in result.stdout


def test_help_names_the_commands_the_settings_and_the_exit_codes(command: Command) -> None:
    text = command("--help").stdout

    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "TASK_DIAGNOSTICS" in text
    assert "Exit codes" in text


def test_the_version_is_the_package_s(command: Command) -> None:
    assert command("--version").stdout == "dramatiq-diag, version 0.1.0\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("DRAMATIQ_DIAG_MEMORY_INTERVAL", "0"), ("TASK_DIAGNOSTICS", "memoy"), ("DRAMATIQ_DIAG_DATABASE_URL", "x://")],
)
def test_a_wrong_setting_exits_2_with_one_line_that_names_it(command: Command, name: str, value: str) -> None:
    result = command("tasks", **{name: value})

    assert result.exit_code == 2
    assert result.stdout == ""
    assert name in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "--cursor", "made-up"),
        ("tasks", "--limit", "0"),
        ("tasks", "--status", "sleeping"),
        ("artifacts",),
        ("artifacts", "task", "--attempt", "0"),
        ("serve", "--port", "65536"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_exits_2(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize("name", ["artifacts", "show", "report", "pin", "unpin"])
def test_an_attempt_of_any_size_is_only_not_there(command: Command, name: str) -> None:
    result = command(name, "task", "--attempt", "9" * 30)

    assert result.exit_code == 1
    assert "Nothing was ever collected for attempt" in result.stderr


def test_a_database_out_of_reach_exits_1_and_keeps_its_password_to_itself(command: Command) -> None:
    result = command("tasks", DRAMATIQ_DIAG_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/none")

    assert result.exit_code == 1
    assert "cannot be used" in result.stderr
    assert "secret" not in result.stdout + result.stderr


@pytest.fixture
def run_it(settings: Callable[..., Settings], store_of: Callable[[Settings], Store]) -> Callable[..., Any]:
    """Runs the command in a process of its own, on a store with one run that has names of all kinds."""
    given = settings()
    store_of(given).publish([bundle(run_record(task_id="täsk…", actor_name="größe→"))])

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
        environment = os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(given.data_dir)} | options.pop("environment", {})
        return subprocess.run([sys.executable, "-c", SCRIPT, *arguments], stderr=-1, env=environment, **options)

    return run


@pytest.mark.parametrize("encoding", ["latin-1", "cp437", "utf-8"])
@pytest.mark.parametrize("arguments", [["tasks"], ["show", "täsk…"]], ids=lambda given: given[0])
def test_a_character_that_the_encoding_of_the_output_lacks_is_replaced(
    run_it: Callable[..., Any], encoding: str, arguments: list[str]
) -> None:
    done = run_it(*arguments, environment={"PYTHONIOENCODING": encoding}, stdout=subprocess.PIPE)

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"gr" in done.stdout
    if encoding == "cp437":
        assert "größe?".encode(encoding) in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="It is of Linux.")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["tasks"], ["tasks", "--json"], ["--help"], ["tasks", "--help"]], ids=" ".join)
def test_a_full_output_ends_it_with_one_line(run_it: Callable[..., Any], unbuffered: str, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = run_it(*arguments, environment={"PYTHONUNBUFFERED": unbuffered}, stdout=full)

    assert done.returncode == 1
    assert done.stderr == b"Error: The output cannot be written: No space left on device.\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="It is of Linux.")
def test_where_nothing_can_be_told_the_exit_code_tells_it(run_it: Callable[..., Any]) -> None:
    with open("/dev/full", "wb") as full:
        done = run_it("tasks", stdout=full)
        nowhere = subprocess.run([sys.executable, "-c", SCRIPT, "--help"], stdout=full, stderr=full)

    assert (done.returncode, nowhere.returncode) == (1, 1)


def test_an_output_that_nobody_reads_ends_it_quietly(run_it: Callable[..., Any]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_it("tasks", stdout=writer)
    finally:
        os.close(writer)

    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("name", ["actors", "tasks", "workers", "storage", "captures"])
def test_a_long_name_of_an_actor_is_cut_in_a_table_and_whole_in_json(
    command: Command, data_dir: Path, store_of: Callable[[Settings], Store], name: str
) -> None:
    actor_name = "n" * 250
    settings = Settings(data_dir=data_dir, task_diagnostics="memory")
    store = store_of(settings)
    store.publish([bundle(run_record(actor_name=actor_name), artifact_record())])
    create(store, actor_name, {"memory": {}}, 1, 3600.0)
    with store.session() as session:
        note_worker(session, worker_report(tasks=[executed_task(actor_name=actor_name)]))

    table, document = command(name), command(name, "--json")

    assert "nnn…" in table.stdout
    assert "n" * 48 not in table.stdout
    assert "n" * 250 in document.stdout


#: A memory log of which `show` draws a curve in block characters.
CURVE = "".join(f"{number}.000\t{number % 7 + 1}.000\n" for number in range(60)).encode()


def run_for_real(arguments: list[str], stdout: Any, data_dir: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from dramatiq_diag.cli import main; main(prog_name='dramatiq-diag')", *arguments],
        env=os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(data_dir)} | environ,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_what_the_encoding_of_the_output_lacks_is_a_question_mark(store_of: Any, settings: Any, encoding: str) -> None:
    given = settings()
    store_of(given).publish([bundle(run_record(task_id="t", actor_name="größe-日本"), artifact_record(CURVE))])
    for arguments in (["tasks"], ["show", "t"], ["actors"]):
        done = run_for_real(arguments, subprocess.PIPE, given.data_dir, PYTHONIOENCODING=encoding)
        assert (done.returncode, done.stderr) == (0, "")
        assert "-??" in done.stdout


def test_an_output_that_takes_nothing_more_is_one_line(store_of: Any, settings: Any) -> None:
    given = settings()
    store_of(given).publish([bundle(run_record(task_id="t"))])
    with open("/dev/full", "w") as full:
        done = run_for_real(["tasks"], full, given.data_dir)
    assert done.returncode == 1
    assert done.stderr == "Error: The output cannot be written: No space left on device.\n"
