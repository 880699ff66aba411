"""The `dramatiq-diag` command: its help, and its errors in words."""

from __future__ import annotations

import pytest

from support.cli import Command

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
