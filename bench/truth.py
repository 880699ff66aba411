"""The error of the profile's shares against known truth, for each mix of work at 1, 4 and 8 threads."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from .accuracy import MIXES, errors
from .result import Result

_SECONDS = 10.0
_SEEDS = (1, 2, 3)
_BUDGET_POINTS = 3.0


def run() -> Iterator[Result]:
    """Yields a row for each mix and number of threads."""
    for threads in (1, 4, 8):
        for mix in MIXES:
            worst = [max(errors(mix, threads, _SECONDS, seed).values(), key=abs) for seed in _SEEDS]
            median = statistics.median(map(abs, worst))
            yield Result(
                what=f"largest error of a share, {mix}, {threads} threads",
                budget=f"{_BUDGET_POINTS:g} points",
                measured=f"{median:.1f} points (runs: {', '.join(f'{points:+.1f}' for points in worst)})",
                met=median <= _BUDGET_POINTS,
            )
