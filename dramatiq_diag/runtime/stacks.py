"""Reads the stack of a task from another thread, without a profile function and without touching locals."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
from collections.abc import Coroutine, Iterable
from types import CodeType
from typing import Any

from dramatiq import Actor

from .frames import MAX_AWAITING, Look, Place, has_frame

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
    return wrapped if inspect.iscoroutinefunction(wrapped) and not inspect.iscoroutinefunction(actor.fn) else None


class ThreadStack:
    """The stack of a run on its own thread: the frames inside the outermost call of the anchor.

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
        """Returns: The stack; an empty list while the anchor is not being called."""
        places = self._places
        cut = next((at for at in reversed(range(len(places))) if places[at][0] is self._anchor), None)
        if cut is not None:
            return [tuple(_parts(places[:cut], codes))] if cut else []
        if not places or places[-1][0] is _BOTTOM:
            return []
        # It is in a greenlet, whose frames do not lead back to the frames that switched to it.
        above: list[Place] = [] if self._root is None else [(self._root, 0)]
        return [tuple(_parts([*places, *above], codes))]


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
        stacks = self._follow(codes, _MAX_LEVELS)
        return [stack for stack in stacks if stack[-2] != AWAIT] or stacks

    def _follow(self, codes: Codes, levels: int) -> list[Stack]:
        links, chain = self._links, self._chain
        upward: list[Place] = []
        for (place, frame_id, is_running), awaited in zip(links, chain[1:], strict=False):
            if frame_id in self._running_ids:
                return [self._stack(self._running[: self._running_ids.index(frame_id) + 1] + upward, codes)]
            upward.insert(0, place)
            # An asynchronous generator runs while it awaits, too.
            if is_running and awaited is None:  # In a greenlet: its frames do not lead back to this one.
                return [self._stack(self._running + upward, codes)]
        if not links or len(links) == MAX_AWAITING or not levels:
            return [self._stack(upward, codes)] if links else []
        stack = self._stack(upward, codes)
        below = [found for inner in _awaited(*chain[:-3:-1]) for found in self._below(inner, codes, levels - 1)]
        if below and self._has_moved():
            below = []
        return [(stack + found)[: 2 * _MAX_DEPTH] for found in below] or [(*stack, AWAIT, 0)]

    def _below(self, coroutine: Any, codes: Codes, levels: int) -> list[Stack]:
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

    def _stack(self, upward: list[Place], codes: Codes) -> Stack:
        return tuple(_parts(upward, codes))


def _parts(upward: list[Place], codes: Codes) -> list[int]:
    """Returns: The parts of a stack, root first, from places with the root last."""
    parts: list[int] = []
    for code, line in upward[: -_MAX_DEPTH - 1 : -1]:
        key = id(code)
        codes[key] = code
        parts += (key, line or 0)
    return parts


def _awaited(awaitable: Any, holder: Any) -> list[Any]:
    """Returns: The coroutines with frames that an awaitable without a frame waits for.

    asyncio knows of a future only who waits for it, so this follows the references of the garbage collector. It looks
    at types alone before it knows an object, so that no code of the application runs.

    Parameters:
      awaitable: The iterator of a future, a task, or an asynchronous generator.
      holder: The coroutine that awaits it; it refers to the tasks of a `TaskGroup` or an `asyncio.wait`.
    """
    behind = [awaitable, *gc.get_referents(awaitable)]
    future = next((found for found in behind if hasattr(type(found), "_asyncio_future_blocking")), None)
    if future is not None:
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
