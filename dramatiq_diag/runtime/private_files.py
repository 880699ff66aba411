"""Files and directories for this user alone: how they are made, and whether others can reach one."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

#: What nobody but the owner may do.
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_directory(path: Path) -> None:
    """Makes a directory with mode 0700, and those above it that are missing; one that is there stays as it is.

    Raises:
      OSError: When it cannot be made, or is no directory.
    """
    for directory in (*reversed(path.parents), path):
        if not directory.is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)


def make_file(path: Path, content: bytes = b"") -> None:
    """Makes a file with mode 0600, whole at once, and only where there is none.

    It is written under another name, so no descriptor of the file is ever closed here: that would drop the locks which
    SQLite in this process has on it by then.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(content)
    try:
        os.link(temporary, path)
    except FileExistsError:  # Another process was faster.
        return
    finally:
        temporary.unlink()


def open_to_others(status: os.stat_result) -> str | None:
    """Returns: Why others than this user can reach a file or directory, in words; None where they cannot."""
    if status.st_uid != os.geteuid():
        return f"it belongs to the user with id {status.st_uid}, and this process runs as {os.geteuid()}"
    if status.st_mode & _OTHERS:
        return f"its mode is {stat.S_IMODE(status.st_mode):04o}, which lets other users in"
    return None
