"""Reads the stack of a task from another thread, without a profile function and without touching locals."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import threading
from collections.abc import Coroutine, Iterable
from types import CodeType
from typing import Any, NamedTuple

from dramatiq import Actor

from .frames import MAX_AWAITING, Look, Place, frames_behind, future_of, has_frame

#: A flat sequence, root first: the id of a code object, and the line in it (0 if unknown). While a coroutine awaits, it
#: ends with `AWAIT`. Ids are used because hashing a code object reads all its instructions each time.
Stack = tuple[int, ...]

#: Id -> code object; it keeps the objects alive, so that no other object gets the id.
Codes = dict[int, CodeType]

#: Replace the id for entries that are not Python frames; their line is 0.
AWAIT = 1
OTHER = 2

#: Deeper frames than this are cut off.
_MAX_DEPTH = 300

#: The most tasks that are followed where a coroutine awaits several at once.
_MAX_AWAITED = 20

#: The most levels of tasks that await tasks.
_MAX_LEVELS = 50

#: The code of the method that `Actor.__call__` calls before and after the actor's function, to log a line.
LOG_CODE: CodeType = logging.Logger.debug.__code__

#: The code of the outermost frame of each thread that Python starts.
_BOTTOM: CodeType = threading.Thread._bootstrap.__code__  # type: ignore[attr-defined]


def anchor_of(actor: Actor[..., Any]) -> CodeType:
    """Returns: The code that calls the actor's function. The outer frames on a worker's stack are Dramatiq's."""
    call: CodeType = getattr(type(actor).__call__, "__code__", Actor.__call__.__code__)
    return call


def root_of(actor: Actor[..., Any]) -> CodeType | None:
    """Returns: The code of the actor's function, or of its coroutine function; None for other callables."""
    return getattr(coroutine_function(actor) or actor.fn, "__code__", None)


def coroutine_function(actor: Actor[..., Any]) -> Any:
    """Returns: The coroutine function of an async actor, or None."""
    wrapped = getattr(actor.fn, "__wrapped__", None)
    if wrapped is None:
        return None
    return wrapped if inspect.iscoroutinefunction(wrapped) and not inspect.iscoroutinefunction(actor.fn) else None


class ThreadStack:
    """The stack of a run on its own thread: the frames inside the outermost call of the anchor, but for its log lines.

    Parameters:
      look: The look that reads it.
      thread_id: The thread.
      anchor: The code that calls the actor's function.
      root: The code of that function, if it has one.
    """

    def __init__(self, look: Look, thread_id: int, anchor: CodeType, root: CodeType | None) -> None:
        self._places = look.thread(thread_id)
        self._anchor = anchor
        self._root = root

    def read(self, codes: Codes) -> list[Stack]:
        """Returns: The stack; an empty list while the anchor is not being called, or writes to the log."""
        places = self._places
        cut = next((at for at in reversed(range(len(places))) if places[at][0] is self._anchor), None)
        if cut is not None:
            is_outside = cut == 0 or places[cut - 1][0] is LOG_CODE
            return [] if is_outside else [_stack_of(places[:cut], codes)]
        if not places or places[-1][0] is _BOTTOM:
            return []
        # It is in a greenlet, whose frames do not lead back to the frames that switched to it.
        above: list[Place] = [] if self._root is None else [(self._root, 0)]
        return [_stack_of([*places, *above], codes)]


class Branch(NamedTuple):
    """One of the stacks of a coroutine."""

    stack: Stack
    awaitable: Any = None
    "The object that the innermost coroutine awaits; None while it runs."
    holder: Any = None
    "The innermost coroutine; None while it runs."


