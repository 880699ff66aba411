"""Prepares the windows of a process for a regression: without its warm-up, as what was kept to the end."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

#: The first part of the life of a process, in which it imports modules and fills caches. It does not count.
WARM_UP_SHARE = 0.25

#: A step that is so many times the root mean square of all others is a jump: one large thing was loaded late, or memory
#: was given back that nobody had used for long.
_JUMP = 8.0

#: The most jumps of a process. What happens more often is no accident.
_MOST_JUMPS = 3

#: The fewest windows of a process, after its warm-up, that say something.
MIN_WINDOWS = 8


@dataclass(frozen=True, kw_only=True)
class Window:
    """A window of one process; see `store.models.HeapWindow`."""

    number: int
    "The rank among the windows of the process, from 0."
    runs: Mapping[str, int]
    "Actor -> how many of its runs ended since the window before."
    small_bytes: int
    "Of live objects of at most 512 bytes each."
    in_use_bytes: int
    "Of the C library's heap, where larger objects are."
    free_bytes: int
    rss_bytes: int | None

    @property
    def live_bytes(self) -> int:
        """All that is in use."""
        return self.small_bytes + self.in_use_bytes


#: Takes one of the figures of a window.
Figure = Callable[[Window], int]


@dataclass(frozen=True, kw_only=True)
class Step:
    """From one window of a process to the next."""

    runs: Mapping[str, int]
    grown_bytes: float
    "How much more was kept after them."
    is_late: bool
    "Whether it is in the second half of the windows."


def after_warm_up(windows: Sequence[Window]) -> Sequence[Window]:
    """Returns: The windows after the first quarter of the life of their process; none where these are too few."""
    first = (windows[-1].number + 1) * WARM_UP_SHARE if windows else 0.0
    rest = [window for window in windows if window.number >= first]
    return rest if len(rest) >= MIN_WINDOWS else []


def merged(windows: Sequence[Window], size: int) -> Sequence[Window]:
    """Returns: Windows that are *size* times as long: each has the runs of all, and the memory of the last."""
    groups = [windows[start : start + size] for start in range(0, len(windows), size)]
    return windows if size == 1 else [_merge(group) for group in groups]


def kept_bytes(figures: Sequence[int]) -> list[int]:
    """Returns: For each window the least from there on, which is what was kept until the end.

    Memory that waits for the garbage collector, or that a task needs while it runs, is gone at some later time.
    """
    return list(accumulate(reversed(figures), min))[::-1]


def runs_of(processes: Sequence[Sequence[Window]]) -> Counter[str]:
    """Returns: Actor -> its runs after the first window of each process."""
    runs: Counter[str] = Counter()
    for windows in processes:
        for window in windows[1:]:
            runs.update(window.runs)
    return runs


def lower_envelope(windows: Sequence[Window], figure: Figure) -> list[Window]:
    """Returns: The windows after which the figure is never as low again, each with all runs since the one before."""
    figures = [figure(window) for window in windows]
    found, start = list[Window](), 0
    for number, (now, later) in enumerate(zip(figures, [*kept_bytes(figures)[1:], math.inf], strict=True)):
        if now < later:
            found.append(_merge(windows[start : number + 1]))
            start = number + 1
    return found


def segments(windows: Sequence[Window], figure: Figure, seen: set[str]) -> list[list[Step]]:
    """Divides a process at jumps, and where an actor runs for the first time: imports and caches grow it then, once.

    Parameters:
      windows: A lower envelope.
      seen: The actors that had a run before the first of the windows.

    Returns:
      The steps between windows, those without a jump or such a first run in between together.
    """
    found: list[list[Step]] = [[]]
    grown = [figure(after) - figure(before) for before, after in pairwise(windows)]
    jumps = _jumps(grown, [sum(window.runs.values()) for window in windows[1:]])
    seen = seen | windows[0].runs.keys() if windows else seen
    for number, (window, grown_bytes) in enumerate(zip(windows[1:], grown, strict=True)):
        if window.runs.keys() <= seen and number not in jumps:
            is_late = 2 * number >= len(grown)
            found[-1].append(Step(runs=window.runs, grown_bytes=float(grown_bytes), is_late=is_late))
        elif found[-1]:
            found.append([])
        seen = seen | window.runs.keys()
    return [steps for steps in found if steps]


def _jumps(grown: Sequence[int], runs: Sequence[int]) -> set[int]:
    """Returns: The numbers of the steps that are jumps, up or down, beside the usual growth with the number of runs."""
    usual = statistics.median([size / max(count, 1) for size, count in zip(grown, runs, strict=True)] or [0.0])
    steps = [size - usual * count for size, count in zip(grown, runs, strict=True)]
    squares, found = sum(step * step for step in steps), set[int]()
    for number in sorted(range(len(steps)), key=lambda number: -abs(steps[number]))[:_MOST_JUMPS]:
        squares -= steps[number] ** 2
        others = len(steps) - len(found) - 1
        if others < 1 or steps[number] ** 2 <= _JUMP**2 * squares / others:
            break
        found.add(number)
    return found


def _merge(windows: Sequence[Window]) -> Window:
    runs: dict[str, int] = {}
    for window in windows:
        for name, count in window.runs.items():
            runs[name] = runs.get(name, 0) + count
    last = windows[-1]
    return Window(
        number=last.number,
        runs=runs,
        small_bytes=last.small_bytes,
        in_use_bytes=last.in_use_bytes,
        free_bytes=last.free_bytes,
        rss_bytes=last.rss_bytes,
    )
