"""Builds call trees of time and of allocations, and sums them up by function."""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import BinaryIO, NotRequired, TypedDict

from .allocation_stacks import SHARED_THREAD
from .profiles import Profile

#: Deeper calls are charged to the call at this depth.
MAX_DEPTH = 200
MAX_NODES = 5000
#: Calls with a smaller share of the total are left out.
MIN_SHARE = 0.001

#: The lines of one call, or of one function, that are named.
MAX_LINES = 3

#: Function, file and line: the line of its definition in a time profile, the current line in an allocation profile.
_Place = tuple[str, str, int]


class Node(TypedDict):
    """A call, as it stands in JSON; the root has no name and contains all others."""

    function: str
    file: str
    line: int
    value: float
    "With the calls below it."
    self: float
    "Without them; calls that are left out are not in it either."
    lines: NotRequired[list[tuple[int, float]]]
    "The lines with the largest values of its own, the largest first; older reports have none."
    children: list[Node]
    "The largest first."


class CallTree(TypedDict):
    """A whole tree."""

    unit: str
    "`ms` or `bytes`."
    total: float
    tree: Node
    note: NotRequired[str]
    "A remark for the reader."


class FunctionTotals(TypedDict):
    """The sum of all calls of a function."""

    function: str
    file: str
    total: float
    "With the calls below it; recursive calls count once."
    self: float
    "Without them."
    lines: list[tuple[int, float]]
    "As in `Node`."


class _Call:
    __slots__ = ("alone", "calls", "lines", "place", "value")

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.value = 0.0
        self.alone = 0.0
        self.lines: dict[int, float] = {}
        self.calls: dict[_Place, _Call] = {}


def write_calltree(profile: Profile, target: BinaryIO) -> None:
    """Writes the JSON of a profile's tree."""
    target.write(json.dumps(tree_of(profile)).encode())


def tree_of(profile: Profile) -> CallTree:
    """Returns: The tree of a profile, cut down to a size that a person can look at."""
    root = _Call(("", "", 0))
    for frames, value, _ in profile.samples:
        call = root
        call.value += value
        for frame in frames[:MAX_DEPTH]:
            place = frame.function, frame.file, frame.first_line or frame.line
            call = call.calls.setdefault(place, _Call(place))
            call.value += value
        call.alone += value
        if 0 < len(frames) <= MAX_DEPTH and (line := frames[-1].line):
            call.lines[line] = call.lines.get(line, 0.0) + value
    tree: CallTree = {"unit": profile.unit, "total": round(root.value, 3), "tree": _largest(root)}
    if profile.is_shared:
        tree["note"] = f"They are {SHARED_THREAD}."
    return tree


def _largest(root: _Call) -> Node:
    """Returns: The largest calls, each with its callers."""
    least = root.value * MIN_SHARE
    order = itertools.count()
    tree = _node(root)
    # A call is never larger than its caller, so the largest reached call is the next largest of all.
    reached = [(-call.value, next(order), call, tree) for call in root.calls.values()]
    heapq.heapify(reached)
    for _ in range(MAX_NODES - 1):
        if not reached or -reached[0][0] < least:
            break
        _, _, call, above = heapq.heappop(reached)
        node = _node(call)
        above["children"].append(node)
        for inner in call.calls.values():
            heapq.heappush(reached, (-inner.value, next(order), inner, node))
    return tree


def _node(call: _Call) -> Node:
    function, file, line = call.place
    return {
        "function": function,
        "file": file,
        "line": line,
        "value": round(call.value, 3),
        "self": round(call.alone, 3),
        "lines": _largest_lines(call.lines),
        "children": [],
    }


def _largest_lines(lines: dict[int, float]) -> list[tuple[int, float]]:
    return [
        (line, round(value, 3)) for line, value in heapq.nlargest(MAX_LINES, lines.items(), key=lambda item: item[1])
    ]


def functions(tree: Node) -> list[FunctionTotals]:
    """Returns: The sums of each function of a tree, the largest value of its own first."""
    totals: dict[tuple[str, str], FunctionTotals] = {}
    active: Counter[tuple[str, str]] = Counter()
    lines: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for node, entered in _walk(tree):
        key = node["function"], node["file"]
        active[key] += 1 if entered else -1
        if not entered:
            continue
        found = totals.setdefault(key, {"function": key[0], "file": key[1], "total": 0.0, "self": 0.0, "lines": []})
        found["self"] += node["self"]
        for line, value in node.get("lines", ()):
            lines[key][line] = lines[key].get(line, 0.0) + value
        if active[key] == 1:
            found["total"] += node["value"]
    for key, found in totals.items():
        found["lines"] = _largest_lines(lines[key])
        found["self"], found["total"] = round(found["self"], 3), round(found["total"], 3)
    return sorted(totals.values(), key=lambda found: (-found["self"], -found["total"]))


def _walk(tree: Node) -> Iterator[tuple[Node, bool]]:
    """Yields each call below the root twice: with True when it is entered, with False when it is left."""
    line: list[tuple[Node, bool]] = [(node, True) for node in reversed(tree["children"])]
    while line:
        node, entered = line.pop()
        yield node, entered
        if entered:
            line.append((node, False))
            line += [(child, True) for child in reversed(node["children"])]
