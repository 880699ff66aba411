"""Sums up the stacks of a profile that goes on: its heaviest functions, and a small tree of calls."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Any, TypedDict

from ...runtime.stacks import AWAIT, OTHER, Codes, Stack

#: The heaviest stacks are summed up, which takes a few milliseconds; the time of the others is added to their number.
_MAX_STACKS = 500

#: Deeper calls are charged to the call at this depth.
_MAX_DEPTH = 40

#: The most functions, and the most calls in the tree; smaller calls than this share of the time are left out.
MAX_FUNCTIONS = 20
MAX_NODES = 150
_MIN_SHARE = 0.005

#: The most characters of the name of a function or a file.
_MAX_TEXT = 200

#: Name, file and first line of a function.
_Place = tuple[str, str, int]

_OTHER_PLACE = "[other stacks]", "", 0


class Summary(TypedDict):
    """What a profile has so far."""

    seconds: float
    samples: int
    functions: list[dict[str, Any]]
    tree: list[dict[str, Any]]


class _Call:
    """A call in the tree, with the calls below it."""

    def __init__(self, place: _Place) -> None:
        self.place = place
        self.total_s = self.self_s = 0.0
        self.calls: dict[_Place, _Call] = {}


def sum_up(stacks: Iterable[tuple[Stack, float]], codes: Codes, sample_count: int) -> Summary:
    """Sums up stacks with their seconds.

    Parameters:
      stacks: The stacks.
      codes: The code objects of all of them.
      sample_count: How many samples they are made of.
    """
    stacks = list(stacks)
    heaviest = heapq.nlargest(_MAX_STACKS, stacks, key=lambda pair: pair[1])
    total_s = sum(spent_s for _, spent_s in stacks)
    root = _Call(("", "", 0))
    functions: dict[_Place, list[float]] = {}
    for stack, spent_s in heaviest:
        _add(root, functions, _places(stack, codes), spent_s)
    left_s = total_s - sum(spent_s for _, spent_s in heaviest)
    if left_s > 0:
        _add(root, functions, [_OTHER_PLACE], left_s)
    listed = heapq.nlargest(MAX_FUNCTIONS, functions.items(), key=lambda item: item[1])
    return {
        "seconds": round(total_s, 3),
        "samples": sample_count,
        "functions": [
            {**_named(place), **_figures(self_s, whole_s), "share": round(self_s / (total_s or 1.0), 4)}
            for place, (self_s, whole_s) in listed
        ],
        "tree": _tree(root, total_s),
    }


def _add(root: _Call, functions: dict[_Place, list[float]], places: list[_Place], spent_s: float) -> None:
    call = root
    for place in places[:_MAX_DEPTH]:
        call = call.calls.setdefault(place, _Call(place))
        call.total_s += spent_s
    call.self_s += spent_s
    for place in set(places):  # Recursive calls count once.
        functions.setdefault(place, [0.0, 0.0])[1] += spent_s
    if places:
        functions[places[-1]][0] += spent_s


def _places(stack: Stack, codes: Codes) -> list[_Place]:
    """Returns: The functions of a stack, root first. The time in which one awaits something is its own."""
    return [_OTHER_PLACE if key == OTHER else _place(codes[key]) for key in stack[::2] if key != AWAIT]


def _place(code: Any) -> _Place:
    return code.co_qualname[:_MAX_TEXT], code.co_filename[-_MAX_TEXT:], code.co_firstlineno


def _tree(root: _Call, total_s: float) -> list[dict[str, Any]]:
    """Returns: The largest calls of the outermost functions, each with those below it, the largest first."""
    found: list[dict[str, Any]] = []
    # A call is never larger than its caller, so the largest reached call is the next largest of all.
    reached = [(-call.total_s, number, call, found) for number, call in enumerate(root.calls.values())]
    heapq.heapify(reached)
    number = len(reached)
    for _ in range(MAX_NODES):
        if not reached or -reached[0][0] < total_s * _MIN_SHARE:
            break
        _, _, call, siblings = heapq.heappop(reached)
        node = {**_named(call.place), **_figures(call.self_s, call.total_s), "children": []}
        siblings.append(node)
        for inner in call.calls.values():
            number += 1
            heapq.heappush(reached, (-inner.total_s, number, inner, node["children"]))
    return found


def _named(place: _Place) -> dict[str, Any]:
    function, file, line = place
    return {"function": function, "file": file, "line": line}


def _figures(self_s: float, total_s: float) -> dict[str, float]:
    return {"self_s": round(self_s, 3), "total_s": round(total_s, 3)}
