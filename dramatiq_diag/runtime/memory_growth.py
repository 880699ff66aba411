"""Finds which of the parts of a process, such as threads, grow it: from its RSS and what each part has touched.

Memory that is touched is not yet growth: a task that fills buffers and frees them touches a lot, and the process stays
as large as it was. So the RSS is compared with what each part has touched so far: without the part that grows it, the
RSS moves much less. A part that has touched much before, while the RSS stayed, goes on to free what it fills, most
likely. Where no part keeps all that it touches, one is found only if no other has touched enough.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Hashable, Sequence
from dataclasses import replace

from ..text import MIB
from .growth_explained import explaining
from .growth_moments import (
    DEVIATIONS,
    ENOUGH,
    FEW_MOMENTS,
    LAST,
    LEAST_BYTES,
    MIN_MOMENTS,
    Growth,
    Moment,
    at_its_end,
    only_possible,
    spread,
    touched_in,
)

#: The growth is looked for in these last seconds, the longest time first.
_WINDOWS_S = (60.0, 30.0, 15.0, 7.5, 3.8, 1.9, 1.0, 0.5)

#: The most moments that are kept.
_MAX_MOMENTS = 200

#: Of more moments than this only every second, third and so on is compared.
_MOST_COMPARED = 100

#: A part frees what it fills if it has touched so many times what the RSS has risen by meanwhile, and so much more, in
#: bytes. So many moments before the growth are tried as the beginning of that time.
_FREES = 2.0
_FREED_BYTES = 32 * MIB
_BEGINNINGS = 16

#: Growth is clear if it is so many times its own standard error. With few moments the error is little known: these
#: are Student's values for one in 200, for one to five degrees of freedom, and for more.
_CLEAR = (64.0, 9.9, 5.8, 4.6, 4.0, 3.7)

#: The growth between the last two moments alone, in bytes; and the most seconds between them.
_SUDDEN_BYTES = 16 * MIB
_SUDDEN_S = 1.5

#: It need not be more than the process usually grows if a part has touched so many times what any part did before in
#: as many steps, and the RSS has grown by this part of it.
_UNUSUAL = 1.5
_KEPT = 0.6

#: Looks are not exactly as far apart as others: what a part usually touches is that of so much more time, in seconds.
_SLACK_S = 0.1


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
        if not growers:  # In most of the looks, one a second: the sums below would take most of such a look.
            return max(moment.rss_bytes for moment in self._moments)
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
            parts = explaining(moments, freeing)
            if parts and self._is_higher_since(moments[0], sum(parts.values())):
                seconds, grown = moments[-1].at_s - moments[0].at_s, moments[-1].rss_bytes - moments[0].rss_bytes
                return at_its_end(moments, Growth(seconds=seconds, grown_bytes=max(grown, 0), growers=parts))
        found = [(moments, growth) for moments in windows if (growth := _trend(moments)) is not None]
        if (sudden := self._sudden()) is not None:
            found.append((self._moments[-2:], sudden))
        named = (each for each in found if each[1].growers and not self._is_as_usual(*each))
        if (best := next(named, None)) is not None:
            return at_its_end(*best)
        return replace(found[0][1], growers={}) if found else None

    def _is_as_usual(self, moments: Sequence[Moment], growth: Growth) -> bool:
        """Returns: Whether a part that frees what it fills has touched no more than it did in as much time before."""
        touched = touched_in(moments)
        before = [moment for moment in self._moments if moment.at_s <= moments[0].at_s]
        most_s = moments[-1].at_s - moments[0].at_s + _SLACK_S
        for part in self._freeing_before(moments[0]) & growth.growers.keys():
            first = 0
            for last in before:
                while last.at_s - before[first].at_s > most_s:
                    first += 1
                if touched[part] < _UNUSUAL * (last.touched.get(part, 0) - before[first].touched.get(part, 0)):
                    return True
        return False

    def _is_higher_since(self, first: Moment, touched: float) -> bool:
        """Returns: Whether the RSS has come beyond all that it was before, by a good part of what was touched since."""
        before = [moment.rss_bytes for moment in self._moments if moment.at_s < first.at_s]
        last = [moment.rss_bytes for moment in self._moments][-LAST:]
        return max(last) - max(before, default=first.rss_bytes) >= ENOUGH * touched

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
        if len(self._moments) < MIN_MOMENTS:
            return []
        last_s = self._moments[-1].at_s
        found: dict[int, list[Moment]] = {}
        for window_s in _WINDOWS_S:
            moments = [moment for moment in self._moments if last_s - moment.at_s <= window_s]
            if len(moments) >= MIN_MOMENTS:
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
        usual = DEVIATIONS * spread(sizes) if len(sizes) >= MIN_MOMENTS else 0.0
        if rise >= max(_SUDDEN_BYTES, usual):
            return only_possible(last, last[-1].rss_bytes - last[0].rss_bytes)
        return next(filter(None, map(self._unusual, range(1, LAST + 1))), None)

    def _unusual(self, steps: int) -> Growth | None:
        """Returns: The growth in the last steps, if a part has touched far more than any part did in as many before."""
        moments = self._moments
        if len(moments) <= FEW_MOMENTS + steps or moments[-1].at_s - moments[-1 - steps].at_s > _SUDDEN_S:
            return None
        before, last = moments[:-steps], [moments[-1 - steps], moments[-1]]
        most, grown = max(touched_in(last).values(), default=0), last[-1].rss_bytes - last[0].rss_bytes
        is_highest = last[-1].rss_bytes >= max(moment.rss_bytes for moment in before)
        if not is_highest or grown < max(_KEPT * most, _SUDDEN_BYTES):
            return None
        usual = (touched_in([first, end]) for first, end in zip(before, before[steps:], strict=False))
        largest = max((size for touched in usual for size in touched.values()), default=0)
        return only_possible(last, grown) if 0 < _UNUSUAL * largest <= most else None


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
    if fit.slope <= _CLEAR[min(freedom, len(_CLEAR)) - 1] * error or grown < LEAST_BYTES:
        return None
    return only_possible(moments, grown)
