"""Writes the stacks of all threads of the process at one moment as a text."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

from .frames import Look, Place, thread_ids
from .stacks import AWAIT, Codes, CoroutineStacks, Stack

#: A text is cut off at this length. The task's own stack comes first, and is always shorter.
MAX_BYTES = 64 * 1024

#: The most frames of one stack; outer frames are left out.
_MAX_DEPTH = 100

#: The most characters of the name of a function or a file.
_MAX_NAME = 200

_CUT_OFF = "... The rest is cut off.\n"


def dump_stacks(
    task_thread_id: int, coroutine: Coroutine[Any, Any, Any] | None, loop_thread_id: int | None, occasion: str
) -> str:
    """Returns: The stacks of all threads: first the coroutine of an async actor, then the task's thread, then others.

    Parameters:
      task_thread_id: The thread of the task.
      coroutine: The coroutine of an async actor.
      loop_thread_id: The thread that runs coroutines.
      occasion: Why the stacks are written, for the heading.
    """
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    places, awaited = _read(coroutine, loop_thread_id)
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    text = f"# Stacks of all threads at {moment}, {occasion}\n"
    for number, stack in enumerate(awaited):
        text += _section(f"coroutine of the task{'' if len(awaited) == 1 else f', branch {number + 1}'}", stack)
    own = threading.get_ident()
    for thread_id in sorted(places, key=lambda thread_id: thread_id != task_thread_id):
        if thread_id != own:
            whose = ", the task's own" if thread_id == task_thread_id else ""
            text += _section(f"thread {names.get(thread_id, '?')!r:.200} ({thread_id}{whose})", places[thread_id])
    return cut(f"{text}\n")


def _read(
    coroutine: Coroutine[Any, Any, Any] | None, loop_thread_id: int | None
) -> tuple[dict[int, list[Place]], list[Sequence[Place]]]:
    """Returns: Thread id -> its frames, outermost first; and the stacks of the coroutine."""
    codes: Codes = {}
    look = Look()
    upward = {thread_id: look.thread(thread_id) for thread_id in thread_ids()}
    awaited = None if coroutine is None else CoroutineStacks(look, coroutine, loop_thread_id or 0)
    look.take()
    stacks = [] if awaited is None else awaited.read(codes)
    places = {thread_id: found[_MAX_DEPTH - 1 :: -1] for thread_id, found in upward.items() if found}
    return places, [_places_of(stack, codes) for stack in stacks[:_MAX_DEPTH]]


def _places_of(stack: Stack, codes: Codes) -> Sequence[Place]:
    pairs = zip(stack[::2], stack[1::2], strict=True)
    return [(codes[key], line) for key, line in pairs if key != AWAIT][-_MAX_DEPTH:]


def _section(title: str, places: Sequence[Place]) -> str:
    lines = (
        f'  File "{code.co_filename[-_MAX_NAME:]}", line {line or 0}, in {code.co_qualname[:_MAX_NAME]}\n'
        for code, line in places
    )
    return f"\n{title}, the innermost call last:\n{''.join(lines)}"


def cut(text: str) -> str:
    """Returns: The text, cut off at `MAX_BYTES`."""
    data = text.encode("utf-8", "replace")
    if len(data) <= MAX_BYTES:
        return data.decode()
    kept = data[: MAX_BYTES - len(_CUT_OFF)].decode("utf-8", "ignore")
    return kept[: kept.rfind("\n") + 1] + _CUT_OFF
