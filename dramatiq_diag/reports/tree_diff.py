"""Two call trees side by side: which functions got more, and where."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from pathlib import PurePath

from typing_extensions import TypedDict

from .calltree import Node, functions
from .charts import Box

#: Boxes in a chart, and the narrowest that can be seen, as a part of its width.
MAX_BOXES = 1500
MIN_WIDTH = 0.001

#: The narrowest box that has a label, likewise, and the letters of the longest label.
_MIN_LABEL_WIDTH = 0.005
_MAX_LABEL = 80


class FunctionChange(TypedDict):
    """What a function took in each of two trees, in their unit."""

    function: str
    file: str
    a_total: float
    "With its calls."
    b_total: float
    a_self: float
    "Without."
    b_self: float
    difference: float
    "How much more it took by itself in the second tree."
    total_difference: float
    "The same with its calls."


def compare_trees(a: Node, b: Node) -> list[FunctionChange]:
    """Compares what functions took; a call too small to be in a tree counts as nothing there.

    Parameters:
      a: The first tree, by `calltree.tree_of`.
      b: The second one, of the same unit.

    Returns:
      What got more by itself first, what got less last.
    """
    changes: dict[tuple[str, str], FunctionChange] = {}
    for found in functions(a):
        change = _change(changes, found["function"], found["file"])
        change["a_total"], change["a_self"] = found["total"], found["self"]
    for found in functions(b):
        change = _change(changes, found["function"], found["file"])
        change["b_total"], change["b_self"] = found["total"], found["self"]
    for change in changes.values():
        change["difference"] = change["b_self"] - change["a_self"]
        change["total_difference"] = change["b_total"] - change["a_total"]
    return sorted(changes.values(), key=lambda change: (-change["difference"], -change["total_difference"]))


def _change(changes: dict[tuple[str, str], FunctionChange], function: str, file: str) -> FunctionChange:
    nothing: FunctionChange = {
        "function": function,
        "file": file,
        "a_total": 0.0,
        "b_total": 0.0,
        "a_self": 0.0,
        "b_self": 0.0,
        "difference": 0.0,
        "total_difference": 0.0,
    }
    return changes.setdefault((function, file), nothing)


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
    """Lays out both trees as one, for `charts.flame_chart`.

    A box is as wide as the larger of both values, and as its calls together where they are wider still, so that what
    vanished is seen as well as what is new. Those too narrow to be seen are left out. Calls are the same where function
    and file are, as lines move when a program is changed.

    Parameters:
      a: The first tree, by `calltree.tree_of`.
      b: The second one, of the same unit.

    Returns:
      At most 1,500 boxes, the widest, each below the one that calls it.
    """
    root = _Pair("", "", -1)
    pairs = [*_merge(root, a, "a"), *_merge(root, b, "b")]
    for pair in sorted({id(pair): pair for pair in pairs}.values(), key=lambda pair: -pair.depth):
        pair.width = max(pair.a, pair.b, sum(call.width for call in pair.calls.values()))
    return _lay_out(root)


def _merge(root: _Pair, tree: Node, which: str) -> Iterable[_Pair]:
    """Yields the pairs of the calls of a tree, after it has added their values."""
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
