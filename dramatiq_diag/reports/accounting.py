"""Reads the accounts of the collector `accounting`, explains their parts, and compares two of them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from typing_extensions import TypedDict

from ..documents.fields import described
from .errors import ReportError

#: The largest file that is read, in bytes. Ours have at most a few hundred parts and 50 neighbours.
MAX_BYTES = 1024 * 1024

#: Part -> its title, and what it means.
EXPLANATIONS: Mapping[str, tuple[str, str]] = {
    "cpu": ("On the CPU", "The task's own thread, or the steps of its coroutine, computed."),
    "gil_wait": ("Waiting for the GIL", "It could go on, but another thread of the process had Python's lock."),
    "run_queue": ("Waiting for a CPU", "It could go on, but the machine or the container had no processor for it."),
    "gc": ("Garbage collection", "Python's garbage collector ran on its thread."),
    "blocked": ("Blocked", "It waited for the system: an answer, a file, a lock, a child process, or a sleep."),
    "awaiting": ("Awaiting", "Its coroutine awaited something, and the event loop was free for it."),
    "loop_wait": ("Waiting for the event loop", "It could go on, but another coroutine kept the event loop busy."),
    "unknown": (
        "Not known",
        "It was off the CPU, and nothing was seen of it: the run was short, or cannot be looked at.",
    ),
}


class Part(TypedDict):
    """A part of the wall time."""

    part: str
    on: str | None
    ms: float


class Neighbour(TypedDict):
    """A task that the process executed at the same time."""

    task_id: str
    actor_name: str
    cpu_ms: float
    loop_ms: float | None
    "For how long it kept the event loop while the run waited for that; None where that is not known."


class Account(TypedDict):
    """Where the wall time of a run went."""

    wall_ms: float
    samples: int
    parts: list[Part]
    neighbours: list[Neighbour]


@described
class PartChange(TypedDict):
    """A part of the wall times of two runs."""

    part: str
    on: str | None
    "What it waited for; null where that is not told."
    a_ms: float
    b_ms: float
    difference_ms: float


def read_account(file: BinaryIO) -> Account:
    """Returns: The account of a file. Raises: ReportError when it is not one."""
    data = file.read(MAX_BYTES + 1)
    try:
        return parse_account(json.loads(data) if len(data) <= MAX_BYTES else None)
    except (ValueError, RecursionError):
        return parse_account(None)


def parse_account(content: Any) -> Account:
    """Returns: The account that a JSON document has. Raises: ReportError when it is not one."""
    try:
        return {
            "wall_ms": _number(content["wall_ms"]),
            "samples": int(_number(content["samples"])),
            "parts": [
                {"part": _known(part["part"]), "on": _text(part["on"]) or None, "ms": _number(part["ms"])}
                for part in content["parts"]
            ],
            "neighbours": [
                {
                    "task_id": _text(other["task_id"]),
                    "actor_name": _text(other["actor_name"]),
                    "cpu_ms": _number(other["cpu_ms"]),
                    "loop_ms": None if other.get("loop_ms") is None else _number(other["loop_ms"]),
                }
                for other in content["neighbours"]
            ],
        }
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
        raise ReportError("The stored account of the time cannot be read; see `dramatiq-diag check`.") from error


def compare_accounts(a: Account, b: Account) -> list[PartChange]:
    """Returns: The parts of both, the one that grew most first."""
    in_a, in_b = _by_part(a["parts"]), _by_part(b["parts"])
    changes: list[PartChange] = [
        {
            "part": part,
            "on": on,
            "a_ms": in_a.get((part, on), 0.0),
            "b_ms": in_b.get((part, on), 0.0),
            "difference_ms": round(in_b.get((part, on), 0.0) - in_a.get((part, on), 0.0), 3),
        }
        for part, on in {**in_a, **in_b}
    ]
    return sorted(changes, key=lambda change: -change["difference_ms"])


def label_of(part: str, on: str | None) -> str:
    """Returns: What a part with what it waited for is called."""
    return EXPLANATIONS[part][0] + (f": {on}" if on else "")


def _by_part(parts: Sequence[Part]) -> dict[tuple[str, str | None], float]:
    return {(part["part"], part["on"]): part["ms"] for part in parts}


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(value)
    return float(value)


def _known(value: Any) -> str:
    return value if value in EXPLANATIONS else "unknown"


def _text(value: Any) -> str:
    if not isinstance(value, str | None):
        raise TypeError(value)
    return (value or "")[:500]
