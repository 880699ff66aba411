"""The error of the profile's shares against known truth, for each mix of work at 1, 4 and 8 threads."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from .accuracy import MIXES, Accuracy, measure
from .result import Result

_SECONDS = 20.0
_SEEDS = (1, 2)


def run() -> Iterator[Result]:
    """Yields a row for each mix and number of threads, and those with all diagnostics at once."""
    for threads in (1, 4, 8):
        for mix in MIXES:
            yield _row(mix, threads, ("memory", "pyinstrument"), 3.0)
    for mix in MIXES:
        yield _row(mix, 8, ("memory", "pyinstrument", "memray"), 5.0)


def _row(mix: str, threads: int, names: Sequence[str], budget_points: float) -> Result:
    measured: list[Accuracy] = []
    for seed in _SEEDS:
        measured += measure(mix, threads, _SECONDS, seed, names)
    errors = {kind: [profile.errors[kind] for profile in measured] for kind in MIXES[mix]}
    bias = max((statistics.mean(points) for points in errors.values()), key=abs)
    worst = max(abs(point) for points in errors.values() for point in points)
    samples = statistics.mean(profile.samples for profile in measured)
    others = " with memray" if "memray" in names else ""
    return Result(
        what=f"largest error of a share, {mix}, {threads} thread{'s' if threads > 1 else ''}{others}",
        budget=f"{budget_points:g} points",
        measured=f"{worst:.1f} points, mean {bias:+.1f}, samples {100 * samples:.0f} %",
        met=worst <= budget_points,
    )
