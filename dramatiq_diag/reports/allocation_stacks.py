"""Assigns the records of an allocation profile to threads, and cuts their stacks down to the actor's function."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ..runtime.own_threads import is_own_thread
from ..runtime.profile_hook import LOOP_THREAD, TASK_THREAD

#: A call in a stack: function, file, line.
Call = tuple[str, str, int]

#: Describes the thread of an async actor in its reports.
SHARED_THREAD = "of the event loop's thread, which all async actors of the process share"

_PACKAGE = Path(__file__).parents[1]
PACKAGE_NAME = _PACKAGE.name

#: The same files in profiles that were recorded before they were moved.
_FORMER_NAMES = ("collectors/coroutines.py", "collectors/logtap.py")

#: Files of this package that call code of the application; only their own frames are left out of a stack.
_PASSED_THROUGH = frozenset(
    ["runtime/coroutines.py", "runtime/coroutine_steps.py", "collectors/task_logs/tap.py", *_FORMER_NAMES]
)

#: The callers of an actor's function and of its coroutine.
_CALLERS = (
    ("__call__", os.path.join("dramatiq", "actor.py")),
    ("wrapped_coro", os.path.join("dramatiq", "asyncio.py")),
)

#: What `Actor.__call__` calls before and after the actor's function, to log a line.
_LOG = ("debug", os.path.join("logging", "__init__.py"))

#: The caller of the asyncio tasks that a coroutine creates, on the event loop's thread.
_LOOP_CALLER = ("_run", os.path.join("asyncio", "events.py"))

#: The most calls of a stack that are read. Without a number memray leaves some out.
_ALL = 1_000_000


class ShownRecord:
    """Stands for a record of memray in its reporters, with the stack that is shown.

    Parameters:
      record: memray's record.
      stack: The innermost call first.
      thread_id: The thread; -1 where threads are merged.
      thread_name: Its name.
    """

    def __init__(self, record: Any, stack: list[Call], thread_id: int, thread_name: str) -> None:
        self._stack = stack
        self.tid = thread_id
        self.thread_name = thread_name
        self.size = record.size
        self.n_allocations = record.n_allocations
        self.allocator = record.allocator

    def stack_trace(self, max_stacks: int | None = None) -> list[Call]:
        """Returns: The innermost calls first; all of them without a number."""
        return self._stack[:max_stacks]

    hybrid_stack_trace = stack_trace


class AllocationThreads:
    """Finds the task's own thread in an allocation profile.

    Parameters:
      records: All of memray's records, not merged over threads.
      main_thread_id: The thread that started the Tracker.
    """

    def __init__(self, records: list[Any], main_thread_id: int) -> None:
        names = {record.thread_name: record.tid for record in records}
        self.is_shared = LOOP_THREAD in names
        "Whether the task is async: then other tasks run on the same thread."
        self.own_id = names.get(LOOP_THREAD, names.get(TASK_THREAD, main_thread_id))


def shown_records(records: list[Any], threads: AllocationThreads, *, native: bool, own: bool) -> Iterator[ShownRecord]:
    """Yields the records that a report shows; allocations of this package are left out.

    Parameters:
      records: memray's records, not merged over threads.
      threads: The threads of the profile.
      native: Whether the stacks contain calls of C and C++.
      own: Whether only the allocations of the task's own thread are shown.
    """
    name = "event loop, shared by all async actors" if threads.is_shared else "this task"
    for record in records:
        if own and record.tid != threads.own_id:
            continue
        in_loop = threads.is_shared and record.tid == threads.own_id
        stack = _shown_stack(record, native=native, own=own, in_loop=in_loop)
        if stack is not None:
            yield ShownRecord(record, stack, record.tid if own else -1, name if own else "")


def _shown_stack(record: Any, *, native: bool, own: bool, in_loop: bool) -> list[Call] | None:
    """Returns: The stack to show, the innermost call first; None if the record is not shown."""
    python: list[Call] = record.stack_trace(max_stacks=_ALL)
    depth = _depth_of_caller(python, in_loop)
    if depth is None and (_is_ours(record.thread_name, python) or (own and python)):
        return None
    if own and depth and _is_call(python[depth - 1], *_LOG):
        return None
    stack: list[Call] = python[:depth]
    if native:
        hybrid = record.hybrid_stack_trace()  # memray itself cuts the stacks of the thread that started the Tracker.
        stack = hybrid[: _depth_of_caller(hybrid, in_loop)]
    return [call for call in stack if _own_file(call[1]) not in _PASSED_THROUGH]


def _depth_of_caller(stack: list[Call], in_loop: bool) -> int | None:
    """Returns: The number of calls below the outermost call of an actor; None if no actor is called."""
    for name, file in (*_CALLERS, _LOOP_CALLER) if in_loop else _CALLERS:
        for depth in range(len(stack) - 1, -1, -1):
            if _is_call(stack[depth], name, file):
                return depth
    return None


def _is_call(call: Call, name: str, file: str) -> bool:
    function, of_file, _ = call
    return of_file.endswith(file) and function.rpartition(".")[2] == name


def _is_ours(thread_name: str, stack: list[Call]) -> bool:
    if not stack:
        return is_own_thread(thread_name) and thread_name not in (TASK_THREAD, LOOP_THREAD)
    return any(is_own_code(file) for _, file, _ in stack)


def is_own_code(file: str) -> bool:
    """Returns: True for a file of this package; False for all others, and for those that call the application."""
    own_file = _own_file(file)
    return own_file in _own_files() and own_file not in _PASSED_THROUGH


@cache
def _own_file(file: str) -> str:
    """Returns: The path of a file relative to this package; an unusable path if it is elsewhere."""
    return file.rpartition(f"{os.sep}{PACKAGE_NAME}{os.sep}")[2].replace(os.sep, "/")


@cache
def _own_files() -> frozenset[str]:
    files = (path.relative_to(_PACKAGE).as_posix() for path in _PACKAGE.rglob("*.py"))
    return frozenset(file for file in files if not file.startswith("demo/"))
