"""Finds whose runs the growth of the live memory follows: a regression in which few of many actors have a part."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import mul
from statistics import NormalDist

#: The chance that an actor without a part is given one, among all actors.
_CHANCE = 0.01

#: The most actors with a part.
_MOST_PARTS = 8

#: How many times the blocks are drawn anew for an interval, and how many blocks there are.
_DRAWS, _BLOCKS = 400, 40

#: What a column has to keep of itself beside others, to be one of its own.
_OWN_SHARE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the growth owes to one column."""

    value: float
    "For each run."
    low: float
    high: float
    advantage: float
    "By how much the growth follows this column better than it follows any other in its place, as chi-squared."
    rival: str | None
    "That other column."
    late_value: float
    "As `value`, of the late growth alone."
    late_error: float


@dataclass(frozen=True, kw_only=True)
class Bound:
    """What the growth may owe to a column that was given no part."""

    value: float
    error: float
    "The standard error; infinite where the column cannot be told from those with a part."


class Attribution:
    """The parts of the columns in the growth.

    Parameters:
      growth: The growth, as numbers that are not related to each other; see `noise`.
      columns: Name -> the counts of runs in the same form.
      late: Whether each number belongs to the second half of the time.
    """

    def __init__(
        self, growth: Sequence[float], columns: Mapping[str, Sequence[float]], late: Sequence[bool] = ()
    ) -> None:
        self._late = late
        self._measure(growth, columns)
        self._needed = NormalDist().inv_cdf(1.0 - _CHANCE / max(len(columns), 1)) ** 2
        chosen = self._choose()
        self.variance = self._variance(chosen)
        self.parts = {name: self._part(name, chosen) for name in chosen}
        self._bounds = self._beside(chosen)

    def _measure(self, growth: Sequence[float], columns: Mapping[str, Sequence[float]]) -> None:
        self._growth = growth
        self._columns = columns
        self._own = {name: _dot(column, column) for name, column in columns.items()}
        self._with_growth = {name: _dot(column, growth) for name, column in columns.items()}
        self._with: dict[str, dict[str, float]] = {}
        self._total = _dot(growth, growth)

    def bound(self, name: str) -> Bound:
        """Returns: What the growth may owe to a column without a part."""
        own, with_growth = self._bounds.get(name, (0.0, 0.0))
        if not own:
            return Bound(value=0.0, error=math.inf)
        return Bound(value=max(with_growth / own, 0.0), error=math.sqrt(self.variance / own))

    def _choose(self) -> list[str]:
        """Gives a part to the column that explains most, again and again, as long as that is no chance."""
        chosen: list[str] = []
        while len(chosen) < min(_MOST_PARTS, len(self._growth) - 2):
            beside = self._beside(chosen)
            best = max(
                (name for name in beside if name not in chosen), key=lambda name: _gain(*beside[name]), default=None
            )
            if best is None or _gain(*beside[best]) < self._needed * self._variance([*chosen, best]):
                break
            chosen.append(best)
        while chosen:
            gains = {name: _gain(*self._beside([other for other in chosen if other != name])[name]) for name in chosen}
            least = min(chosen, key=gains.__getitem__)
            if gains[least] >= self._needed * self._variance(chosen):
                break
            chosen.remove(least)
        return chosen

    def _part(self, name: str, chosen: list[str]) -> Part:
        others = [other for other in chosen if other != name]
        beside = self._beside(others)
        rivals = {rival: _gain(*beside[rival]) for rival in beside if rival not in chosen}
        rival = max(rivals, key=rivals.__getitem__, default=None)
        advantage = _gain(*beside[name]) - (0.0 if rival is None else rivals[rival])
        own, with_growth = beside[name]
        low, high = interval(self._growth, [self._columns[column] for column in (name, *others)])
        late_value, late_error = self._later(name, others)
        return Part(
            value=with_growth / own,
            low=low,
            high=high,
            advantage=advantage / self.variance,
            rival=rival,
            late_value=late_value,
            late_error=late_error,
        )

    def _later(self, name: str, others: list[str]) -> tuple[float, float]:
        """Returns: The value of a column in the late growth, beside others, and its standard error."""
        columns = {column: [*compress(self._columns[column], self._late)] for column in (name, *others)}
        later = Attribution.__new__(Attribution)
        later._measure([*compress(self._growth, self._late)], columns)
        own, with_growth = later._beside(others)[name]
        return (with_growth / own, math.sqrt(self.variance / own)) if own > 0 else (0.0, math.inf)

    def _variance(self, chosen: list[str]) -> float:
        """Returns: The variance of what the chosen columns leave of the growth; at least 1, as the noise is known."""
        _, lower = self._factor(chosen)
        explained = _forward(lower, [self._with_growth[name] for name in chosen])
        rest = self._total - _dot(explained, explained)
        return max(rest / max(len(self._growth) - len(chosen), 1), 1.0)

    def _beside(self, chosen: list[str]) -> dict[str, tuple[float, float]]:
        """Returns: For each column what is its own beside the chosen ones: its square, and its product with growth."""
        products, lower = self._factor(chosen)
        growth = _forward(lower, [self._with_growth[name] for name in chosen])
        found = {}
        for name, own in self._own.items():
            shared = _forward(lower, [products[other][name] for other in chosen])
            found[name] = own - _dot(shared, shared), self._with_growth[name] - _dot(shared, growth)
        return {name: pair if pair[0] > self._own[name] * _OWN_SHARE else (0.0, 0.0) for name, pair in found.items()}

    def _factor(self, chosen: list[str]) -> tuple[dict[str, dict[str, float]], list[list[float]]]:
        for name in chosen:
            if name not in self._with:
                column = self._columns[name]
                self._with[name] = {other: _dot(column, values) for other, values in self._columns.items()}
        return self._with, _cholesky([[self._with[one][other] for other in chosen] for one in chosen])


