"""Merged stacks as a pyinstrument session, in the JSON form of `Session.to_json`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import CodeType
from typing import Any

from .stacks import AWAIT, OTHER, Codes, Stack

#: pyinstrument's separators inside a frame's description, and its markers of attributes.
_IDENTIFIER_SEP = "\0"
_CLASS_NAME = "\x01c"
_LINE_NUMBER = "\x01l"
_AWAIT = "[await]"
_OTHER = _IDENTIFIER_SEP.join(("[other stacks]", "", "0"))

_ATTRIBUTES = "\x01"

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
    records = prune([([thread, *_describe_stack(stack, codes)], spent_s) for stack, spent_s in stacks])
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
    spent: dict[tuple[str, ...], float] = {}
    paths = [_path(stack) for stack, _ in records]
    for path, (_, spent_s) in zip(paths, records, strict=True):
        for depth in range(1, len(path) + 1):
            spent[path[:depth]] = spent.get(path[:depth], 0.0) + spent_s
    if len(spent) <= MAX_NODES:
        return records
    lightest_s = sorted(spent.values(), reverse=True)[MAX_NODES]
    merged: dict[tuple[str, ...], float] = {}
    for path, (stack, spent_s) in zip(paths, records, strict=True):
        kept = sum(spent[path[:depth]] > lightest_s for depth in range(1, len(path) + 1))
        cut = _cut(stack, kept)
        merged[cut] = merged.get(cut, 0.0) + spent_s
    return [(list(stack), spent_s) for stack, spent_s in merged.items()]


def _path(stack: list[str]) -> tuple[str, ...]:
    """Returns: The functions of a stack, and the line that the last one of them is at."""
    line = next((line for frame in reversed(stack) if (line := frame.partition(_LINE_NUMBER)[2])), "")
    return (*(frame.partition(_ATTRIBUTES)[0] for frame in stack), *([_LINE_NUMBER + line] if line else ()))


def _cut(stack: list[str], kept: int) -> tuple[str, ...]:
    """Returns: So many functions of a stack without their lines; the last line where that is kept as well."""
    frames = [frame.partition(_LINE_NUMBER)[0] for frame in stack[:kept]]
    if kept < len(stack):
        return (*frames, _OTHER)
    if kept > len(stack):
        last = max(at for at, frame in enumerate(stack) if _LINE_NUMBER in frame)
        frames[last] = stack[last]
    return tuple(frames)


def describe_thread(name: str, thread_id: int) -> str:
    """Returns: The description of a thread, as pyinstrument puts it at the root of a stack."""
    return _IDENTIFIER_SEP.join((name, "<thread>", str(thread_id)))


def describe(code: CodeType, line: int | None = None) -> str:
    """Returns: The description of a frame: function, file, first line, and the class and line as attributes."""
    identifier = _IDENTIFIER_SEP.join((code.co_name, code.co_filename, str(code.co_firstlineno)))
    class_name = code.co_qualname.rpartition("<locals>.")[2].rpartition(".")[0]
    attributes = f"{_CLASS_NAME}{class_name}" if class_name else ""
    return identifier + attributes + ("" if line is None else f"{_LINE_NUMBER}{line}")


def _describe_stack(stack: Stack, codes: Codes) -> Iterable[str]:
    for key, line in zip(stack[::2], stack[1::2], strict=True):
        if key == AWAIT:
            yield _AWAIT
        elif key == OTHER:
            yield _OTHER
        else:
            yield describe(codes[key], line or None)
