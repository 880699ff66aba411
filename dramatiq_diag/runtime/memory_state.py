"""Reads the memory of the process, its machine and its cgroup, which can explain a sudden death."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import psutil
from pydantic import BaseModel, Field, NonNegativeInt

from ..text import format_size
from .cgroups import cgroups, kernel_text, number_in, number_of
from .rss import RssReader
from .waits.kernel_files import KernelFiles

#: The directory that has `proc` and `sys`.
_ROOT = Path("/")

#: Above this fraction of a limit, an OOM kill is the likely cause of death.
_SHORT_OF_MEMORY = 0.9

#: Above this fraction of a limit, a process is near it.
NEAR = 0.8

_KIB = 1024

#: A process without a limit looks for one again after so many states, which are read about once a second.
READS_BETWEEN_SEARCHES = 30


class MemoryState(BaseModel):
    """The memory of a process, of its machine, and of its cgroup, at one moment."""

    rss_bytes: NonNegativeInt
    available_bytes: NonNegativeInt
    "The memory of the machine that is available to processes."
    total_bytes: NonNegativeInt
    cgroup_bytes: NonNegativeInt | None = None
    "The memory of the processes of the cgroup; None without a limit."
    cgroup_file_bytes: NonNegativeInt | None = None
    "The part of it that holds contents of files which nobody uses: the kernel drops them before it kills a process."
    cgroup_limit_bytes: NonNegativeInt | None = None
    oom_kills: NonNegativeInt | None = None
    "The number of OOM kills since the kernel booted; None if it does not count them."
    boot_id: Annotated[str, Field(max_length=36)] | None = None
    "The kernel's id of its boot."

    @property
    def used_share(self) -> float:
        """The used fraction of the nearest limit: that of the cgroup, or the machine's memory."""
        return max((used / limit for used, limit in self._limits() if limit), default=0.0)

    def room_bytes(self, share: float = 1.0) -> float:
        """Returns: The bytes until this fraction of a limit is used; negative beyond it."""
        return min(share * limit - used for used, limit in self._limits())

    def _limits(self) -> list[tuple[int, int]]:
        """Returns: What is used of each limit, and the limit."""
        limits = [(max(self.total_bytes - self.available_bytes, 0), self.total_bytes)]
        if self.cgroup_bytes is not None and self.cgroup_limit_bytes is not None:
            limits.append((max(self.cgroup_bytes - (self.cgroup_file_bytes or 0), 0), self.cgroup_limit_bytes))
        return limits

    def describe(self, root: Path = _ROOT) -> str:
        """Returns: A sentence for the reason of an artifact of a run that was cut short.

        Made soon after the death and on the same machine, it also says whether the kernel has killed processes since.

        Parameters:
          root: The directory that has `proc`.
        """
        text = (
            f"At the last look its RSS was {format_size(self.rss_bytes)}, and the machine had "
            f"{format_size(self.available_bytes)} of {format_size(self.total_bytes)} available"
        )
        if self.cgroup_bytes is not None and self.cgroup_limit_bytes is not None:
            text += f", its cgroup used {format_size(self.cgroup_bytes)} of {format_size(self.cgroup_limit_bytes)}"
        kills = self.oom_kills_since(root)
        if kills:
            text += f"; since then the kernel has killed {kills} of the machine's processes for lack of memory"
        return f"{text}: it looks like an OOM kill." if self.looks_like_oom_kill(root) else f"{text}."

    def looks_like_oom_kill(self, root: Path = _ROOT) -> bool:
        """Returns: Whether the kernel has killed a process for lack of memory since, or there was nearly none left."""
        return bool(self.oom_kills_since(root)) or self.used_share > _SHORT_OF_MEMORY

    def oom_kills_since(self, root: Path = _ROOT) -> int | None:
        """Returns: How many processes the kernel has killed since for lack of memory; None where it does not tell."""
        now = _oom_kills(kernel_text(root / "proc/vmstat"))
        if now is None or self.oom_kills is None or self.boot_id is None or self.boot_id != _boot_id(root):
            return None
        return max(now - self.oom_kills, 0)


