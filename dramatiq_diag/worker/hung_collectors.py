"""Knows the collectors of a process of which a step does not return."""

from __future__ import annotations

from collections.abc import Callable

from ..collectors.base import Collector

#: A collector of which so many steps had to be abandoned is left out for good, also if they returned at last.
_MOST = 3


class HungCollectors:
    """The collectors that later runs do without. Any thread may use it; the threads of tasks do.

    On a machine that is busy, or pauses, a step that hangs for seconds may return after all. So the collector is left
    out until then, and for good only if it happens again and again: each time a task waits.
    """

    def __init__(self) -> None:
        self._abandoned: dict[Collector, list[Callable[[], bool]]] = {}
        "Collector -> whether each of its abandoned steps has returned."

    def __contains__(self, collector: Collector) -> bool:
        steps = self._abandoned.get(collector)
        return steps is not None and (len(steps) >= _MOST or not all(is_over() for is_over in tuple(steps)))

    def __len__(self) -> int:
        return sum(collector in self for collector in tuple(self._abandoned))

    def add(self, collector: Collector, is_over: Callable[[], bool]) -> None:
        """Adds a collector of which a step was abandoned.

        Parameters:
          is_over: Whether the step has returned since.
        """
        self._abandoned.setdefault(collector, []).append(is_over)
