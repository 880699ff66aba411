"""Attributes the growth of the live memory of all processes to the actors whose runs it follows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from .attribution import Attribution, Bound, Part, interval, value_of
from .live_memory import Figure, Step, Window, lower_envelope, merged, runs_of, segments
from .noise import estimated

#: An actor with this part of all runs cannot be told from all actors alike.
_DOMINANT_SHARE = 0.8

#: The most numbers of one regression: of a thousand actors it has 500 windows, each many times as long.
_MAX_CELLS = 500_000

#: The columns of no single actor. No stored name has a null character.
ALL, RARE = "\0all", "\0rare"


@dataclass(frozen=True, kw_only=True)
class Growth:
    """The growth of one figure in all processes."""

    grown_bytes: int
    "All of it: no actor has kept more."
    runs: Mapping[str, int]
    "Actor -> its runs meanwhile; none of before memory last fell, as what they kept may have been freed then."
    parts: Mapping[str, Part]
    "What it owes to columns that have a part in it."
    bound: Callable[[str], Bound]
    "What it may owe to any other column."


def attribute(
    judged: Sequence[tuple[Sequence[Window], Sequence[Window]]], names: Sequence[str], figure: Figure
) -> Growth:
    """Attributes the growth of one figure, over all processes.

    Parameters:
      judged: The windows of each process, all and those after the warm-up.
      names: The actors that may have a part in it.
    """
    envelopes = [lower_envelope(rest, figure) for _, rest in judged]
    before = [
        {name for each in windows if each.number < rest[0].number for name in each.runs} for windows, rest in judged
    ]
    size = max(math.ceil(sum(map(len, envelopes)) * len(names) / _MAX_CELLS), 1)
    rows = _Rows(names)
    for envelope, seen in zip(envelopes, before, strict=True):
        rows.add(segments(merged(envelope, size), figure, seen))
    attribution = rows.attribution()
    measured = _Rows([name for name in attribution.parts if name in names])
    for (_, rest), seen in zip(judged, before, strict=True):
        measured.add(segments(rest, figure, seen))
    return Growth(
        grown_bytes=sum(figure(envelope[-1]) - figure(envelope[0]) for envelope in envelopes),
        runs=runs_of(envelopes),
        parts={name: measured.corrected(name, attribution.parts) for name in attribution.parts},
        bound=attribution.bound,
    )


class _Rows:
    """The rows of a regression: the growth from window to window, and the runs that ended meanwhile.

    Parameters:
      names: The actors with a column of their own.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        self._growth: list[float] = []
        self._late: list[bool] = []
        self._columns: dict[str, list[float]] = {name: [] for name in (*names, RARE, ALL)}
        self._runs: Counter[str] = Counter()

    def add(self, parts: Sequence[Sequence[Step]]) -> None:
        """Adds the steps of one process, evened out by its own noise."""
        if not parts:
            return
        runs = sum(sum(step.runs.values()) for steps in parts for step in steps)
        mean = sum(step.grown_bytes for steps in parts for step in steps) / max(runs, 1)
        noise = estimated([[step.grown_bytes - mean * sum(step.runs.values()) for step in steps] for steps in parts])
        for steps in parts:
            self._growth += noise.whitened([step.grown_bytes for step in steps])
            self._late += [step.is_late for step in steps]
            counts = [self._counts(step) for step in steps]
            here = {name for count in counts for name in count}
            for name, column in self._columns.items():
                known = [float(count.get(name, 0)) for count in counts] if name in here else None
                column += [0.0] * len(steps) if known is None else noise.whitened(known)

    def _counts(self, step: Step) -> Mapping[str, int]:
        """Returns: The runs of a step by column."""
        known = {name: count for name, count in step.runs.items() if name in self._names}
        self._runs.update(known)
        every = sum(step.runs.values())
        return {**known, ALL: every, RARE: every - sum(known.values())}

    def attribution(self) -> Attribution:
        """Returns: Whose runs the growth follows."""
        most = max(self._runs.values(), default=0)
        if most >= _DOMINANT_SHARE * self._runs.total():
            del self._columns[ALL]
        columns = {name: column for name, column in self._columns.items() if any(column)}
        return Attribution(self._growth, columns, self._late)

    def corrected(self, name: str, parts: Mapping[str, Part]) -> Part:
        """Returns: The part of a column with the value and the interval that these rows give, if they give any.

        The lower envelope finds out whose runs the growth follows, but it is low where little was kept since: the value
        that it gives is too small where tasks need much memory for a while. All windows together have no such bias.
        """
        columns = [self._columns[column] for column in (name, *(other for other in parts if other != name))]
        value = value_of(self._growth, columns)
        low, high = interval(self._growth, columns)
        if value is None or not 0.0 < low < value < high < math.inf:
            return parts[name]
        return replace(parts[name], value=value, low=low, high=high)
