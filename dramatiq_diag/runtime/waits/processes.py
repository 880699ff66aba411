"""Reads of other processes what helps to name them: their commands, and which are children of this one."""

from __future__ import annotations

import os
import threading

from .kernel_files import KernelFiles

#: The most characters of a command.
_MAX_COMMAND = 120

#: The most children that are looked for.
_MAX_CHILDREN = 50

#: A child's descriptors are looked at up to this number: its pipes to its parent are the first ones.
_MAX_DESCRIPTOR = 10


def command_of(process_id: int, files: KernelFiles) -> str:
    """Returns: The command line of a process, cut off; its short name if it has none; empty if it is unknown."""
    words = files.read(f"proc/{process_id}/cmdline", 4096).replace(b"\0", b" ").strip()
    text = os.fsdecode(words or files.read(f"proc/{process_id}/comm", 64)).encode("utf-8", "replace").decode()
    text = " ".join(text.split())
    return text if len(text) <= _MAX_COMMAND else f"{text[:_MAX_COMMAND]}..."


def describe_process(process_id: int, files: KernelFiles) -> str:
    """Returns: `process 123 (command)`."""
    command = command_of(process_id, files)
    return f"process {process_id} ({command})" if command else f"process {process_id}"


def children(files: KernelFiles) -> list[int]:
    """Returns: The ids of the children that Python's threads have; none where the kernel does not list them."""
    found: list[int] = []
    for thread in threading.enumerate():
        found += map(int, files.read(f"proc/self/task/{thread.native_id}/children", 4096).split())
    return sorted(found)[:_MAX_CHILDREN]


def holders_of_pipe(target: str, files: KernelFiles) -> list[int]:
    """Returns: The children that have a pipe open.

    Parameters:
      target: The link of its descriptor, as `pipe:[123]`.
    """
    return [
        child
        for child in children(files)
        if any(files.link(f"proc/{child}/fd/{number}") == target for number in range(_MAX_DESCRIPTOR))
    ]
