"""Rendering in a process of its own, with a limit of time and of memory."""

from __future__ import annotations

import subprocess
import sys
from typing import BinaryIO

from ..errors import NotInstalledError
from .errors import ReportError

#: What a rendering may take; beyond that whoever asked gets an answer that says so.
TIMEOUT_S = 60.0
MAX_MEMORY_BYTES = 4 * 1024**3

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
    command = [sys.executable, "-P", "-m", "dramatiq_diag.reports", stored_form, form, str(MAX_MEMORY_BYTES)]
    with subprocess.Popen(command, stdin=source, stdout=target, stderr=subprocess.PIPE) as process:  # noqa: S603
        try:
            said = process.communicate(timeout=TIMEOUT_S)[1].decode("utf-8", "replace").strip()
        except subprocess.TimeoutExpired:
            process.kill()
            raise ReportError(
                f"The report was given up after {TIMEOUT_S:g} s; render it from the artifact itself."
            ) from None
    if process.returncode == REFUSED:
        raise ReportError(said)
    if process.returncode == NOT_INSTALLED:
        raise NotInstalledError(said)
    if process.returncode:
        last_line = said.rpartition("\n")[2]
        raise ReportError(
            f"The report could not be made within {MAX_MEMORY_BYTES // 1024**2} MB of memory; render it from the "
            f"artifact itself ({last_line or f'exit status {process.returncode}'})."
        )