class CoroutineStacks:
    """The stacks of a task's own coroutine, while it runs or awaits.

    Parameters:
      look: The look that reads it.
      coroutine: The coroutine.
      loop_thread_id: The thread of its event loop.
    """

    def __init__(self, look: Look, coroutine: Coroutine[Any, Any, Any], loop_thread_id: int) -> None:
        self._coroutine = coroutine
        self._loop_thread_id = loop_thread_id
        self._ask(look)

    def _ask(self, look: Look) -> None:
        self._links, self._chain = look.coroutine(self._coroutine)
        self._running = look.thread(self._loop_thread_id)
        self._running_ids = look.thread_frame_ids(self._loop_thread_id)

    def read(self, codes: Codes) -> list[Stack]:
        """Returns: The stacks; an empty list once the coroutine has ended.

        There are several while it awaits several tasks at once, as with `asyncio.gather`: one for each task that has
        not ended, or only that of the task that runs.
        """
        return [branch.stack for branch in self.branches(codes)]

    def branches(self, codes: Codes) -> list[Branch]:
        """Returns: The same stacks, each with what is awaited at its end."""
        branches = self._follow(codes, _MAX_LEVELS)
        return [branch for branch in branches if branch.stack[-2] != AWAIT] or branches

    def _follow(self, codes: Codes, levels: int) -> list[Branch]:
        links, chain = self._links, self._chain
        upward: list[Place] = []
        for (place, frame_id, is_running), awaited in zip(links, chain[1:], strict=False):
            if frame_id in self._running_ids:
                return [Branch(_stack_of(self._running[: self._running_ids.index(frame_id) + 1] + upward, codes))]
            upward.insert(0, place)
            # An asynchronous generator runs while it awaits, too.
            if is_running and awaited is None:  # In a greenlet: its frames do not lead back to this one.
                return [Branch(_stack_of(self._running + upward, codes))]
        if not links:
            return []
        stack = _stack_of(upward, codes)
        if len(links) == MAX_AWAITING or not levels:
            return [Branch(stack)]
        below = [found for inner in _awaited(*chain[:-3:-1]) for found in self._below(inner, codes, levels - 1)]
        if below and self._has_moved():
            below = []
        if below:
            return [found._replace(stack=(stack + found.stack)[: 2 * _MAX_DEPTH]) for found in below]
        return [Branch((*stack, AWAIT, 0), *chain[:-3:-1])]

    def _below(self, coroutine: Any, codes: Codes, levels: int) -> list[Branch]:
        look = Look()
        inner = CoroutineStacks(look, coroutine, self._loop_thread_id)
        look.take()
        return inner._follow(codes, levels)

    def _has_moved(self) -> bool:
        """Returns: Whether the coroutine went on since; then the stacks of its tasks may be of a later moment."""
        links, chain = self._links, self._chain
        look = Look()
        self._ask(look)
        look.take()
        return self._links != links or [id(each) for each in self._chain] != [id(each) for each in chain]


def _stack_of(upward: list[Place], codes: Codes) -> Stack:
    """Returns: The stack of places, of which the root is the last one."""
    parts: list[int] = []
    for code, line in upward[: -_MAX_DEPTH - 1 : -1]:
        key = id(code)
        codes[key] = code
        parts += (key, line or 0)
    return tuple(parts)


def _awaited(awaitable: Any, holder: Any) -> list[Any]:
    """Returns: The coroutines with frames that an awaitable without a frame waits for.

    asyncio knows of a future only who waits for it, so this follows the references of the garbage collector. It looks
    at types alone before it knows an object, so that no code of the application runs.

    Parameters:
      awaitable: The iterator of a future, a task, or an asynchronous generator.
      holder: The coroutine that awaits it; it refers to the tasks of a `TaskGroup` or an `asyncio.wait`.
    """
    future = future_of(awaitable)
    if future is None:
        return frames_behind(awaitable)
    tasks = _only_tasks([future]) or _only_tasks(getattr(future, "_children", ())) or _tasks_of(holder)
    behind = [task.get_coro() for task in tasks if not task.done()]
    return [inner for inner in behind[:_MAX_AWAITED] if has_frame(inner)]


def _tasks_of(holder: Any) -> list[asyncio.Task[Any]]:
    """Returns: The tasks that a suspended coroutine holds."""
    held: list[Any] = []
    for value in gc.get_referents(holder):
        if type(value) is asyncio.TaskGroup:
            value = value._tasks
        held += value if type(value) in (set, list, tuple) else (value,)
    return list(dict.fromkeys(_only_tasks(held)))


def _only_tasks(values: Iterable[Any]) -> list[asyncio.Task[Any]]:
    return [value for value in values if issubclass(type(value), asyncio.Task)]
