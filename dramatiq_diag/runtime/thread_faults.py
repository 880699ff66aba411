"""Reads how much memory the threads of this process have touched first, without giving up the GIL."""

from __future__ import annotations

from mmap import PAGESIZE
from pathlib import Path

from .waits.kernel_files import KernelFiles

#: A line of `/proc/self/task/<id>/stat` is shorter.
_MAX_BYTES = 1024

#: The place of `minflt` among the fields behind the name of the program; see proc(5).
_MINOR_FAULTS = 7


class ThreadFaults:
    """Reads minor page faults. A page of memory that a thread touches first is one minor fault of that thread.

    Parameters:
      root: The directory that has `proc`.

    Note:
      Where the kernel gives huge pages, one fault brings up to 2 MiB, and what is read here is too small.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._files = KernelFiles(root, keeps_gil=True)

    def thread_bytes(self, native_id: int) -> int | None:
        """Returns: What a thread has touched so far; None if it has ended, or the platform does not tell."""
        return self._touched(f"proc/self/task/{native_id}/stat")

    def process_bytes(self) -> int | None:
        """Returns: What all threads have touched so far, ended ones too; None where the platform does not tell."""
        return self._touched("proc/self/stat")

    def _touched(self, name: str) -> int | None:
        fields = self._files.text(name, _MAX_BYTES).rpartition(")")[2].split()
        return int(fields[_MINOR_FAULTS]) * PAGESIZE if len(fields) > _MINOR_FAULTS else None
