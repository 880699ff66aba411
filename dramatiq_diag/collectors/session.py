"""Merged stacks as a pyinstrument session, in the JSON form of `Session.to_json`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import CodeType
from typing import Any

from .stacks import AWAIT, Stack

#: pyinstrument's separators inside a frame's description, and its markers of attributes.
_IDENTIFIER_SEP = "\0"
_CLASS_NAME = "\x01c"
_LINE_NUMBER = "\x01l"

SessionDict = dict[str, Any]


def session_of(
    seconds: Mapping[Stack, float],
    *,
    start_time: float,
    duration_s: float,
    cpu_time_s: float,
    interval_s: float,
    sample_count: int,
    thread: str,
    root: str,
    target_description: str,
) -> SessionDict:
    """Makes a session out of merged stacks.

    Parameters:
      seconds: Stack -> seconds; without one, the whole duration is the root's.
      start_time: Seconds since the epoch.
      thread: The description of the thread, by `describe_thread`.
      root: The description of the actor's function, by `describe`.
      target_description: What was profiled, for the report's head.

    Returns:
      The session as JSON; equal beginnings of stacks stand together, as pyinstrument's tree needs it.
    """
    records = [([thread, *_describe_stack(stack)], spent_s) for stack, spent_s in seconds.items()]
    records = records or [([thread, root], duration_s)]
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


def describe_thread(name: str, thread_id: int) -> str:
    """Returns: The description of a thread, as pyinstrument puts it at the root of a stack."""
    return _IDENTIFIER_SEP.join((name, "<thread>", str(thread_id)))


def describe(code: CodeType, line: int | None = None) -> str:
    """Returns: The description of a frame: function, file, first line, and the class and line as attributes."""
    identifier = _IDENTIFIER_SEP.join((code.co_name, code.co_filename, str(code.co_firstlineno)))
    class_name = code.co_qualname.rpartition("<locals>.")[2].rpartition(".")[0]
    attributes = f"{_CLASS_NAME}{class_name}" if class_name else ""
    return identifier + attributes + ("" if line is None else f"{_LINE_NUMBER}{line}")


def _describe_stack(stack: Stack) -> Iterable[str]:
    for code, line in zip(stack[::2], stack[1::2], strict=True):
        if isinstance(code, CodeType):
            yield describe(code, line)
        else:
            yield AWAIT if code == AWAIT else _IDENTIFIER_SEP.join((code, "", "0"))
