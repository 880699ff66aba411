"""Reads over and over which call of the kernel threads are in, in a few microseconds each, by files that stay open."""

from __future__ import annotations

from pathlib import Path

from .kept_file import KeptFile

_MAX_BYTES = 200


class ThreadCalls:
    """Reads `/proc/self/task/<id>/syscall` of threads; it keeps the GIL. For one thread alone.

    Parameters:
      root: The directory that has `proc`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._files: dict[int, KeptFile | None] = {}

    def line(self, native_id: int) -> bytes:
        """Returns: The line of a thread: `running`, or a number, arguments and addresses; empty if it is not known."""
        if native_id not in self._files:
            path = self._root / f"proc/self/task/{native_id}/syscall"
            self._files[native_id] = KeptFile.opened(path, _MAX_BYTES)
        file = self._files[native_id]
        return b"" if file is None else file.read()

    def keep_only(self, native_ids: set[int]) -> None:
        """Closes the files of other threads."""
        for native_id in [each for each in self._files if each not in native_ids]:
            del self._files[native_id]
