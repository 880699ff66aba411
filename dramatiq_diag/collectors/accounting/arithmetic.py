"""Divides the wall time of a run into parts that add up to it: exact sums, and sampled shares of what these leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from typing_extensions import TypedDict

Part = Literal["cpu", "gil_wait", "run_queue", "gc", "blocked", "awaiting", "loop_wait", "unknown"]

#: A part, and what it is about: a peer, a file, a lock, a child, a sleep; None where nothing is to be told.
Where = tuple[Part, str | None]

#: The most parts of one kind that are told apart; the smallest ones become one, whose `on` is `OTHERS`.
MAX_PARTS = 30
OTHERS = "others"

_ORDER: tuple[Part, ...] = ("cpu", "gil_wait", "run_queue", "gc", "blocked", "awaiting", "loop_wait", "unknown")

#: What a coroutine does between its own steps.
_OUTSIDE_OF_STEPS = ("awaiting", "loop_wait")


class PartDocument(TypedDict):
    """A part of the wall time."""

    part: Part
    on: str | None
    ms: float


class Times(NamedTuple):
    """What was counted exactly, in seconds; None where it is not known."""

    cpu_s: float | None
    "It includes that of the garbage collector."
    run_queue_s: float | None = None
    gc_s: float | None = None
    steps_s: float | None = None
    "Of a coroutine: how long its own steps took."
    loop_wait_s: float | None = None
    "Of a coroutine: how long the event loop let it wait before its first step, and its run after the last one."

    def since(self, earlier: Times) -> Times:
        """Returns: The differences."""
        return Times(*(None if a is None or b is None else max(b - a, 0.0) for a, b in zip(earlier, self, strict=True)))


def divide(wall_s: float, spent: Times, seen: Mapping[Where, float]) -> list[PartDocument]:
    """Returns: The parts, in a fixed order of kinds and the largest first within a kind; they add up to the wall time.

    Parameters:
      wall_s: The wall time.
      spent: What was counted meanwhile.
      seen: What the run was seen in while it was off the CPU -> the time that these samples stand for. They divide
        what the counters leave; without one that is `unknown`. Only their ratios count.
    """
    left = whole = max(round(wall_s * 1e6), 0)
    found: dict[Where, int] = {}
    gc_s = min(spent.gc_s or 0.0, spent.cpu_s or 0.0)
    counted: tuple[tuple[Part, float], ...] = (
        ("cpu", (spent.cpu_s or 0.0) - gc_s),
        ("gc", gc_s),
        ("run_queue", spent.run_queue_s or 0.0),
        ("loop_wait", spent.loop_wait_s or 0.0),
    )
    for part, seconds in counted:  # The counters are read a moment before the clock, and may be a little more.
        found[part, None] = min(max(round(seconds * 1e6), 0), left)
        left -= found[part, None]
    kept = _bounded(seen)
    outside = {where: weight for where, weight in kept.items() if where[0] in _OUTSIDE_OF_STEPS}
    if spent.steps_s is not None:
        in_steps = min(max(round((spent.steps_s - (spent.cpu_s or 0.0)) * 1e6), 0), left)
        left -= in_steps
        _add(found, _shared(in_steps, {where: weight for where, weight in kept.items() if where not in outside}))
        kept = outside
    _add(found, _shared(left, kept))
    assert sum(found.values()) == whole
    order = sorted(found, key=lambda where: (_ORDER.index(where[0]), -found[where]))
    return [{"part": part, "on": on, "ms": found[part, on] / 1000} for part, on in order if found[part, on]]


def _add(found: dict[Where, int], more: Mapping[Where, int]) -> None:
    for where, amount in more.items():
        found[where] = found.get(where, 0) + amount


def _shared(amount: int, weights: Mapping[Where, float]) -> dict[Where, int]:
    """Returns: The amount divided in proportion, in whole numbers that add up to it."""
    total = sum(weights.values())
    if total <= 0:
        return {("unknown", None): amount}
    shares: dict[Where, int] = {}
    passed, given = 0.0, 0
    for where, weight in weights.items():
        passed += weight
        shares[where] = round(amount * min(passed / total, 1.0)) - given
        given += shares[where]
    last = next(reversed(shares))
    shares[last] += amount - given
    return shares


def _bounded(seen: Mapping[Where, float]) -> dict[Where, float]:
    """Returns: The same, with the smallest places of each kind as one where there are many."""
    kept: dict[Where, float] = {}
    for kind in _ORDER:
        places = sorted((where for where in seen if where[0] == kind and seen[where] > 0), key=lambda w: -seen[w])
        kept.update({where: seen[where] for where in places[:MAX_PARTS]})
        if places[MAX_PARTS:]:
            other = kind, OTHERS
            kept[other] = kept.get(other, 0.0) + sum(seen[where] for where in places[MAX_PARTS:])
    return kept
