"""The units in docs/systemd: systemd takes them, and their commands and settings exist."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dramatiq.cli import make_argument_parser

from dramatiq_diag import Settings
from dramatiq_diag.cli import main
from dramatiq_diag.web.server import DEFAULT_HOST, DEFAULT_PORT
from support import ROOT, missing

DIRECTORY = ROOT / "docs" / "systemd"
UNITS = sorted(path.name for path in DIRECTORY.glob("dramatiq-*") if path.suffix != ".env")
SERVICES = [name for name in UNITS if name.endswith(".service")]
#: Where the units expect the programs.
PROGRAMS = "/srv/app/venv/bin"


def service(name: str) -> configparser.SectionProxy:
    unit = configparser.RawConfigParser(delimiters="=", strict=True)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DIRECTORY / name, encoding="utf-8")
    return unit["Service"]


def command(name: str) -> list[str]:
    words = shlex.split(service(name)["ExecStart"])
    assert words[0].startswith(f"{PROGRAMS}/")
    return [words[0].removeprefix(f"{PROGRAMS}/"), *words[1:]]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A copy of the units that names the programs of this environment."""
    for name in UNITS:
        text = (DIRECTORY / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace(PROGRAMS, str(Path(sys.executable).parent)), encoding="utf-8")
    return tmp_path


def verify(units: Path) -> str:
    """Returns: The findings of systemd, which ends with 0 in spite of unknown keys."""
    if shutil.which("systemd-analyze") is None:
        missing("systemd-analyze is not installed", "On Debian: apt-get install systemd")
    paths = [str(units / name) for name in UNITS]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_there_are_workers_a_web_part_and_a_cleanup() -> None:
    assert UNITS == [
        "dramatiq-diag-cleanup.service",
        "dramatiq-diag-cleanup.timer",
        "dramatiq-diag-web.service",
        "dramatiq-worker.service",
    ]


def test_systemd_takes_the_units(units: Path) -> None:
    assert verify(units) == ""


def test_systemd_finds_a_wrong_key_and_a_program_that_does_not_exist(units: Path) -> None:
    unit = units / "dramatiq-worker.service"
    text = unit.read_text(encoding="utf-8")
    unit.write_text(text.replace("TimeoutStopSec=", "TimeoutStopSecs=").replace("/python -m", "/nosuch -m"))

    found = verify(units)

    assert "Unknown key 'TimeoutStopSecs'" in found
    assert "/nosuch is not executable" in found


def test_the_settings_of_the_units_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (DIRECTORY / "dramatiq-diag.env").read_text(encoding="utf-8")
    variables = dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)

    assert Settings.unknown_variables() == []
    # An EnvironmentFile keeps quotes and comments behind a value in other ways than a shell.
    assert all(re.fullmatch(r"[\w/:.,-]*", value) for value in variables.values())
    assert {service(name)["EnvironmentFile"] for name in SERVICES} == {"/etc/dramatiq-diag.env"}
    for name in SERVICES:
        assert str(Settings().data_dir) == f"/var/lib/{service(name)['StateDirectory']}"
        assert service(name)["StateDirectoryMode"] == "0700"


def test_the_workers_may_end_their_tasks_and_publish_before_they_are_killed() -> None:
    python, _, module, *arguments = command("dramatiq-worker.service")
    assert (python, module) == ("python", "dramatiq")
    options = make_argument_parser().parse_args(arguments)

    needed_s = options.worker_shutdown_timeout / 1000 + Settings().shutdown_timeout
    assert int(service("dramatiq-worker.service")["TimeoutStopSec"]) > needed_s


def test_the_signal_to_stop_reaches_the_processes_of_the_workers_once() -> None:
    # Dramatiq's main process passes SIGTERM on, and its processes end at once on a second one.
    assert service("dramatiq-worker.service")["KillMode"] == "mixed"


def test_tasks_end_where_the_kernel_has_killed_another_process_of_the_workers_for_its_memory() -> None:
    # By default systemd stops the unit; if it stops already, systemd kills all its processes.
    assert service("dramatiq-worker.service")["OOMPolicy"] == "continue"


def test_the_cleanup_exists_with_its_options() -> None:
    program, *arguments = command("dramatiq-diag-cleanup.service")
    assert program == "dramatiq-diag"
    with main.make_context(program, [*arguments]) as context:
        _, found, rest = main.resolve_command(context, arguments)
        assert found is not None
        found.make_context(arguments[0], rest, parent=context).close()


def test_gunicorn_takes_the_command_of_the_web_part(tmp_path: Path) -> None:
    program, *arguments = command("dramatiq-diag-web.service")
    assert program == "gunicorn"
    assert f"{DEFAULT_HOST}:{DEFAULT_PORT}" in arguments
    environment: dict[str, Any] = {"DRAMATIQ_DIAG_DATA_DIR": str(tmp_path), "DRAMATIQ_DIAG_API_TOKEN": "x" * 16}

    # It loads the application, and does not serve it.
    done = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    refused = subprocess.run(
        [sys.executable, "-m", "gunicorn", "--check-config", *arguments], cwd=tmp_path, env={}, capture_output=True
    )
    assert b"DRAMATIQ_DIAG_API_TOKEN" in refused.stderr
    assert refused.returncode != 0
