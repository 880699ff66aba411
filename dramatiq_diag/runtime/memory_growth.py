"""Finds which of the parts of a process, such as threads, grow it: from its RSS and what each part has touched.

Memory that is touched is not yet growth: a task that fills buffers and frees them touches a lot, and the process stays
as large as it was. So the RSS is compared with what each part has touched so far: without the part that grows it, the
RSS moves much less. A part that has touched much before, while the RSS stayed, goes on to free what it fills, most
likely. Where no part keeps all that it touches, one is found only if no other has touched enough.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

_MIB = 1024 * 1024

#: The growth is looked for in these last seconds, the longest time first; in so many moments at most, and at least.
_WINDOWS_S = (60.0, 30.0, 15.0, 7.5, 3.8, 1.9, 1.0, 0.5)
_MAX_MOMENTS = 200
_MIN_MOMENTS = 4

#: Of more moments than this only every second, third and so on is compared.
_MOST_COMPARED = 100

#: A part grows the process if the RSS without it moves by this part of what it moves by otherwise, or less; with fewer
#: than so many moments, where that may be by chance, by the second part.
_QUIETER = 0.7
_MUCH_QUIETER = 0.45
_FEW_MOMENTS = 8
#: Each of those that grow it together makes at least this part of what the RSS moves by.
_LEAST_SHARE = 0.3
_MOST_TOGETHER = 3

#: In the place of a part that grows the process, any other part leaves so many times as much of what the RSS moves by,
#: and makes the sizes that were seen so many times less likely.
_WORSE = 1.75
_LESS_LIKELY = 150.0

#: A part frees what it fills if it has touched so many times what the RSS has risen by meanwhile, and so much more, in
#: bytes. So many moments before the growth are tried as the beginning of that time.
_FREES = 2.0
_FREED_BYTES = 32 * _MIB
_BEGINNINGS = 16

#: The last moments, of which the mean is within so many standard deviations of the RSS that a growth explains.
_LAST = 3
_DEVIATIONS = 3.0

#: A part that touched in the last seconds less than this part of what it touched in the same time before has ended
#: to grow.
_RECENT_S = 2.0
_STILL = 0.1

#: The growth counts from the last moment at which its parts had touched this part of what they touched, or less.
_BEGUN = 0.1

#: Less growth than this is none, in bytes.
_LEAST_BYTES = 4 * _MIB

#: Growth is clear if it is so many times its own standard error. With few moments the error is little known: these
#: are Student's values for one in 200, for one to five degrees of freedom, and for more.
_CLEAR = (64.0, 9.9, 5.8, 4.6, 4.0, 3.7)

#: A part that touched less than this part of the growth has not made it.
_ENOUGH = 0.4

#: The growth between the last two moments alone, in bytes; and the most seconds between them.
_SUDDEN_BYTES = 16 * _MIB
_SUDDEN_S = 1.5
#: It need not be more than the process usually grows if a part has touched so many times what any part did before in
#: as many steps, and the RSS has grown by this part of it.
_UNUSUAL = 1.5
_KEPT = 0.6

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


class MemoryGrowth:
    """The memory of a process in its last moments."""

    def __init__(self) -> None:
        self._moments: list[Moment] = []

    def add(self, moment: Moment) -> None:
        """Adds a moment, later than all others. Of many, every second one of the older half is forgotten."""
        self._moments = [other for other in self._moments if moment.at_s - other.at_s <= _WINDOWS_S[0]]
        self._moments.append(moment)
        if len(self._moments) > _MAX_MOMENTS:
            half = _MAX_MOMENTS // 2
            self._moments[:half] = self._moments[:half:2]

    def clear(self) -> None:
        """Forgets all moments."""
        self._moments.clear()

    def highest_bytes(self, growers: Collection[Hashable]) -> int | None:
        """Returns: The RSS if all but the growers had again what they had at some moment; None without a moment."""
        if not self._moments:
            return None
        now = self._moments[-1].touched
        return max(
            moment.rss_bytes + sum(now.get(part, 0) - moment.touched.get(part, 0) for part in growers)
            for moment in self._moments
        )

    def find(self) -> Growth | None:
        """Returns: The growth that ends now; None where there is none."""
        windows = self._windows()
        for moments in windows:
            freeing = self._freeing_before(moments[0])
            parts = _explaining(moments, freeing)
            if parts and self._is_higher_since(moments[0], sum(parts.values())):
                seconds, grown = moments[-1].at_s - moments[0].at_s, moments[-1].rss_bytes - moments[0].rss_bytes
                return _since_begun(moments, Growth(seconds=seconds, grown_bytes=max(grown, 0), growers=parts))
        found = [_since_begun(moments, growth) for moments in windows if (growth := _trend(moments)) is not None]
        if (sudden := self._sudden()) is not None:
            found.append(sudden)
        return next((growth for growth in found if growth.growers), found[0] if found else None)

    def _is_higher_since(self, first: Moment, touched: float) -> bool:
        """Returns: Whether the RSS has come beyond all that it was before, by a good part of what was touched since."""
        before = [moment.rss_bytes for moment in self._moments if moment.at_s < first.at_s]
        last = [moment.rss_bytes for moment in self._moments][-_LAST:]
        return max(last) - max(before, default=first.rss_bytes) >= _ENOUGH * touched

    def _freeing_before(self, first: Moment) -> set[Hashable]:
        """Returns: The parts that have touched much before a moment, while the RSS rose by little."""
        before = [moment for moment in self._moments if moment.at_s < first.at_s]
        beginnings = before[:: max(len(before) // _BEGINNINGS, 1)]
        return {
            part
            for part, now in first.touched.items()
            for beginning in beginnings
            if part in beginning.touched
            and now - beginning.touched[part] >= _FREES * max(first.rss_bytes - beginning.rss_bytes, 0) + _FREED_BYTES
        }

    def _windows(self) -> list[list[Moment]]:
        """Returns: The moments of each time, the longest time first."""
        if len(self._moments) < _MIN_MOMENTS:
            return []
        last_s = self._moments[-1].at_s
        found: dict[int, list[Moment]] = {}
        for window_s in _WINDOWS_S:
            moments = [moment for moment in self._moments if last_s - moment.at_s <= window_s]
            if len(moments) >= _MIN_MOMENTS:
                step = -(-len(moments) // _MOST_COMPARED)
                found[len(moments)] = moments[::-step][::-1]
        return list(found.values())

    def _sudden(self) -> Growth | None:
        """Returns: The growth between the last two moments, of a process that may not live to see another one."""
        before, last = self._moments[:-1], self._moments[-2:]
        if not before or last[-1].at_s - last[0].at_s > _SUDDEN_S:
            return None
        sizes = [float(moment.rss_bytes) for moment in before]
        rise = last[-1].rss_bytes - max(sizes)  # A buffer that comes and goes hardly makes a new height.
        usual = _DEVIATIONS * _spread(sizes) if len(sizes) >= _MIN_MOMENTS else 0.0
        if rise >= max(_SUDDEN_BYTES, usual):
            return _only_possible(last, last[-1].rss_bytes - last[0].rss_bytes)
        return next(filter(None, map(self._unusual, range(1, _LAST + 1))), None)

    def _unusual(self, steps: int) -> Growth | None:
        """Returns: The growth in the last steps, if a part has touched far more than any part did in as many before."""
        moments = self._moments
        if len(moments) <= _FEW_MOMENTS + steps or moments[-1].at_s - moments[-1 - steps].at_s > _SUDDEN_S:
            return None
        before, last = moments[:-steps], [moments[-1 - steps], moments[-1]]
        most, grown = max(_touched_in(last).values(), default=0), last[-1].rss_bytes - last[0].rss_bytes
        is_highest = last[-1].rss_bytes >= max(moment.rss_bytes for moment in before)
        if not is_highest or grown < max(_KEPT * most, _SUDDEN_BYTES):
            return None
        usual = (_touched_in([first, end]) for first, end in zip(before, before[steps:], strict=False))
        largest = max((size for touched in usual for size in touched.values()), default=0)
        return _only_possible(last, grown) if 0 < _UNUSUAL * largest <= most else None


def _explaining(moments: Sequence[Moment], freeing: Collection[Hashable]) -> dict[Hashable, float]:
    """Returns: The parts without which the RSS moves much less -> what they touched; empty where none is like that.

    Parameters:
      moments: The moments.
      freeing: The parts that free what they fill; one that explains the RSS better than what was found is a rival.
    """
    touched = _touched_in(moments)
    rests = [float(moment.rss_bytes) for moment in moments]
    whole = left = _spread(rests)
    limit = _MUCH_QUIETER if len(moments) < _FEW_MOMENTS else _QUIETER
    found: dict[Hashable, float] = {}
    while len(found) < _MOST_TOGETHER:
        without = {
            part: _without(rests, moments, part)
            for part, size in touched.items()
            if size >= _LEAST_BYTES and part not in found and part not in freeing
        }
        spreads = {part: _spread(values) for part, values in without.items()}
        best = min(spreads, key=spreads.__getitem__, default=None)
        if best is None or spreads[best] > min(limit * left, left - _LEAST_SHARE * whole):
            break
        found[best], rests, left = touched[best], without[best], spreads[best]
    if not found or _is_growing_otherwise(rests):
        return {}
    # The likelihood of a normal distribution falls by the ratio of the deviations, once for each independent value.
    least = left * max(_WORSE, _LESS_LIKELY ** (1 / _independent(rests)))
    rivals = {part: left if part in freeing else least for part, size in touched.items() if size >= _LEAST_BYTES}
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
        if any(_spread(_without(others, moments, each)) < least for each, least in rivals.items() if each not in found):
            return True
    return False


def _touched_in(moments: Sequence[Moment]) -> dict[Hashable, int]:
    """Returns: Part -> what it touched meanwhile, for the parts that are still there."""
    return {part: now - _first(moments, part) for part, now in moments[-1].touched.items()}


def _first(moments: Sequence[Moment], part: Hashable) -> int:
    """Returns: What a part had touched at the first moment; nothing if it began later."""
    return moments[0].touched.get(part, 0)


def _without(rests: Sequence[float], moments: Sequence[Moment], part: Hashable) -> list[float]:
    """Returns: The RSS at each moment without what a part has touched."""
    first = _first(moments, part)
    return [rest - moment.touched.get(part, first) for rest, moment in zip(rests, moments, strict=True)]


def _is_growing_otherwise(rests: Sequence[float]) -> bool:
    """Returns: Whether the RSS that is not explained has risen in the last moments."""
    before, last = rests[:-_LAST], rests[-_LAST:]
    if len(before) < _MIN_MOMENTS:
        return False
    rise = statistics.fmean(last) - statistics.fmean(before)
    return rise > max(_DEVIATIONS * _spread(before), _LEAST_BYTES)


def _spread(values: Sequence[float]) -> float:
    """Returns: The standard deviation; `statistics.pstdev` computes with fractions, and takes 50 times as long."""
    middle = statistics.fmean(values)
    return math.sqrt(sum((value - middle) ** 2 for value in values) / len(values))


def _independent(values: Sequence[float]) -> float:
    """Returns: As how many independent values these count, each of which may be close to the one before."""
    middle = statistics.fmean(values)
    offsets = [value - middle for value in values]
    square = sum(offset**2 for offset in offsets)
    product = sum(before * after for before, after in itertools.pairwise(offsets))
    likeness = min(max(product / square, 0.0), 1.0) if square else 0.0
    return max(len(values) * (1 - likeness) / (1 + likeness), 1.0)


def _since_begun(moments: Sequence[Moment], growth: Growth) -> Growth:
    """Returns: The growth since its parts began, as far as they began later than the moments do.

    Over all of the time a task that has just begun to fill the memory would seem slow.
    """
    touched = [sum(moment.touched.get(part, 0) for part in growth.growers) for moment in moments]
    first = sum(_first(moments, part) for part in growth.growers)
    until = first + _BEGUN * (touched[-1] - first)
    begun = max(number for number, size in enumerate(touched) if not number or size <= until)
    if not begun or begun == len(moments) - 1:
        return growth
    share = (touched[-1] - touched[begun]) / (touched[-1] - first)
    return Growth(
        seconds=moments[-1].at_s - moments[begun].at_s,
        grown_bytes=max(moments[-1].rss_bytes - moments[begun].rss_bytes, 0),
        growers={part: size * share for part, size in growth.growers.items()},
    )


def _still_grows(moments: Sequence[Moment], part: Hashable) -> bool:
    last_s = moments[-1].at_s
    recent = [moment for moment in moments if last_s - moment.at_s <= _RECENT_S]
    share = (last_s - recent[0].at_s) / (last_s - moments[0].at_s)
    return _touched_in(recent)[part] >= _STILL * share * _touched_in(moments)[part]


def _trend(moments: Sequence[Moment]) -> Growth | None:
    """Returns: The growth by a line through the RSS; None where it is not clear."""
    times = [moment.at_s for moment in moments]
    if times[-1] <= times[0]:
        return None
    fit = statistics.linear_regression(times, [moment.rss_bytes for moment in moments])
    rests = [moment.rss_bytes - fit.intercept - fit.slope * moment.at_s for moment in moments]
    freedom, middle = len(moments) - 2, statistics.fmean(times)
    error = math.sqrt(sum(rest**2 for rest in rests) / freedom / sum((at - middle) ** 2 for at in times))
    grown = fit.slope * (times[-1] - times[0])
    if fit.slope <= _CLEAR[min(freedom, len(_CLEAR)) - 1] * error or grown < _LEAST_BYTES:
        return None
    return _only_possible(moments, grown)


def _only_possible(moments: Sequence[Moment], grown: float) -> Growth:
    """Returns: A growth, of the one part that has touched enough for it; of none where several have, or none has."""
    touched = _touched_in(moments)
    is_partial = any(moment.is_partial for moment in moments)
    enough = 1.0 - _ENOUGH if is_partial else _ENOUGH  # A part that is not known would have touched the rest.
    parts = [part for part, size in touched.items() if size >= enough * grown]
    if not is_partial and sum(touched.values()) < _ENOUGH * grown:  # The kernel gives huge pages.
        parts = [part for part, size in touched.items() if size * _HUGE >= _ENOUGH * grown]
    growers = {parts[0]: min(touched[parts[0]], grown)} if len(parts) == 1 else {}
    return Growth(seconds=moments[-1].at_s - moments[0].at_s, grown_bytes=grown, growers=growers)
