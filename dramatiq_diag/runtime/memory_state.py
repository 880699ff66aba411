"""Reads the memory of the process, its machine and its cgroup, which can explain a sudden death."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

import psutil
from pydantic import BaseModel, Field, NonNegativeInt

from ..text import format_size

_CGROUP_ROOT = Path("/sys/fs/cgroup")

#: Contains the number of processes that the kernel killed for lack of memory (a cgroup's or its own) since it booted.
_VMSTAT = Path("/proc/vmstat")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

#: Above this fraction of a limit, an OOM kill is the likely cause of death.
_SHORT_OF_MEMORY = 0.9


class MemoryState(BaseModel):
    """The memory of a process, of its machine, and of its cgroup, at one moment."""

    rss_bytes: NonNegativeInt
    available_bytes: NonNegativeInt
    "The memory of the machine that is available to processes."
    total_bytes: NonNegativeInt
    cgroup_bytes: NonNegativeInt | None = None
    "The memory of the processes of the cgroup; None without a limit."
    cgroup_limit_bytes: NonNegativeInt | None = None
    oom_kills: NonNegativeInt | None = None
    "The number of OOM kills since the kernel booted; None if it does not count them."
    boot_id: Annotated[str, Field(max_length=36)] | None = None
    "The kernel's id of its boot."

    def describe(self) -> str:
        """Returns: A sentence for the reason of an artifact of a run that was cut short.

        Soon after the death, and on the same machine, it tells whether the kernel has killed processes since.
        """
        text = (
            f"At the last look its RSS was {format_size(self.rss_bytes)}, and the machine had "
            f"{format_size(self.available_bytes)} of {format_size(self.total_bytes)} available"
        )
        if self.cgroup_bytes is not None and self.cgroup_limit_bytes is not None:
            text += f", its cgroup used {format_size(self.cgroup_bytes)} of {format_size(self.cgroup_limit_bytes)}"
        kills = self._oom_kills_since()
        if kills:
            text += f"; since then the kernel has killed {kills} of the machine's processes for lack of memory"
        return f"{text}: it looks like an OOM kill." if kills or self._is_short() else f"{text}."

    def _oom_kills_since(self) -> int:
        now = _oom_kills()
        if now is None or self.oom_kills is None or self.boot_id is None or self.boot_id != _boot_id():
            return 0
        return max(now - self.oom_kills, 0)

    def _is_short(self) -> bool:
        if self.total_bytes - self.available_bytes > _SHORT_OF_MEMORY * self.total_bytes:
            return True
        used, limit = self.cgroup_bytes, self.cgroup_limit_bytes
        return used is not None and limit is not None and used > _SHORT_OF_MEMORY * limit


class MemoryStateReader:
    """Reads the state of this process; made after the fork."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._limited = _limited_cgroup()
        self._boot_id = _boot_id()

    def read(self) -> MemoryState:
        """Returns: The state now."""
        machine = psutil.virtual_memory()
        used, limit = (None, None) if self._limited is None else (_number(path) for path in self._limited)
        return MemoryState(
            rss_bytes=self._process.memory_info().rss,
            available_bytes=machine.available,
            total_bytes=machine.total,
            cgroup_bytes=used,
            cgroup_limit_bytes=limit,
            oom_kills=_oom_kills(),
            boot_id=self._boot_id,
        )


def _limited_cgroup() -> tuple[Path, Path] | None:
    """Returns: The files of usage and limit of the innermost cgroup (version 2 or 1) with a limit; None if none has."""
    try:
        lines = Path("/proc/self/cgroup").read_text("ascii", "replace").splitlines()
    except OSError:  # Not Linux.
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _CGROUP_ROOT, ("memory.current", "memory.max")
        elif "memory" in controllers.split(","):
            root, names = _CGROUP_ROOT / "memory", ("memory.usage_in_bytes", "memory.limit_in_bytes")
        else:
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            used, limit = (root / group / name for name in names)
            if _number(used) is not None and (_number(limit) or 2**62) < 2**62:
                return used, limit
    return None


def _number(path: Path) -> int | None:
    """Returns: The number in a file; None if there is no such file, or it contains `max`."""
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


def _oom_kills() -> int | None:
    try:
        lines = _VMSTAT.read_text("ascii").splitlines()
    except OSError:  # Not Linux.
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def _boot_id() -> str | None:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:  # Not Linux.
        return None
