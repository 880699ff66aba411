"""Makes files and directories for this user alone, and checks whether others can reach one."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

#: The permissions of all but the owner.
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def make_directory(path: Path) -> None:
    """Makes a directory and its missing parents with mode 0700; existing ones stay as they are.

    Raises:
      OSError: When it cannot be made, or is not a directory.
    """
    for directory in (*reversed(path.parents), path):
        if not directory.is_dir():
            directory.mkdir(mode=0o700, exist_ok=True)


def make_file(path: Path, content: bytes = b"") -> None:
    """Makes a file with mode 0600 atomically; an existing one stays as it is.

    The content is written under another name. So no descriptor of the file is ever closed here, which would drop the
    locks that SQLite in this process may have on it.
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
    """Returns: Why other users can reach a file or directory; None if they cannot."""
    if status.st_uid != os.geteuid():
        return f"it belongs to the user with id {status.st_uid}, and this process runs as {os.geteuid()}"
    if status.st_mode & _OTHERS:
        return f"its mode is {stat.S_IMODE(status.st_mode):04o}, which lets other users in"
    return None
