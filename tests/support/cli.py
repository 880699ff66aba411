"""The command as the tests call it, and what it prints."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from click.testing import CliRunner, Result

from . import missing

SCRIPT = "from dramatiq_diag.cli import main; main()"

Command = Callable[..., Result]


#: click before 8.2 writes standard error into standard output, unless it is told not to.
_APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


class TerminalRunner(CliRunner):
    """Runs commands whose standard input says that it is a terminal."""

    @contextmanager
    def isolation(self, *arguments: Any, **options: Any) -> Iterator[Any]:
        with super().isolation(*arguments, **options) as streams:
            sys.stdin.isatty = lambda: True  # type: ignore[method-assign]
            yield streams


def make_runner(*, at_terminal: bool = False) -> CliRunner:
    """Returns: A runner of commands that has standard output and standard error apart, with every version of click."""
    return (TerminalRunner if at_terminal else CliRunner)(**_APART)


def add_up(count: int = 1000) -> None:
    sum(range(count))


def document(result: Result, exit_code: int = 0) -> Any:
    assert result.exit_code == exit_code, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


# doctor


class Unprivileged:
    """Runs the command as root without root's privileges: what another user owns, or its mode forbids, is closed to it.

    Another user could not run it, where the interpreter is in a home that is closed.
    """

    def __init__(self) -> None:
        if os.geteuid() or not shutil.which("setpriv"):
            missing("A user without privileges was not tested", "Run the tests as root, with `setpriv`.")

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        python = [sys.executable, "-c", SCRIPT, *arguments]
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", *python]
        return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)

    def findings(self, **environment: str) -> dict[str, dict[str, Any]]:
        """Returns: Name -> finding of `doctor`, but for the disks, which may be full where the tests run."""
        done = self("doctor", "--json", **environment)
        assert "Traceback" not in done.stderr
        checks = json.loads(done.stdout)["checks"]
        return {
            check["name"]: check for check in checks if check["status"] == "finding" and check["name"] != "free disk"
        }


def checks_of(result: Result) -> dict[str, dict[str, Any]]:
    found = document(result, exit_code=result.exit_code)
    assert result.exit_code == (1 if found["findings"] else 0)
    return {check["name"]: check for check in found["checks"]}
