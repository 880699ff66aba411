"""Makes the JavaScript that draws charts in pages, once, and keeps it in the cache directory."""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dramatiq.logging import get_logger

from ...errors import NotInstalledError
from ...runtime.interpreter import environment, python_command
from ...runtime.private_files import make_directory, make_file, open_to_others
from ..errors import ReportError
from ..process import TIMEOUT_S

#: The names of the files in the directory.
FILES = "charts-*.js"

_PACKAGE = "vl-convert-python"

_logger = get_logger(__name__)


def charts_script(directory: Path) -> bytes:
    """Returns: The script; from the directory if this version of vl-convert made it there before.

    Raises:
      NotInstalledError: When vl-convert-python is missing.
      ReportError: When it takes too long.
    """
    try:
        name = FILES.replace("*", version(_PACKAGE))
    except PackageNotFoundError as error:
        raise _not_installed(str(error)) from error
    script = _kept(directory / name)
    if script is None:
        script = _make()
        try:
            make_directory(directory)
            for old in directory.glob(FILES):
                old.unlink(missing_ok=True)
            make_file(directory / name, script)
        except OSError as error:
            _logger.warning("The script of the charts is not kept in %s: %s", directory, error)
    return script


def _kept(path: Path) -> bytes | None:
    """Returns: The content of the file; None if there is none, or if others could have written it."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or open_to_others(status) is not None:
                return None
            return file.read() or None
    except OSError:
        return None


def _make() -> bytes:
    # In a separate process: the JavaScript engine that bundles the script would stay in this one.
    command = python_command("dramatiq_diag.reports.charts:write_bundle")
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag-", ignore_cleanup_errors=True) as scratch:
        try:
            made = subprocess.run(  # noqa: S603
                command, capture_output=True, check=False, cwd=scratch, env=environment(scratch), timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise ReportError(f"The script of the charts was given up after {TIMEOUT_S:g} s.") from error
    if made.returncode or not made.stdout:
        raise _not_installed(made.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2])
    return made.stdout


def _not_installed(reason: str) -> NotInstalledError:
    return NotInstalledError(
        f"The script of the charts cannot be made ({reason}); it needs vl-convert-python: "
        "pip install 'dramatiq_diag[web]'"
    )
