"""How the stack of a task is read from outside, without a profile function and without touching its locals."""

from __future__ import annotations

import asyncio
import gc
import inspect
from collections.abc import Callable, Coroutine, Iterable
from operator import attrgetter
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

from dramatiq import Actor

#: Root first: the id of a code object and the line in it, over and over. Ends with `AWAIT` while a coroutine awaits.
#: Ids, as the hash of a code object is made of all its instructions each time.
Stack = tuple[int, ...]

#: Id -> code object; it keeps the object alive, so that the id stays its own.
Codes = dict[int, CodeType]

#: Stand in for the id of what is not a Python frame; their line is 0.
AWAIT = 1
OTHER = 2

#: Deeper frames than this are cut off.
_MAX_DEPTH = 300

#: Of tasks that are awaited at once, more than this are left out.
_MAX_AWAITED = 20

#: Type -> what gives its frame, and what it waits for.
_SUSPENDED: dict[type, Callable[[Any], tuple[FrameType | None, Any]]] = {
    CoroutineType: attrgetter("cr_frame", "cr_await"),
    GeneratorType: attrgetter("gi_frame", "gi_yieldfrom"),
    AsyncGeneratorType: attrgetter("ag_frame", "ag_await"),
}


def anchor_of(actor: Actor[..., Any]) -> CodeType:
    """Returns: The code that calls the actor's function: what is above it on a worker's stack is Dramatiq."""
    call: CodeType = getattr(type(actor).__call__, "__code__", Actor.__call__.__code__)
    return call


def root_of(actor: Actor[..., Any]) -> CodeType | None:
    """Returns: The code of the actor's function, or of its coroutine function; None for other callables."""
    return getattr(coroutine_function(actor) or actor.fn, "__code__", None)


def coroutine_function(actor: Actor[..., Any]) -> Any:
    """Returns: The coroutine function of an async actor, or None."""
    wrapped = getattr(actor.fn, "__wrapped__", None)
    return wrapped if inspect.iscoroutinefunction(wrapped) and not inspect.iscoroutinefunction(actor.fn) else None


def thread_stack(frame: FrameType | None, anchor: CodeType, codes: Codes) -> Stack | None:
    """Returns: The stack below the outermost call of the anchor, or None while that is not being called."""
    upward: list[FrameType] = []
    cut = None
    while frame is not None:
        if frame.f_code is anchor:
            cut = len(upward)
        upward.append(frame)
        frame = frame.f_back
    return tuple(_parts(upward[:cut], codes)) if cut else None


def coroutine_stacks(coroutine: Coroutine[Any, Any, Any], loop_frame: FrameType | None, codes: Codes) -> list[Stack]:
    """Returns: The stacks of a task's own coroutine, as it runs or as it awaits; none once it ended.

    Several where it awaits several tasks at once, as with `asyncio.gather`: each of those that have not ended, or the
    one of them that runs.
    """
    if coroutine.cr_frame is None:  # type: ignore[attr-defined]
        return []
    running: list[FrameType] = []
    while loop_frame is not None:
        running.append(loop_frame)
        loop_frame = loop_frame.f_back
    stacks = _follow(coroutine, (), running, codes)
    return [stack for stack in stacks if stack[-2] != AWAIT] or stacks


def _parts(upward: list[FrameType], codes: Codes) -> list[int]:
    """Returns: The parts of a stack, root first, of frames that have the root last."""
    parts: list[int] = []
    for frame in upward[: -_MAX_DEPTH - 1 : -1]:
        code = frame.f_code
        key = id(code)
        codes[key] = code
        parts += (key, frame.f_lineno)
    return parts


def _follow(awaitable: Any, above: Stack, running: list[FrameType], codes: Codes) -> list[Stack]:
    stack, holder = list(above), None
    while len(stack) < 2 * _MAX_DEPTH:
        frame, following = _suspended(awaitable)
        if frame is None:
            break
        if frame in running:
            stack += _parts(running[: running.index(frame) + 1], codes)
            return [tuple(stack[: 2 * _MAX_DEPTH])]
        stack += _parts([frame], codes)
        holder, awaitable = awaitable, following
    else:
        return [tuple(stack)]
    followed = [_follow(inner, tuple(stack), running, codes) for inner in _awaited(awaitable, holder)]
    return [found for stacks in followed for found in stacks] or [(*stack, AWAIT, 0)]


def _suspended(awaitable: Any) -> tuple[FrameType | None, Any]:
    """Returns: The frame of a coroutine, generator or asynchronous generator, and what it waits for."""
    attributes = _SUSPENDED.get(type(awaitable))
    return (None, None) if attributes is None else attributes(awaitable)


def _awaited(awaitable: Any, holder: Any) -> list[Any]:
    """Returns: What goes on behind something that is awaited and has no frame: coroutines that have one.

    asyncio says of a future that is awaited only who waits for it, so this asks the garbage collector what it leads to.
    It looks at nothing but types before it knows what it has: no code of the application is to run.

    Parameters:
      awaitable: What is awaited: the iterator of a future or a task, or that of an asynchronous generator.
      holder: The coroutine that awaits it; it knows the tasks of a `TaskGroup` or an `asyncio.wait`.
    """
    behind = [awaitable, *gc.get_referents(awaitable)]
    future = next((found for found in behind if hasattr(type(found), "_asyncio_future_blocking")), None)
    if future is not None:
        tasks = _only_tasks([future]) or _only_tasks(getattr(future, "_children", ())) or _tasks_of(holder)
        behind = [task.get_coro() for task in tasks if not task.done()]
    return [inner for inner in behind[:_MAX_AWAITED] if _suspended(inner)[0] is not None]


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
