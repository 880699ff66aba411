"""Says of each actor whether its runs keep memory, from the windows of the worker processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from ..statuses import LeakVerdict
from ..text import counted, format_size
from .attribution import Part
from .growth import ALL, RARE, Growth, attribute
from .live_memory import Window, after_warm_up, runs_of

#: An actor that keeps less than this of each run, in bytes, counts as clean.
FLOOR_BYTES = 100.0

#: The fewest runs of an actor, after the warm-up of their processes, that say something.
MIN_RUNS = 30

#: By how much the growth has to follow an actor better than any other, as chi-squared: chance does so once in 1,500.
_ADVANTAGE = 10.0

#: Why nothing is known of an actor after a late fall of the memory.
_FELL = "Memory fell late in the life of its processes, and so far it has too few runs since then."

#: The most runs that are said to be needed.
_MOST_NEEDED = 10_000_000


@dataclass(frozen=True, kw_only=True)
class ActorFinding:
    """What the windows say of an actor."""

    actor_name: str
    runs: int
    "Its runs after the warm-up of their processes."
    bytes_per_run: float | None
    "What stays of each run; None where it is not known."
    low: float | None
    "With `high` the interval of 95 %."
    high: float | None
    verdict: LeakVerdict
    reason: str
    runs_needed: int | None
    "How many runs more are needed, about; None where that is not known, or none are."


def findings(processes: Sequence[Sequence[Window]]) -> list[ActorFinding]:
    """Says of each actor whether its runs keep memory: the leaking ones first.

    Parameters:
      processes: The windows of each process, in order.
    """
    judged = [(windows, rest) for windows in processes if (rest := after_warm_up(windows))]
    runs = runs_of([rest for _, rest in judged])
    names = sorted(name for name, count in runs.items() if count >= MIN_RUNS)
    growth = [attribute(judged, names, figure) for figure in (attrgetter("small_bytes"), attrgetter("in_use_bytes"))]
    free = attribute(judged, names, attrgetter("free_bytes")) if _is_fragmented(judged) else None
    found = []
    for name in sorted({name for windows in processes for window in windows for name in window.runs}):
        is_judged = runs[name] >= MIN_RUNS
        found.append(_finding(name, runs[name], growth, free) if is_judged else _too_few(name, runs[name]))
    order = list(LeakVerdict)
    return sorted(found, key=lambda one: (order.index(one.verdict), -(one.bytes_per_run or 0.0), one.actor_name))


def _finding(name: str, runs: int, growth: Sequence[Growth], free: Growth | None) -> ActorFinding:
    parts = [part for one in growth if (part := one.parts.get(name)) is not None]
    sure = [part for part in parts if _reason_against(part) is None]
    value = sum(part.value for part in sure)
    common, most_common = _kept_by_all(growth)
    if value >= FLOOR_BYTES:
        reason = f"Each run keeps about {_bytes(value)} that nothing frees later."
        if common >= FLOOR_BYTES:
            reason += f" That is beside about {_bytes(common)} that each run of whichever actor keeps."
        low, high = sum(part.low for part in sure), sum(part.high for part in sure)
        return _made(name, runs, value, low, high, LeakVerdict.LEAKS, reason)
    pieces = None if free is None else free.parts.get(name)
    if pieces is not None and _reason_against(pieces) is None:
        reason = (
            "What its runs use is given back to the heap, but the heap keeps it: it is in pieces between memory that "
            f"is in use, about {_bytes(pieces.value)} more for each run, and the RSS grows."
        )
        return _made(name, runs, 0.0, 0.0, 0.0, LeakVerdict.FRAGMENTATION, reason)
    value, high = _most(name, growth)
    if math.isinf(high):
        return replace(_too_few(name, runs), reason=_FELL, runs_needed=None)
    if high < FLOOR_BYTES:
        reason = f"Whatever its runs keep is less than {_bytes(FLOOR_BYTES)} each."
        return _made(name, runs, value, 0.0, high, LeakVerdict.CLEAN, reason)
    if parts:
        part = max(parts, key=lambda one: one.value)
        against = _reason_against(part) or f"It keeps about {_bytes(part.value)} of each run, which may be chance."
        needed = max(runs * (_ADVANTAGE / max(part.advantage, 1.0) - 1.0), runs / 2)
        return _made(name, runs, part.value, part.low, part.high, LeakVerdict.UNDECIDED, against, needed)
    if common >= FLOOR_BYTES:
        reason = (
            f"Each run of whichever actor keeps about {_bytes(common)}: code that all of them use leaks or fills a "
            "cache, or so far the actors cannot be told apart. This one keeps at most "
            f"{_bytes(max(high - most_common, 0.0))} more of each run."
        )
        return _made(name, runs, value, 0.0, high, LeakVerdict.UNDECIDED, reason)
    reason = f"Its runs keep at most {_bytes(high)} each; so far it cannot be said more exactly."
    needed = runs * ((high / FLOOR_BYTES) ** 2 - 1.0)
    return _made(name, runs, value, 0.0, high, LeakVerdict.UNDECIDED, reason, needed)


def _most(name: str, growth: Sequence[Growth]) -> tuple[float, float]:
    """Returns: What a run of an actor keeps by the best guess, and at most: never more than all that was kept.

    Infinity is for an actor that had too few runs since memory last fell.
    """
    value, high = _kept_by_all(growth)
    for one in growth:
        runs = one.runs.get(name, 0)
        all_of_it = one.grown_bytes / runs if runs >= MIN_RUNS else math.inf
        part = one.parts.get(name)
        if part is not None:
            value, high = value + part.value, high + part.high
        else:
            bound = one.bound(name)
            value += min(bound.value, all_of_it)
            high += min(bound.value + 2.0 * bound.error, all_of_it)
    return value, high


def _kept_by_all(growth: Sequence[Growth]) -> tuple[float, float]:
    """Returns: What each run of any actor keeps, by the best guess and at most; where that falls, what it keeps now."""
    value = high = 0.0
    for one in growth:
        part = one.parts.get(ALL)
        if part is not None:
            now = max(part.late_value, 0.0) if _slows_down(part) else part.value
            value, high = value + now, high + now + max(part.high - part.value, 0.0)
    return value, high


def _reason_against(part: Part) -> str | None:
    """Returns: Why a part says nothing for certain of its actor; None where it does."""
    if part.advantage < _ADVANTAGE:
        rival = {None: "chance", ALL: "those of all actors alike", RARE: "those of actors with few runs"}.get(
            part.rival, f"those of {part.rival}"
        )
        return f"Memory grows with its runs, but nearly as well with {rival}."
    if part.low <= 0.0:
        return "Memory grows with its runs, but only in a part of the time."
    if _slows_down(part):
        return "Memory grew with its runs, and grows more slowly now, as a cache does that fills."
    return None


def _slows_down(part: Part) -> bool:
    """Returns: Whether the growth has become much less in the second half of the time."""
    return part.late_value + part.late_error < part.value / 2


def _is_fragmented(judged: Sequence[tuple[Sequence[Window], Sequence[Window]]]) -> bool:
    """Returns: Whether the heaps keep more and more free while what is in use stays, and the RSS grows."""
    free = live = rss = 0
    for _, rest in judged:
        free += _growth([window.free_bytes for window in rest])
        live += _growth([window.live_bytes for window in rest])
        rss += _growth([window.rss_bytes or 0 for window in rest])
    return free > 4 * max(live, 0) and 2 * rss > free > 0


def _growth(figures: Sequence[int]) -> int:
    """Returns: From the least of the first half to the least of the second."""
    middle = len(figures) // 2
    return min(figures[middle:]) - min(figures[:middle])


def _too_few(name: str, runs: int) -> ActorFinding:
    reason = f"It has {counted(runs, 'run')} that count: the first quarter of a process's life is its warm-up."
    return ActorFinding(
        actor_name=name,
        runs=runs,
        bytes_per_run=None,
        low=None,
        high=None,
        verdict=LeakVerdict.UNDECIDED,
        reason=reason,
        runs_needed=max(MIN_RUNS - runs, 1),
    )


def _made(
    name: str,
    runs: int,
    value: float,
    low: float,
    high: float,
    verdict: LeakVerdict,
    reason: str,
    runs_needed: float | None = None,
) -> ActorFinding:
    needed = None if runs_needed is None else min(max(math.ceil(runs_needed), 1), _MOST_NEEDED)
    return ActorFinding(
        actor_name=name,
        runs=runs,
        bytes_per_run=round(value, 1),
        low=round(low, 1),
        high=round(high, 1),
        verdict=verdict,
        reason=reason,
        runs_needed=needed,
    )


def _bytes(value: float) -> str:
    return format_size(round(value))
