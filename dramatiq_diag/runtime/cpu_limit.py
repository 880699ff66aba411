"""Finds the control group that limits the CPU time of this process, and tells for how long it was throttled."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .cgroups import cgroups, kernel_text


class CpuLimit(NamedTuple):
    """The control group with a limit of CPU time."""

    stat: Path
    "Its `cpu.stat`."
    field: bytes
    "The name of the number in it."
    unit_s: float
    "The unit of that number, in seconds."

    def throttled_s(self, text: bytes) -> float | None:
        """Returns: For how long the group was throttled, as its `cpu.stat` has it; None if it does not tell."""
        words = text.split()
        try:
            return int(words[words.index(self.field) + 1]) * self.unit_s
        except (ValueError, IndexError):
            return None


def find_cpu_limit(root: Path = Path("/")) -> CpuLimit | None:
    """Returns: The innermost group (version 2 or 1) of this process that has a limit; None without one.

    Parameters:
      root: The directory that has `proc` and `sys`.
    """
    for directory, is_v2 in cgroups(root, "cpu"):
        if is_v2 and (kernel_text(directory / "cpu.max") or "").split()[:1] not in ([], ["max"]):
            return CpuLimit(directory / "cpu.stat", b"throttled_usec", 1e-6)
        if not is_v2 and (kernel_text(directory / "cpu.cfs_quota_us") or "").strip() not in ("", "-1"):
            return CpuLimit(directory / "cpu.stat", b"throttled_time", 1e-9)
    return None