def value_of(growth: Sequence[float], columns: Sequence[Sequence[float]]) -> float | None:
    """Returns: What the growth owes to the first column beside the others; None where they cannot be told apart."""
    return _solve(_products(columns, growth), len(columns))


def interval(growth: Sequence[float], columns: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Draws blocks of the growth anew, many times, each with its part of the columns.

    Returns:
      Between which values of the first column 95 % of the results are.
    """
    size = max(math.ceil(len(growth) / _BLOCKS), 1)
    blocks = [
        _products([column[at : at + size] for column in columns], growth[at : at + size])
        for at in range(0, len(growth), size)
    ]
    chance = random.Random(1)  # noqa: S311 - the same numbers give the same interval.
    values = []
    for _ in range(_DRAWS):
        drawn = chance.choices(blocks, k=len(blocks))
        solved = _solve([sum(entry) for entry in zip(*drawn, strict=True)], len(columns))
        if solved is not None:
            values.append(solved)
    values.sort()
    if len(values) < _DRAWS // 2:
        return -math.inf, math.inf
    return values[int(len(values) * 0.025)], values[int(len(values) * 0.975)]


def _gain(own: float, with_growth: float) -> float:
    """Returns: By how much a column with these products explains more; nothing where its part would be negative."""
    return with_growth**2 / own if with_growth > 0 and own > 0 else 0.0


def _dot(one: Iterable[float], other: Iterable[float]) -> float:
    return float(sum(map(mul, one, other)))


def _cholesky(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    lower: list[list[float]] = []
    for number, row in enumerate(matrix):
        made = _forward(lower, row[:number])
        made.append(math.sqrt(max(row[number] - _dot(made, made), 1e-300)))
        lower.append(made)
    return lower


def _forward(lower: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    found: list[float] = []
    for row, value in zip(lower, values, strict=True):
        found.append((value - _dot(row, found)) / row[-1])
    return found


def _products(columns: Sequence[Sequence[float]], growth: Sequence[float]) -> list[float]:
    """Returns: The products of the columns among each other, row by row, and those with the growth."""
    return [_dot(one, other) for one in columns for other in columns] + [_dot(one, growth) for one in columns]


def _solve(products: Sequence[float], size: int) -> float | None:
    """Returns: The value of the first column; None where the columns cannot be told apart."""
    rows = [list(products[size * row : size * (row + 1)]) for row in range(size)]
    order = range(size - 1, -1, -1)  # The first column comes last: then its value is the first that is found.
    lower = _cholesky([[rows[one][other] for other in order] for one in order])
    if any(lower[row][-1] ** 2 <= _OWN_SHARE * rows[size - 1 - row][size - 1 - row] for row in range(size)):
        return None
    growth = products[size * size :]
    return _forward(lower, [growth[row] for row in order])[-1] / lower[-1][-1]
