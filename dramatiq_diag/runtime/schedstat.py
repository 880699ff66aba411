"""Reads what the kernel's `schedstat` file tells of a thread."""

from __future__ import annotations

from typing import NamedTuple


class Schedstat(NamedTuple):
    """What the kernel's scheduler has counted for a thread so far."""

    run_queue_s: float
    "For how long it could run and had no processor, in seconds."
    turns: int
    "How often it came onto a processor."

    @classmethod
    def parse(cls, text: bytes) -> Schedstat | None:
        """Returns: The counts; None for a text without them, as `0 0 0` of a kernel that does not count."""
        try:
            _, waited_ns, turns = map(int, text.split()[:3])
        except ValueError:
            return None
        return cls(waited_ns / 1e9, turns) if turns else None
