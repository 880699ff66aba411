"""Finds the control group that limits the CPU time of this process, and tells for how long it was throttled."""

from __future__ import annotations

from pathlib import Path

from .cgroups import cgroups, kernel_text, number_of

#: What `cpu.stat` begins with in groups of version 2 and of version 1.
CPU_STAT_BEGINNINGS = (b"usage_usec ", b"nr_periods ")

#: The number in `cpu.stat` of groups of version 2 and of version 1 -> its unit, in seconds.
_THROTTLED = {"throttled_usec": 1e-6, "throttled_time": 1e-9}


def throttled_s(cpu_stat: str) -> float | None:
    """Returns: For how long a group was throttled, as the text of its `cpu.stat` has it; None if it does not tell."""
    for name, unit_s in _THROTTLED.items():
        number = number_of(cpu_stat, name)
        if number is not None:
            try:
                return number * unit_s
            except OverflowError:  # The text may be one from the spool.
                return None
    return None


def find_cpu_stat(root: Path = Path("/")) -> Path | None:
    """Returns: `cpu.stat` of the innermost group (version 2 or 1) of this process that has a limit; None without one.

    Parameters:
      root: The directory that has `proc` and `sys`.
    """
    for directory, is_v2 in cgroups(root, "cpu"):
        if is_v2 and (kernel_text(directory / "cpu.max") or "").split()[:1] not in ([], ["max"]):
            return directory / "cpu.stat"
        if not is_v2 and (kernel_text(directory / "cpu.cfs_quota_us") or "").strip() not in ("", "-1"):
            return directory / "cpu.stat"
    return None
