"""Dramatiq's command line, started again whenever it ends, as a supervisor does it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import psutil


class Workers:
    """`python -m dramatiq torture.app` with two processes of four threads.

    Parameters:
      environment: Variables of the processes.
      log: Where they write.
      options: More options of the command.
    """

    def __init__(self, environment: dict[str, str], log: Path, options: list[str]) -> None:
        self.starts = 0
        self._environment = os.environ | environment
        self._log = log
        self._command = [
            sys.executable,
            "-m",
            "dramatiq",
            "torture.app",
            "--processes",
            "2",
            "--threads",
            "4",
            *options,
        ]
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise, daemon=True)

    def start(self) -> None:
        """Starts them, and again whenever they end."""
        self._supervisor.start()

    def _supervise(self) -> None:
        while not self._stopping.is_set():
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(self._command, env=self._environment, stdout=log, stderr=log)
            self.starts += 1
            self._process.wait()

    def kill_one(self, chance: Random) -> None:
        """SIGKILL to one of the worker processes; Dramatiq's main process then stops the other, and ends."""
        children = self._children()
        if children:
            _signal(chance.choice(children), signal.SIGKILL)

    def kill_all(self, chance: Random) -> None:
        """SIGKILL to all, the main process first."""
        children = self._children()
        if self._process is not None:
            self._process.kill()
        for child in children:
            _signal(child, signal.SIGKILL)

    def restart(self, chance: Random) -> None:
        """SIGTERM, as a deploy does it."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, timeout_s: float) -> int:
        """SIGTERM, once and for all. Returns: The exit code."""
        self._stopping.set()
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """Leaves nothing behind."""
        self._stopping.set()
        self.kill_all(Random(0))
        self._supervisor.join(10)

    def _children(self) -> list[psutil.Process]:
        if self._process is None:
            return []
        try:
            return psutil.Process(self._process.pid).children()
        except psutil.NoSuchProcess:
            return []


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
