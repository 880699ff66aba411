"""Dramatiq's command line, started again whenever it ends, as a supervisor does it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
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
                self._process = subprocess.Popen(
                    self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )
            self.starts += 1
            self._process.wait()

    def kill_one(self, chance: Random) -> None:
        """SIGKILL to one of the worker processes; Dramatiq's main process then stops the other, and ends."""
        with suppress(psutil.NoSuchProcess):
            if self._process is not None and (children := psutil.Process(self._process.pid).children()):
                chance.choice(children).kill()

    def kill_all(self, chance: Random) -> None:
        """SIGKILL to all, those that are only being started among them."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def restart(self, chance: Random) -> None:
        """SIGTERM, as a deploy does it."""
        if self._process is not None:
            self._process.terminate()

    def stop(self, timeout_s: float) -> None:
        """SIGTERM, once and for all."""
        self._stopping.set()
        while True:
            process = self._process
            assert process is not None
            process.terminate()
            process.wait(timeout_s)
            while self._supervisor.is_alive() and self._process is process:
                self._supervisor.join(0.1)  # It ends, or it was just about to start them again.
            if self._process is process:
                self.kill_all(Random(0))  # Workers whose main process was killed go on by themselves.
                return

    def kill(self) -> None:
        """Leaves nothing behind."""
        self._stopping.set()
        self.kill_all(Random(0))
        self._supervisor.join(10)
