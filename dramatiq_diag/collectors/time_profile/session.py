"""Merged stacks as a pyinstrument session, in the JSON form of `Session.to_json`."""

from __future__ import annotations

import heapq
import json
import sys
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

from ...runtime.stacks import AWAIT, OTHER, Codes, Stack

#: pyinstrument's separators inside a frame's description, and its markers of attributes.
_IDENTIFIER_SEP = "\0"
_CLASS_NAME = "\x01c"
_LINE_NUMBER = "\x01l"
_AWAIT = "[await]"
_OTHER = _IDENTIFIER_SEP.join(("[other stacks]", "", "0"))

_ATTRIBUTES = "\x01"

#: What a frame takes while a profile is pruned, in bytes.
_FRAME_BYTES = 4

#: Calls in the tree of a stored profile: with more, the report would take megabytes and seconds.
MAX_NODES = 5000

SessionDict = dict[str, Any]
FrameRecord = tuple[list[str], float]


def session_of(
    stacks: Iterable[tuple[Stack, float]],
    codes: Codes,
    *,
    in_order: bool,
    start_time: float,
    duration_s: float,
    cpu_time_s: float | None,
    interval_s: float,
    sample_count: int,
    thread: str,
    root: str,
    target_description: str,
) -> SessionDict:
    """Makes a session out of stacks.

    Parameters:
      stacks: Each with its seconds; without one, the whole duration is the root's.
      in_order: Whether they are a timeline. Sums are sorted: equal beginnings have to stand together.
      start_time: Seconds since the epoch.
      cpu_time_s: The CPU time of what was profiled; None where it is not known.
      thread: The description of the thread, by `describe_thread`.
      root: The description of the actor's function, by `describe`.
      target_description: What was profiled, for the report's head.

    Returns:
      The session as JSON.
    """
    described: dict[tuple[int, int], str] = {}  # A text for each frame of each stack would take a hundred megabytes.
    records = prune([([thread, *_describe_stack(stack, codes, described)], spent_s) for stack, spent_s in stacks])
    records = records or [([thread, root], duration_s)]
    if not in_order:
        records.sort(key=lambda record: record[0])
    return {
        "start_time": start_time,
        "duration": duration_s,
        "min_interval": interval_s,
        "max_interval": interval_s,
        "sample_count": sample_count,
        "start_call_stack": [thread, root],
        "target_description": target_description,
        "cpu_time": cpu_time_s,
        "sys_path": [path for path in sys.path if path],
        "sys_prefixes": sorted({sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}),
        "frame_records": records,
    }


def prune(records: list[FrameRecord]) -> list[FrameRecord]:
    """Cuts a large profile down to its `MAX_NODES` heaviest calls and lines, and `OTHER` for what was below.

    A line is that at which the last function of a stack is; those of the functions above it are left out then.

    Returns:
      The same records where there are few, with the same total time in any case.
    """
    paths = _paths([stack for stack, _ in records])
    places = sorted(range(len(paths)), key=paths.__getitem__)
    weights = array("d")
    for place, nodes in _walk(paths, places):
        weights.extend([0.0] * (nodes[-1] + 1 - len(weights)) if nodes else ())
        for node in nodes:
            weights[node] += records[place][1]
    if len(weights) <= MAX_NODES:
        return records
    lightest_s = heapq.nlargest(MAX_NODES + 1, weights)[-1]
    kept_depths = [0] * len(records)
    for place, nodes in _walk(paths, places):
        kept_depths[place] = sum(weights[node] > lightest_s for node in nodes)
    without_line = {frame: frame.partition(_LINE_NUMBER)[0] for stack, _ in records for frame in stack}
    without_line[_OTHER] = _OTHER
    merged: dict[tuple[str, ...], float] = {}
    for kept, (stack, spent_s) in zip(kept_depths, records, strict=True):
        cut = _cut(stack, kept, without_line)
        merged[cut] = merged.get(cut, 0.0) + spent_s
    return [(list(stack), spent_s) for stack, spent_s in merged.items()]


