"""Dramatiq's command line, with the actors of the workload."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from support import PATIENCE_S, TESTS, python_path


class CommandLine:
    """`python -m dramatiq support.workload` in processes of its own."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment = os.environ | environment | {"PYTHONPATH": python_path(TESTS)}
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def send(self, count: int) -> list[tuple[str, str]]:
        done = subprocess.run(
            [sys.executable, "-m", "support.workload", str(count)],
            env=self.environment,
            stdout=subprocess.PIPE,
            check=True,
            timeout=PATIENCE_S,
        )
        return [tuple(pair) for pair in json.loads(done.stdout)]

    def start(self, *options: str) -> None:
        command = [sys.executable, "-W", "error::ResourceWarning", "-m", "dramatiq", "support.workload", *options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM, as a supervisor does it. Returns: The exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            for child in children:
                child.kill()
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(children)
