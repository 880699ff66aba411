"""Compares two call trees: by function, and call by call as the boxes of a chart."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from pathlib import PurePath

from typing_extensions import TypedDict

from .calltree import FunctionTotals, Node, functions
from .charts import Box

#: The most boxes of a chart, and the narrowest visible one, as a share of its width.
MAX_BOXES = 1500
MIN_WIDTH = 0.001

#: The narrowest box with a label, likewise, and the length of the longest label.
_MIN_LABEL_WIDTH = 0.005
_MAX_LABEL = 80


class FunctionChange(TypedDict):
    """The values of a function in two trees, in their unit."""

    function: str
    file: str
    a_total: float
    "With the calls below it."
    b_total: float
    a_self: float
    "Without them."
    b_self: float
    difference: float
    "`b_self` less `a_self`."
    total_difference: float
    "`b_total` less `a_total`."


def compare_trees(a: Node, b: Node) -> list[FunctionChange]:
    """Compares the functions of two trees of the same unit; a call too small to be in a tree counts as nothing.

    Returns:
      The largest increase of a function's own value first, the largest decrease last.
    """
    in_a, in_b = ({(found["function"], found["file"]): found for found in functions(tree)} for tree in (a, b))
    changes = [_change(key, in_a.get(key), in_b.get(key)) for key in {**in_a, **in_b}]
    return sorted(changes, key=lambda change: (-change["difference"], -change["total_difference"]))


def _change(key: tuple[str, str], a: FunctionTotals | None, b: FunctionTotals | None) -> FunctionChange:
    a_total, a_self = (a["total"], a["self"]) if a else (0.0, 0.0)
    b_total, b_self = (b["total"], b["self"]) if b else (0.0, 0.0)
    return {
        "function": key[0],
        "file": key[1],
        "a_total": a_total,
        "b_total": b_total,
        "a_self": a_self,
        "b_self": b_self,
        "difference": b_self - a_self,
        "total_difference": b_total - a_total,
    }


class _Pair:
    """The same call in both trees."""

    __slots__ = ("a", "b", "calls", "depth", "file", "function", "width")

    def __init__(self, function: str, file: str, depth: int) -> None:
        self.function = function
        self.file = file
        self.depth = depth
        self.a = 0.0
        self.b = 0.0
        self.width = 0.0
        self.calls: dict[tuple[str, str], _Pair] = {}


def difference_boxes(a: Node, b: Node) -> list[Box]:
    """Lays out two trees of the same unit as one, for `charts.flame_chart`.

    A box is as wide as the larger of both values, or as the calls below it together if they are wider; so new calls and
    vanished calls are both visible. Calls are the same if function and file are, because lines move when a program is
    changed.

    Returns:
      The widest boxes, at most `MAX_BOXES`, each below its caller.
    """
    root = _Pair("", "", -1)
    pairs = [*_merge(root, a, "a"), *_merge(root, b, "b")]
    for pair in sorted({id(pair): pair for pair in pairs}.values(), key=lambda pair: -pair.depth):
        pair.width = max(pair.a, pair.b, sum(call.width for call in pair.calls.values()))
    return _lay_out(root)


def _merge(root: _Pair, tree: Node, which: str) -> Iterable[_Pair]:
    """Adds the values of a tree. Yields: The pair of each call."""
    line = [(root, tree)]
    while line:
        pair, node = line.pop()
        setattr(pair, which, getattr(pair, which) + node["value"])
        yield pair
        for child in node["children"]:
            key = child["function"], child["file"]
            line.append((pair.calls.setdefault(key, _Pair(*key, pair.depth + 1)), child))


def _lay_out(root: _Pair) -> list[Box]:
    boxes: list[Box] = []
    order = itertools.count()
    reached: list[tuple[float, int, _Pair, float]] = [(-root.width, next(order), root, 0.0)]
    while reached and len(boxes) < MAX_BOXES and root.width > 0:
        _, _, pair, x0 = heapq.heappop(reached)
        if pair is not root:
            boxes.append(_box(pair, x0 / root.width, (x0 + pair.width) / root.width))
        for call in sorted(pair.calls.values(), key=lambda call: -call.width):
            if call.width >= root.width * MIN_WIDTH:
                heapq.heappush(reached, (-call.width, next(order), call, x0))
            x0 += call.width
    return boxes


def _box(pair: _Pair, x0: float, x1: float) -> Box:
    name = f"{pair.function}  {PurePath(pair.file).name}"
    if len(name) > _MAX_LABEL:
        name = name[: _MAX_LABEL - 1] + "\u2026"
    return {
        "x0": x0,
        "x1": x1,
        "depth": pair.depth,
        "label": name if x1 - x0 >= _MIN_LABEL_WIDTH else "",
        "function": pair.function,
        "file": pair.file,
        "a": pair.a,
        "b": pair.b,
        "difference": pair.b - pair.a,
    }
