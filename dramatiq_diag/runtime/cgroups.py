"""Lists the control groups of this process, and reads files of the kernel as texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple


class Cgroup(NamedTuple):
    """The directory of a control group."""

    directory: Path
    is_v2: bool
    "Whether it is of version 2, which has one hierarchy for all controllers."


def cgroups(root: Path, controller: str) -> Iterator[Cgroup]:
    """Yields the groups (version 2 or 1) of this process that may have limits of a controller, the innermost first.

    Parameters:
      root: The directory that has `proc` and `sys`.
      controller: Its name, such as `memory`.
    """
    mount = root / "sys/fs/cgroup"
    for line in (kernel_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path or (controllers and controller not in controllers.split(",")):
            continue
        inner = PurePosixPath(path.lstrip("/"))
        for group in (inner, *inner.parents):
            yield Cgroup(mount / controller / group if controllers else mount / group, is_v2=not controllers)


def kernel_text(path: Path) -> str | None:
    """Returns: The text of a file of the kernel; None where it has no such file, as on other systems than Linux."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return None


def number_in(text: str | None) -> int | None:
    """Returns: The number that a text is; None for another text, such as `max`."""
    number = (text or "").strip()
    return int(number) if number.isdecimal() else None


def number_of(text: str, name: str) -> int | None:
    """Returns: The number after this name at the start of a line; None where there is no such line."""
    _, _, rest = f"\n{text}".partition(f"\n{name} ")
    words = rest.split(maxsplit=1)
    return number_in(words[0]) if words else None
