"""What a benchmark says, and the table of all."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """One row: a budget, and what was measured in one run."""

    what: str
    budget: str
    measured: str
    "The median, with its spread where there is one."
    reference: str = ""
    "The same without this package, or with the way of the reference."
    met: bool | None
    "None where there is no budget, or what was measured is smaller than what it is for."

    def row(self) -> dict[str, Any]:
        """Returns: The fields, for the JSON."""
        return asdict(self)


def table(results: Sequence[Result]) -> str:
    """Returns: A Markdown table."""
    lines = ["| what | budget | measured | reference | |", "|---|---|---|---|---|"]
    for result in results:
        verdict = {True: "met", False: "**missed**", None: "not judged"}[result.met]
        lines.append(f"| {result.what} | {result.budget} | {result.measured} | {result.reference} | {verdict} |")
    return "\n".join(lines)


def interleaved(rounds: int, *ways: Callable[[], float]) -> list[list[float]]:
    """Calls each way in turn, over and over. Returns: The figures of each, round by round."""
    figures: list[list[float]] = [[] for _ in ways]
    for number in range(rounds):
        order = range(len(ways)) if number % 2 else reversed(range(len(ways)))
        for way in order:
            figures[way].append(ways[way]())
    return figures


def ratio(figures: Sequence[float], base: Sequence[float]) -> str:
    """Returns: The median of the paired ratios, with the quartiles."""
    return f"{median_ratio(figures, base):.3f} ({spread([f / b for f, b in zip(figures, base, strict=True)], 3)})"


def median_ratio(figures: Sequence[float], base: Sequence[float]) -> float:
    """Returns: The median of the paired ratios."""
    return statistics.median(f / b for f, b in zip(figures, base, strict=True))


def spread(figures: Sequence[float], digits: int = 1) -> str:
    """Returns: The quartiles, as in `1.1 to 1.3`."""
    low, _, high = statistics.quantiles(figures, n=4)
    return f"{low:.{digits}f} to {high:.{digits}f}"


def percentile(figures: Sequence[float], percent: float) -> float:
    """Returns: The figure that so many percent do not pass."""
    ordered = sorted(figures)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]
