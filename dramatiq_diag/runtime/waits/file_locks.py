"""Finds the processes that hold the locks of a file, by the kernel's list of locks."""

from __future__ import annotations

import os

from .kernel_files import KernelFiles
from .processes import describe_process

#: The most bytes that are read of the list.
_MAX_BYTES = 1024 * 1024

#: The most holders that are named.
_MAX_HOLDERS = 3


def holders_of(descriptor: int, files: KernelFiles) -> list[str]:
    """Returns: Phrases for those that hold a lock (`flock` or `fcntl`) of a file; empty if the kernel does not tell.

    Parameters:
      descriptor: A descriptor of the file.
      files: Reads /proc.

    Note:
      `fstat` would wait for the server of a network's file system, perhaps as the thread itself does; and of some file
      systems it gives other devices than the list has.
    """
    fields = dict(
        line.split(":", 1) for line in files.text(f"proc/self/fdinfo/{descriptor}").splitlines() if ":" in line
    )
    mount, inode = fields.get("mnt_id", "").strip(), fields.get("ino", "").strip()
    mounts = map(str.split, files.text("proc/self/mountinfo", _MAX_BYTES).splitlines())
    device = next((words[2] for words in mounts if len(words) > 2 and words[0] == mount), "")
    if not device or not inode:
        return []
    major, minor = map(int, device.split(":"))
    key = f"{major:02x}:{minor:02x}:{inode}"
    lines = files.text("proc/locks", _MAX_BYTES).splitlines()
    holders = [int(words[4]) for line in lines if _holds(words := line.split(), key)]
    return [_name(process_id, files) for process_id in dict.fromkeys(holders)][:_MAX_HOLDERS]


def _holds(words: list[str], key: str) -> bool:
    """Returns: Whether a line is about the file, and not about one who waits (which has an arrow)."""
    return len(words) > 5 and words[1] != "->" and words[5] == key


def _name(process_id: int, files: KernelFiles) -> str:
    if process_id == os.getpid():
        return "this process itself, by another descriptor"
    # The kernel gives 0 for a process of another PID namespace, and -1 for a lock that belongs to an open file.
    return describe_process(process_id, files) if process_id > 0 else "a process that is not visible here"
