"""The `dramatiq-diag` command: its help, and its errors in words."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import PATIENCE_S
from support.cli import Command
from support.records import artifact_record, bundle, run_record

#: A memory log of which `show` draws a curve in block characters.
CURVE = "".join(f"{number}.000\t{number % 7 + 1}.000\n" for number in range(60)).encode()

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
