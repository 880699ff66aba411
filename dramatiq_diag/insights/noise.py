"""The noise of the live memory of a process: steps that stay, and deviations that pass; and how to even it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: The ratios that are tried: the variance of what stays, to that of what passes. The first is nearly a level with
#: deviations, the last a random walk.
_RATIOS = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)

#: The least noise, in bytes: no allocator is more exact.
_LEAST_BYTES = 256.0


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The noise of one process.

    The memory after each window is a level plus a deviation that passes; the level moves by what runs leave, and by
    steps that stay. So a step between windows has the noise `stay + pass - pass before`, and neighbours are related.
    """

    ratio: float
    "The variance of what stays, to that of what passes."
    scale_bytes: float
    "The standard deviation of what passes."

    def whitened(self, steps: Sequence[float]) -> list[float]:
        """Returns: The steps of one segment as numbers of which each has the variance 1 and none is related to another.

        For a figure that follows the model linearly, such as a count of runs, the same, with the same meaning.
        """
        found: list[float] = []
        spread, before = self.ratio + 2.0, 0.0
        variance = spread
        for step in steps:
            before = step + before / variance if found else step
            variance = spread - 1.0 / variance if found else spread
            found.append(before / math.sqrt(variance) / self.scale_bytes)
        return found


def estimated(segments: Sequence[Sequence[float]]) -> Noise:
    """Returns: The most likely noise of segments of steps, from which growth is taken off already."""
    count = sum(map(len, segments))
    best: tuple[float, Noise] | None = None
    for ratio in _RATIOS:
        squares = logs = 0.0
        noise = Noise(ratio=ratio, scale_bytes=1.0)
        for steps in segments:
            squares += sum(value * value for value in noise.whitened(steps))
            logs += _log_variances(ratio, len(steps))
        scale = max(math.sqrt(squares / count), _LEAST_BYTES)
        unlikely = 2 * count * math.log(scale) + squares / scale**2 + logs
        if best is None or unlikely < best[0]:
            best = unlikely, Noise(ratio=ratio, scale_bytes=scale)
    assert best is not None
    return best[1]


def _log_variances(ratio: float, count: int) -> float:
    spread = variance = ratio + 2.0
    total = 0.0
    for _ in range(count):
        total += math.log(variance)
        variance = spread - 1.0 / variance
    return total
