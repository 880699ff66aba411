"""The command as the tests call it, and what it prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from click.testing import Result

SCRIPT = "from dramatiq_diag.cli import main; main()"

Command = Callable[..., Result]


def add_up(count: int = 1000) -> None:
    sum(range(count))


def document(result: Result, exit_code: int = 0) -> Any:
    assert result.exit_code == exit_code, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


# doctor


def checks_of(result: Result) -> dict[str, dict[str, Any]]:
    found = document(result, exit_code=result.exit_code)
    assert result.exit_code == (1 if found["findings"] else 0)
    return {check["name"]: check for check in found["checks"]}