def _paths(stacks: Sequence[Sequence[str]]) -> list[bytes]:
    """Returns: Each stack in four bytes a frame, without the attributes of its frames, and four for its last line."""
    numbers: dict[str, int] = {}
    coded: dict[str, bytes] = {}
    for stack in stacks:
        for frame in stack:
            if frame not in coded:
                number = numbers.setdefault(frame.partition(_ATTRIBUTES)[0], len(numbers))
                coded[frame] = number.to_bytes(_FRAME_BYTES)
    lines = (_last_line(stack) for stack in stacks)
    ends = [b"" if line is None else numbers.setdefault(line, len(numbers)).to_bytes(_FRAME_BYTES) for line in lines]
    return [b"".join((*map(coded.__getitem__, stack), end)) for stack, end in zip(stacks, ends, strict=True)]


def _last_line(stack: Sequence[str]) -> str | None:
    """Returns: The line that the innermost function with a line is at, as an attribute of its frame."""
    found = (text for frame in reversed(stack) if (text := frame.partition(_LINE_NUMBER)[2]))
    line = next(found, None)
    return None if line is None else f"{_LINE_NUMBER}{line}"


def _cut(stack: Sequence[str], kept: int, without_line: Mapping[str, str]) -> tuple[str, ...]:
    """Returns: So many functions of a stack without their lines; the last line where that is kept as well."""
    frames = [without_line[frame] for frame in stack[:kept]]
    if kept < len(stack):
        return (*frames, _OTHER)
    if kept > len(stack):
        last = max(at for at, frame in enumerate(stack) if _LINE_NUMBER in frame)
        frames[last] = stack[last]
    return tuple(frames)


def _walk(paths: Sequence[bytes], places: Iterable[int]) -> Iterator[tuple[int, list[int]]]:
    """Goes through sorted paths as through a tree of calls, which is never made: it could be forty times as large.

    Yields:
      The place of each path, and the numbers of the calls that it is made of; those that begin alike share them.
    """
    before, nodes, count = b"", list[int](), 0
    for place in places:
        path = paths[place]
        nodes = nodes[: _shared_depth(before, path)]
        fresh = len(path) // _FRAME_BYTES - len(nodes)
        nodes += range(count, count + fresh)
        before, count = path, count + fresh
        yield place, nodes


def _shared_depth(path: bytes, other: bytes) -> int:
    depth, deepest = 0, min(len(path), len(other))
    while depth < deepest and path[depth : depth + _FRAME_BYTES] == other[depth : depth + _FRAME_BYTES]:
        depth += _FRAME_BYTES
    return depth // _FRAME_BYTES


def json_of(session: SessionDict) -> Iterator[str]:
    """Yields a session's JSON in pieces: as one text it would be in memory several times over."""
    head = {name: value for name, value in session.items() if name != "frame_records"}
    yield f'{_dumps(head)[:-1]},"frame_records":['
    for number, record in enumerate(session["frame_records"]):
        yield f"{',' if number else ''}{_dumps(record)}"
    yield "]}"


def _dumps(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def describe_thread(name: str, thread_id: int) -> str:
    """Returns: The description of a thread, as pyinstrument puts it at the root of a stack."""
    return _IDENTIFIER_SEP.join((name, "<thread>", str(thread_id)))


def describe(code: CodeType, line: int | None = None) -> str:
    """Returns: The description of a frame: function, file, first line, and the class and line as attributes."""
    identifier = _IDENTIFIER_SEP.join((code.co_name, code.co_filename, str(code.co_firstlineno)))
    class_name = code.co_qualname.rpartition("<locals>.")[2].rpartition(".")[0]
    attributes = f"{_CLASS_NAME}{class_name}" if class_name else ""
    return identifier + attributes + ("" if line is None else f"{_LINE_NUMBER}{line}")


def _describe_stack(stack: Stack, codes: Codes, described: dict[tuple[int, int], str]) -> Iterable[str]:
    for key, line in zip(stack[::2], stack[1::2], strict=True):
        if key == AWAIT:
            yield _AWAIT
        elif key == OTHER:
            yield _OTHER
        elif (frame := described.get((key, line))) is not None:
            yield frame
        else:
            described[key, line] = frame = describe(codes[key], line or None)
            yield frame