class MemoryStateReader:
    """Reads the state of this process; made after the fork.

    Parameters:
      rss: Reads the RSS.
      root: The directory that has `proc` and `sys`.
    """

    def __init__(self, rss: RssReader, root: Path = _ROOT) -> None:
        self._rss = rss
        self._root = root
        self._files = KernelFiles(root, keeps_gil=True)  # To get the GIL again takes long while many threads compute.
        self._patient_files = KernelFiles(root, keeps_gil=False)
        self._cgroup = _limited_cgroup(root)
        self._reads = 0
        self._boot_id = _boot_id(root)

    def read(self) -> MemoryState:
        """Returns: The state now."""
        self._reads += 1
        if self._cgroup is None and self._reads % READS_BETWEEN_SEARCHES == 0:
            self._cgroup = _limited_cgroup(self._root)
        return self._read(self._rss.rss_bytes(), self._cgroup_file_bytes())

    def read_again(self, last: MemoryState) -> MemoryState:
        """Returns: The state now, but for the files in the cgroup's memory. It does not give up the GIL, on Linux.

        Parameters:
          last: A state of a moment ago, which has the files.
        """
        return self._read(self._rss.rss_bytes(), last.cgroup_file_bytes)

    def _read(self, rss_bytes: int, file_bytes: int | None) -> MemoryState:
        total_bytes, available_bytes = self._machine()
        used, limit = map(self._number, self._cgroup) if self._cgroup else (None, None)
        return MemoryState(
            rss_bytes=rss_bytes,
            available_bytes=available_bytes,
            total_bytes=total_bytes,
            cgroup_bytes=used,
            cgroup_file_bytes=file_bytes,
            cgroup_limit_bytes=limit,
            oom_kills=_oom_kills(self._files.text("proc/vmstat")),
            boot_id=self._boot_id,
        )

    def _machine(self) -> tuple[int, int]:
        """Returns: The bytes of the machine's memory, and those that are available."""
        text = self._files.text("proc/meminfo")
        total, available = number_of(text, "MemTotal:"), number_of(text, "MemAvailable:")
        if total is None or available is None:
            machine = psutil.virtual_memory()
            return machine.total, machine.available
        return total * _KIB, min(available, total) * _KIB

    def _cgroup_file_bytes(self) -> int | None:
        """Returns: See `MemoryState`. The kernel may have to add up counters of all processors for it."""
        if self._cgroup is None:
            return None
        name = self._cgroup[0].relative_to(self._root).parent / "memory.stat"
        text = self._patient_files.text(str(name))
        # Version 1 gives the sums over the groups below by names of their own.
        total = number_of(text, "total_inactive_file")
        return number_of(text, "inactive_file") if total is None else total

    def _number(self, path: Path) -> int | None:
        return number_in(self._files.text(str(path.relative_to(self._root)), 100))


def _limited_cgroup(root: Path) -> tuple[Path, Path] | None:
    """Returns: The files of usage and limit of the innermost cgroup (version 2 or 1) with a limit; None if none has."""
    for directory, is_v2 in cgroups(root, "memory"):
        names = ("memory.current", "memory.max") if is_v2 else ("memory.usage_in_bytes", "memory.limit_in_bytes")
        used, limit = (directory / name for name in names)
        if number_in(kernel_text(used)) is not None and (number_in(kernel_text(limit)) or 2**62) < 2**62:
            return used, limit
    return None


def _oom_kills(vmstat: str | None) -> int | None:
    """Returns: The number of processes killed since the kernel booted because it, or a cgroup, had no memory left."""
    return number_of(vmstat or "", "oom_kill")


def _boot_id(root: Path) -> str | None:
    text = kernel_text(root / "proc/sys/kernel/random/boot_id")
    return None if text is None else text.strip()
