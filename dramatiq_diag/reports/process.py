"""Renders a report in a separate process, within a limit of time and of memory."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
from typing import BinaryIO

from ..errors import NotInstalledError
from ..runtime.interpreter import environment, python_command
from .errors import ReportError

#: The limits of one rendering. The memory is what the process writes to (RLIMIT_DATA), and limited on Linux alone.
TIMEOUT_S = 300.0
MAX_MEMORY_BYTES = 2 * 1024**3

#: Signals that end a process which crashes.
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP)

#: Exit codes of the process; its stderr holds the message.
REFUSED = 3
NOT_INSTALLED = 4


class RenderProcess:
    """One rendering, which another thread may stop.

    Parameters:
      timeout_s: The longest that it may take, in seconds.
      max_memory_bytes: The most memory that it may write to.
    """

    def __init__(self, timeout_s: float = TIMEOUT_S, max_memory_bytes: int = MAX_MEMORY_BYTES) -> None:
        self.timeout_s = timeout_s
        self._max_memory_bytes = max_memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def render(self, source: BinaryIO, target: BinaryIO, stored_format: str, format_name: str) -> None:
        """Renders a format of a stored artifact.

        Parameters:
          source: The stored artifact; a file of the operating system.
          target: The file that the format is written to, likewise.
          stored_format: The file name of the stored format.
          format_name: The name of the format to render.

        Raises:
          ReportError: When it cannot be rendered within the limits, or is stopped.
          NotInstalledError: When the package that renders it is missing.
        """
        command = python_command(
            "dramatiq_diag.reports.__main__:main", stored_format, format_name, str(self._max_memory_bytes)
        )
        with tempfile.TemporaryDirectory(prefix="dramatiq_diag-", ignore_cleanup_errors=True) as scratch:
            status, message = self._run(command, scratch, source, target)
        if self._stopped:
            raise _stopped()
        self._raise_for(status, message)

    def stop(self) -> None:
        """Kills the process, or keeps it from being started."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _run(self, command: list[str], scratch: str, source: BinaryIO, target: BinaryIO) -> tuple[int, str]:
        """Returns: The exit status of the process, and the text that it wrote to stderr."""
        with self._lock:
            if self._stopped:
                raise _stopped()
            self._process = process = subprocess.Popen(  # noqa: S603
                command, stdin=source, stdout=target, stderr=subprocess.PIPE, cwd=scratch, env=environment(scratch)
            )
        with process:
            try:
                message = process.communicate(timeout=self.timeout_s)[1].decode("utf-8", "replace").strip()
            except subprocess.TimeoutExpired:
                process.kill()
                raise ReportError(
                    f"The report was given up after {self.timeout_s:g} s; render it from the artifact itself."
                ) from None
        return process.returncode, message

    def _raise_for(self, status: int, message: str) -> None:
        """Raises the error that an exit status other than 0 stands for."""
        if status == 0:
            return
        if status == REFUSED:
            raise ReportError(message)
        if status == NOT_INSTALLED:
            raise NotInstalledError(message)
        if -status == signal.SIGXCPU:
            raise ReportError("The report took too much CPU time; render it from the artifact itself.")
        if -status in _CRASHES and "alloc" not in message and "memory" not in message.lower():
            name = signal.Signals(-status).name
            raise ReportError(f"The renderer crashed ({name}), so the stored artifact is probably damaged.")
        last_line = message.rpartition("\n")[2] or f"exit status {status}"
        raise ReportError(
            f"The report could not be made within {self._max_memory_bytes // 1024**2} MiB of memory; render it from "
            f"the artifact itself ({last_line})."
        )


def _stopped() -> ReportError:
    return ReportError("The report was not made, because the server stops.")
