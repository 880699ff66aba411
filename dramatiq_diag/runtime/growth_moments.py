"""The memory of a process at some moments, and its growth in between: what all ways to find a growth have in common."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from ..text import MIB

#: The fewest moments that say something; with fewer than the second number, what they say may be chance.
MIN_MOMENTS = 4
FEW_MOMENTS = 8

#: The last moments, of which the mean is within so many standard deviations of the RSS that a growth explains.
LAST = 3
DEVIATIONS = 3.0

#: Less growth than this is none, in bytes.
LEAST_BYTES = 4 * MIB

#: A part that touched less than this part of the growth has not made it.
ENOUGH = 0.4

#: What parts do in the last so many seconds counts as recent; so many times as fast as before is much faster.
RECENT_S = 2.0
_MUCH_FASTER = 2.0

#: A huge page has so many pages.
_HUGE = 512


@dataclass(frozen=True, slots=True)
class Moment:
    """The memory at one moment."""

    at_s: float
    rss_bytes: int
    touched: Mapping[Hashable, int]
    "Part -> the bytes that it has touched so far."
    is_partial: bool = False
    "Whether what other parts had touched by then is not known."


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The growth of a process in its last moments."""

    seconds: float
    grown_bytes: float
    growers: Mapping[Hashable, float] = field(default_factory=dict)
    "The parts that were growing it -> by how many bytes; empty where that cannot be told."


def touched_in(moments: Sequence[Moment]) -> dict[Hashable, int]:
    """Returns: Part -> what it touched meanwhile, for the parts that are still there."""
    return {part: now - first_touched(moments, part) for part, now in moments[-1].touched.items()}


def first_touched(moments: Sequence[Moment], part: Hashable) -> int:
    """Returns: What a part had touched at the first moment; nothing if it began later."""
    return moments[0].touched.get(part, 0)


def spread(values: Sequence[float]) -> float:
    """Returns: The standard deviation; `statistics.pstdev` computes with fractions, and takes 50 times as long."""
    middle = statistics.fmean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / len(values))


def at_its_end(moments: Sequence[Moment], growth: Growth) -> Growth:
    """Returns: The last half of a growth, or what it was in the last seconds if that is much faster.

    Over all of the time, a part that has just begun to grow would seem slow.
    """
    touched = [sum(moment.touched.get(part, 0) for part in growth.growers) for moment in moments]
    first, last = sum(first_touched(moments, part) for part in growth.growers), len(moments) - 1
    if touched[last] <= first:
        return growth

    def bytes_per_s(begun: int) -> float:
        return (touched[last] - touched[begun]) / (moments[last].at_s - moments[begun].at_s)

    half = max(number for number, size in enumerate(touched) if not number or size <= (first + touched[last]) / 2)
    recent = next((number for number in range(last) if moments[last].at_s - moments[number].at_s <= RECENT_S), half)
    begun = recent if bytes_per_s(recent) >= _MUCH_FASTER * bytes_per_s(half) else half
    share = (touched[last] - touched[begun]) / (touched[last] - first)
    growers = {part: size * share for part, size in growth.growers.items()}
    return Growth(
        seconds=moments[last].at_s - moments[begun].at_s,
        grown_bytes=max(moments[last].rss_bytes - moments[begun].rss_bytes, sum(growers.values())),
        growers=growers,
    )


def only_possible(moments: Sequence[Moment], grown: float) -> Growth:
    """Returns: A growth, of the one part that has touched enough for it; of none where several have, or none has."""
    touched = touched_in(moments)
    is_partial = any(moment.is_partial for moment in moments)
    enough = 1.0 - ENOUGH if is_partial else ENOUGH  # A part that is not known would have touched the rest.
    parts = [part for part, size in touched.items() if size >= enough * grown]
    if not is_partial and sum(touched.values()) < ENOUGH * grown:  # The kernel gives huge pages.
        parts = [part for part, size in touched.items() if size * _HUGE >= ENOUGH * grown]
    growers = {parts[0]: min(touched[parts[0]], grown)} if len(parts) == 1 else {}
    return Growth(seconds=moments[-1].at_s - moments[0].at_s, grown_bytes=grown, growers=growers)
