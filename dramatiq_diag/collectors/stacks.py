"""How the stack of a task is read from outside, without a profile function and without touching its locals."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from types import CodeType, FrameType
from typing import Any

from dramatiq import Actor

#: Root first: a code object and the line in it, over and over. Ends with `AWAIT` while a coroutine awaits.
Stack = tuple[Any, ...]

#: Stands in for the code and the line of what is not a Python frame.
AWAIT = "[await]"
OTHER = "[other stacks]"

#: Deeper frames than this are cut off.
_MAX_DEPTH = 300


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


def thread_stack(frame: FrameType | None, anchor: CodeType) -> Stack | None:
    """Returns: The stack below the outermost call of the anchor, or None while that is not being called."""
    upward: list[Any] = []
    cut = None
    while frame is not None:
        code = frame.f_code
        if code is anchor:
            cut = len(upward)
        upward.append(frame.f_lineno)
        upward.append(code)
        frame = frame.f_back
    if not cut:
        return None
    return _downward(upward[:cut])


def coroutine_stack(coroutine: Coroutine[Any, Any, Any], loop_frame: FrameType | None) -> Stack | None:
    """Returns: The stack of a task's own coroutine, as it runs or as it awaits; None once it ended."""
    outer = coroutine.cr_frame  # type: ignore[attr-defined]
    if outer is None:
        return None
    upward: list[Any] = []
    frame = loop_frame
    while frame is not None:
        upward.append(frame.f_lineno)
        upward.append(frame.f_code)
        if frame is outer:
            return _downward(upward)
        frame = frame.f_back
    return _awaiting(coroutine)


def _awaiting(awaitable: Any) -> Stack:
    stack: list[Any] = []
    while awaitable is not None and len(stack) < 2 * _MAX_DEPTH:
        frame, following = _suspended(awaitable)
        if frame is None:
            break
        stack += (frame.f_code, frame.f_lineno)
        awaitable = following
    return (*stack, AWAIT, 0)


def _suspended(awaitable: Any) -> tuple[FrameType | None, Any]:
    """Returns: The frame of a suspended coroutine, generator or asynchronous generator, and what it waits for."""
    for prefix, following in (("cr", "cr_await"), ("gi", "gi_yieldfrom"), ("ag", "ag_await")):
        frame = getattr(awaitable, f"{prefix}_frame", None)
        if frame is not None:
            return frame, getattr(awaitable, following, None)
    return None, None


def _downward(upward: list[Any]) -> Stack:
    upward.reverse()
    return tuple(upward[: 2 * _MAX_DEPTH])
