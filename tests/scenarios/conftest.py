"""Fixtures of what goes through several processes."""

from __future__ import annotations

from typing import Any

import pytest

from support.command_line import CommandLine


@pytest.fixture
def command_line(tmp_path, queue_name):
    made: list[CommandLine] = []

    def make(broker_url: str, given: Any, **environment: str) -> CommandLine:
        more = {
            "DIAG_TEST_BROKER": broker_url,
            "DIAG_TEST_QUEUE": queue_name,
            "TASK_DIAGNOSTICS": ",".join(given.task_diagnostics),
            "DRAMATIQ_DIAG_DATA_DIR": str(given.data_dir),
            "DRAMATIQ_DIAG_DATABASE_URL": given.database_url or "",
            "DRAMATIQ_DIAG_CLEANUP_QUEUE": queue_name,
        }
        command = CommandLine(more | environment, tmp_path / "worker.log")
        made.append(command)
        return command

    yield make
    for command in made:
        command.kill()
