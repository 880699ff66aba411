"""Builds call trees of time and of allocations, and sums them up by function."""

from __future__ import annotations

import heapq
import itertools
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO, NotRequired, TypedDict

from . import memray, pyinstrument
from .allocation_stacks import SHARED_THREAD

#: Deeper calls are charged to the call at this depth.
MAX_DEPTH = 200
MAX_NODES = 5000
#: Calls with a smaller share of the total are left out.
MIN_SHARE = 0.001

#: The lines of one call, or of one function, that are named.
MAX_LINES = 3

#: Function, file and line: the line of its definition in a time profile, the current line in an allocation profile.
Place = tuple[str, str, int]

#: A stack, the outermost call first; its value; and the current line of the last call, if not that of its place.
Stack = tuple[Iterable[Place], float] | tuple[Iterable[Place], float, int | None]

# Frames of pyinstrument that are not calls; their time is that of the function above them, which waits or works.
_NO_CALLS = frozenset(["[await]", "[self]", "[root]", "[out-of-context]"])


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

    def __init__(self, place: Place) -> None:
        self.place = place
        self.value = 0.0
        self.alone = 0.0
        self.lines: dict[int, float] = {}
        self.calls: dict[Place, _Call] = {}


def tree_of(stacks: Iterable[Stack], unit: str) -> CallTree:
    """Returns: A tree of stacks whose values have this unit, cut down to a size that a person can look at."""
    root = _Call(("", "", 0))
    for stack, value, *at in stacks:
        call = root
        call.value += value
        places = list(stack)
        for place in places[:MAX_DEPTH]:
            call = call.calls.setdefault(place, _Call(place))
            call.value += value
        call.alone += value
        line = at[0] if at else call.place[2]
        if line and len(places) <= MAX_DEPTH:
            call.lines[line] = call.lines.get(line, 0.0) + value
    return {"unit": unit, "total": round(root.value, 3), "tree": _largest(root)}


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


def render_session(path: str, target: BinaryIO) -> None:
    """Renders a session to the JSON of its tree, in milliseconds. Otherwise as `pyinstrument.render_session`.

    The time in which a coroutine awaits something is its own.
    """
    session = pyinstrument.read(path)
    try:
        tree = tree_of(_session_stacks(session), "ms")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise pyinstrument.damaged(error) from error
    _write(tree, target)


def render_allocations(path: str, target: BinaryIO) -> None:
    """Renders the allocations of the task's own thread at the peak to JSON, in bytes. Raises as `View.render` does."""
    stacks, is_shared = memray.peak_stacks(path, whole_process=False)
    tree = tree_of(stacks, "bytes")
    if is_shared:
        tree["note"] = f"They are {SHARED_THREAD}."
    _write(tree, target)


def render_all_allocations(path: str, target: BinaryIO) -> None:
    """Renders the allocations of all threads at the peak to JSON, in bytes. Raises as `View.render` does."""
    _write(tree_of(memray.peak_stacks(path, whole_process=True)[0], "bytes"), target)


def _write(tree: CallTree, target: BinaryIO) -> None:
    target.write(json.dumps(tree).encode())


def _session_stacks(session: Any) -> Iterator[Stack]:
    # The calls above the actor's function; pyinstrument's own reports leave them out as well.
    above = [_identifier(frame) for frame in session["start_call_stack"][:-1]]
    for stack, spent_s in session["frame_records"]:
        identifiers = [_identifier(frame) for frame in stack]
        pairs = zip(identifiers, above, strict=False)
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
        if not spent_s >= 0 or spent_s == float("inf"):
            raise ValueError("A time is negative or not finite.")
        below = [(place, frame) for frame in stack[common:] if (place := _place(frame)) is not None]
        yield [place for place, _ in below], spent_s * 1000, line_of(below[-1][1]) if below else None


def _identifier(frame: str) -> str:
    return frame.partition("\1")[0]


def line_of(frame: str) -> int | None:
    """Returns: The current line in the description of a frame, or None if there is none."""
    _, _, rest = frame.partition("\1l")
    return int(rest.partition("\1")[0]) if rest else None


def _place(frame: str) -> Place | None:
    """Returns: The call in the description of a frame, or None if it is not a call."""
    identifier, *attributes = frame.split("\1")
    function, _, rest = identifier.partition("\0")
    file, _, line = rest.partition("\0")
    if function in _NO_CALLS or file == "<thread>":
        return None
    class_name = next((attribute[1:] for attribute in attributes if attribute.startswith("c")), "")
    return f"{class_name}.{function}" if class_name else function, file, int(line or 0)
