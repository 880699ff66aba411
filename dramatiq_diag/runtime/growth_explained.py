"""Finds the parts that explain how the RSS of a process moves: those without which it moves much less."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence

from .growth_moments import (
    DEVIATIONS,
    FEW_MOMENTS,
    LAST,
    LEAST_BYTES,
    MIN_MOMENTS,
    RECENT_S,
    Moment,
    first_touched,
    spread,
    touched_in,
)

#: A part grows the process if the RSS without it moves by this part of what it moves by otherwise, or less; with fewer
#: than so many moments, where that may be by chance, by the second part.
_QUIETER = 0.7
_MUCH_QUIETER = 0.45

#: Each of those that grow it together makes at least this part of what the RSS moves by.
_LEAST_SHARE = 0.3
_MOST_TOGETHER = 3

#: In the place of a part that grows the process, any other part leaves so many times as much of what the RSS moves by,
#: and makes the sizes that were seen so many times less likely.
_WORSE = 1.75
_LESS_LIKELY = 150.0

#: A part that touched recently less than this part of what it touched in the same time before has ended to grow.
_STILL = 0.1


def explaining(moments: Sequence[Moment], freeing: Collection[Hashable]) -> dict[Hashable, float]:
    """Returns: The parts without which the RSS moves much less -> what they touched; empty where none is like that.

    Parameters:
      moments: The moments.
      freeing: The parts that free what they fill; one that explains the RSS better than what was found is a rival.
    """
    touched = touched_in(moments)
    rests = [float(moment.rss_bytes) for moment in moments]
    whole = left = spread(rests)
    limit = _MUCH_QUIETER if len(moments) < FEW_MOMENTS else _QUIETER
    found: dict[Hashable, float] = {}
    while len(found) < _MOST_TOGETHER:
        without = {
            part: _without(rests, moments, part)
            for part, size in touched.items()
            if size >= LEAST_BYTES and part not in found and part not in freeing
        }
        spreads = {part: spread(values) for part, values in without.items()}
        best = min(spreads, key=spreads.__getitem__, default=None)
        if best is None or spreads[best] > min(limit * left, left - _LEAST_SHARE * whole):
            break
        found[best], rests, left = touched[best], without[best], spreads[best]
    if not found or _is_growing_otherwise(rests):
        return {}
    # The likelihood of a normal distribution falls by the ratio of the deviations, once for each independent value.
    least = left * max(_WORSE, _LESS_LIKELY ** (1 / _independent(rests)))
    rivals = {part: left if part in freeing else least for part, size in touched.items() if size >= LEAST_BYTES}
    if _has_rival(moments, found, rivals):
        return {}
    return {part: size for part, size in found.items() if _still_grows(moments, part)}


def _has_rival(moments: Sequence[Moment], found: Collection[Hashable], rivals: Mapping[Hashable, float]) -> bool:
    """Returns: Whether another part explains the RSS nearly as well in the place of one that was found.

    Parts that fill and free buffers touch as steadily as a growing process grows, for a few seconds.

    Parameters:
      moments: The moments.
      found: The parts that were found.
      rivals: Part -> the least that the RSS has to move by with it in such a place, in bytes.
    """
    for part in found:
        others = [float(moment.rss_bytes) for moment in moments]
        for other in found:
            if other != part:
                others = _without(others, moments, other)
        if any(spread(_without(others, moments, each)) < least for each, least in rivals.items() if each not in found):
            return True
    return False


def _without(rests: Sequence[float], moments: Sequence[Moment], part: Hashable) -> list[float]:
    """Returns: The RSS at each moment without what a part has touched."""
    first = first_touched(moments, part)
    return [rest - moment.touched.get(part, first) for rest, moment in zip(rests, moments, strict=True)]


def _is_growing_otherwise(rests: Sequence[float]) -> bool:
    """Returns: Whether the RSS that is not explained has risen in the last moments."""
    before, last = rests[:-LAST], rests[-LAST:]
    if len(before) < MIN_MOMENTS:
        return False
    rise = statistics.fmean(last) - statistics.fmean(before)
    return rise > max(DEVIATIONS * spread(before), LEAST_BYTES)


def _independent(values: Sequence[float]) -> float:
    """Returns: As how many independent values these count, each of which may be close to the one before."""
    middle = statistics.fmean(values)
    offsets = [value - middle for value in values]
    square = sum(offset**2 for offset in offsets)
    product = sum(before * after for before, after in itertools.pairwise(offsets))
    likeness = min(max(product / square, 0.0), 1.0) if square else 0.0
    return max(len(values) * (1 - likeness) / (1 + likeness), 1.0)


def _still_grows(moments: Sequence[Moment], part: Hashable) -> bool:
    last_s = moments[-1].at_s
    recent = [moment for moment in moments if last_s - moment.at_s <= RECENT_S]
    share = (last_s - recent[0].at_s) / (last_s - moments[0].at_s)
    return touched_in(recent)[part] >= _STILL * share * touched_in(moments)[part]
