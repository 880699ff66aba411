"""Rendering in a process of its own, with a limit of time and of memory."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import BinaryIO

from ..errors import NotInstalledError
from .errors import ReportError

#: What a rendering may take; beyond that whoever asked gets an answer that says so. Memory is what the process writes
#: to (RLIMIT_DATA), and limited on Linux alone.
TIMEOUT_S = 300.0
MAX_MEMORY_BYTES = 2 * 1024**3

#: Exit codes of the process, which says on stderr what is wrong.
REFUSED = 3
NOT_INSTALLED = 4


def render(source: BinaryIO, target: BinaryIO, stored_form: str, form: str) -> None:
    """Renders a form of what is stored.

    Parameters:
      source: What is stored; a file of the operating system.
      target: Where the form is written, likewise.
      stored_form: The name of the form that it is stored in.
      form: The name of the form that is wanted.

    Raises:
      ReportError: When it cannot be rendered, or not within the limits.
      NotInstalledError: When the package that renders it is missing.
    """
    Rendering().render(source, target, stored_form, form)


class Rendering:
    """One rendering, which another thread may stop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def render(self, source: BinaryIO, target: BinaryIO, stored_form: str, form: str) -> None:
        """As the function `render`. Raises: ReportError also when it is stopped."""
        command = [sys.executable, "-P", "-m", "dramatiq_diag.reports", stored_form, form, str(MAX_MEMORY_BYTES)]
        with self._start(command, source, target) as process:
            try:
                said = process.communicate(timeout=TIMEOUT_S)[1].decode("utf-8", "replace").strip()
            except subprocess.TimeoutExpired:
                process.kill()
                raise ReportError(
                    f"The report was given up after {TIMEOUT_S:g} s; render it from the artifact itself."
                ) from None
        if self._stopped:
            raise _stopped()
        _judge(process.returncode, said)

    def stop(self) -> None:
        """Kills the process; one that was not started yet never is."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _start(self, command: list[str], source: BinaryIO, target: BinaryIO) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._stopped:
                raise _stopped()
            self._process = subprocess.Popen(command, stdin=source, stdout=target, stderr=subprocess.PIPE)  # noqa: S603
            return self._process


def _stopped() -> ReportError:
    return ReportError("The report was not made, because the server stops.")


def _judge(status: int, said: str) -> None:
    if status == REFUSED:
        raise ReportError(said)
    if status == NOT_INSTALLED:
        raise NotInstalledError(said)
    if status:
        last_line = said.rpartition("\n")[2]
        raise ReportError(
            f"The report could not be made within {MAX_MEMORY_BYTES // 1024**2} MB of memory; render it from the "
            f"artifact itself ({last_line or f'exit status {status}'})."
        )
