"""Small curves: the memory of runs in lists, drawn from their rows, and the figures of a running task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from ...store.memory_curves import MOST, read_curve
from ...store.models import TaskRun

#: The size of the drawing, in its own units.
WIDTH, HEIGHT = 120, 28
_MARGIN = 2


def sparklines(runs: Iterable[TaskRun]) -> dict[UUID, str]:
    """Returns: Run id -> the points of an SVG polyline, for each run whose row has a memory curve."""
    return {run.run_id: polyline(run.memory_curve) for run in runs if run.memory_curve}


def polyline(curve: str) -> str:
    """Returns: The `points` of a polyline that fills the drawing."""
    return " ".join(
        f"{time / MOST * WIDTH:.1f},{HEIGHT - _MARGIN - memory / MOST * (HEIGHT - 2 * _MARGIN):.1f}"
        for time, memory in read_curve(curve)
    )


def line_through(points: Sequence[tuple[float, float]]) -> str:
    """Returns: The `points` of a polyline through moments and figures; the drawing begins at 0 s, and below at 0."""
    last_s = max(second for second, _ in points) or 1.0
    most = max(figure for _, figure in points) or 1.0
    inner = HEIGHT - 2 * _MARGIN
    return " ".join(
        f"{second / last_s * WIDTH:.2f},{HEIGHT - _MARGIN - figure / most * inner:.2f}" for second, figure in points
    )
