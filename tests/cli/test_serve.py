"""`serve`: when it begins, and when it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from support import program
from support.cli import SCRIPT, Command

# serve


def test_serve_asks_for_a_token_before_it_is_open_to_others(command: Command) -> None:
    result = command("serve", "--host", "0.0.0.0", "--port", "0")

    assert result.exit_code == 2
    assert "DRAMATIQ_DIAG_API_TOKEN" in result.stderr


def test_serve_says_that_its_port_is_taken(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = command("serve", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == 1
    assert "--port" in result.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_stopped_and_then_exits_0(data_dir: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "-c", SCRIPT, "serve", "--port", "0"]
    with program(command, stderr=subprocess.PIPE) as server:
        assert server.stderr is not None
        url = next(word for word in server.stderr.readline().split() if word.startswith("http"))
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert json.load(answer) == {"status": "ok"}

        server.send_signal(stop)
        rest = server.stderr.read()

    assert server.returncode == 0
    assert "Traceback" not in rest
