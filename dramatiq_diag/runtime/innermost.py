"""Reads the innermost calls of several tasks at one moment, and which coroutine the event loop executes."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType
from typing import Any, NamedTuple, TypeVar

from .frames import Link, Look, Place

#: The most calls of a task.
MAX_DEPTH = 5

Key = TypeVar("Key")


class Where(NamedTuple):
    """Where a task is executed."""

    thread_id: int
    coroutine: Coroutine[Any, Any, Any] | None
    "That of an async actor."
    anchor: CodeType
    "The code that calls the actor's function."


@dataclass(frozen=True, slots=True)
class Calls:
    """The innermost calls of a task."""

    places: Sequence[Place]
    "The innermost first."
    is_current: bool
    "Whether it is a coroutine that the event loop executes just now."


def take_calls(tasks: Mapping[Key, Where], loop_thread_id: int | None) -> dict[Key, Calls]:
    """Returns: The calls of each task. All are of one moment, and no frame is held."""
    look = Look()
    threads = {key: look.thread(where.thread_id) for key, where in tasks.items() if where.coroutine is None}
    coroutines = {key: look.coroutine(where.coroutine) for key, where in tasks.items() if where.coroutine is not None}
    loop = look.thread(loop_thread_id or 0) if coroutines else []
    loop_ids = look.thread_frame_ids(loop_thread_id or 0) if coroutines else []
    look.take()
    calls = {key: Calls(_inside(places, tasks[key].anchor), is_current=False) for key, places in threads.items()}
    return calls | {key: _of_coroutine(links, loop, loop_ids) for key, (links, _) in coroutines.items()}


def _inside(places: Sequence[Place], anchor: CodeType) -> Sequence[Place]:
    """Returns: The places inside the call of the actor's function, the innermost ones."""
    outside = next((at for at, (code, _) in enumerate(places) if code is anchor), len(places))
    return places[: min(outside, MAX_DEPTH)]


def _of_coroutine(links: Sequence[Link], loop: Sequence[Place], loop_ids: Sequence[int]) -> Calls:
    frame_ids = {frame_id for _, frame_id, _ in links}
    at = next((at for at, frame_id in enumerate(loop_ids) if frame_id in frame_ids), None)
    if at is None:
        return Calls([place for place, _, _ in links[: -MAX_DEPTH - 1 : -1]], is_current=False)
    # Behind the first common frame the coroutines that await each other are on the loop's stack as well.
    outermost = max(number for number, frame_id in enumerate(loop_ids) if frame_id in frame_ids)
    return Calls(loop[: min(outermost + 1, MAX_DEPTH)], is_current=True)
