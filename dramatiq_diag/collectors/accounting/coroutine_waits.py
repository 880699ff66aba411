"""Looks at the coroutine of an async actor: does it run, await something, or wait for a loop that is busy?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable
from typing import Any

from ...runtime.frames import Look, Place, has_frame
from ...runtime.stacks import Branch, future_of
from ...runtime.waits.coroutines import awaited_wait, executed_by_loop
from .account import Name
from .arithmetic import Where
from .calls import on_of
from .readiness import can_go_on, is_due

#: The most tasks that await each other and are followed.
_MAX_TASKS = 10

#: The innermost places of a coroutine that tell one wait from another.
_PLACES = 5

_LOOP_WAIT: Where = ("loop_wait", None)


class LoopLook:
    """One look at an event loop and at coroutines of it; `take` takes it.

    Parameters:
      loop_thread_id: The thread of the event loop.
      is_awake: Whether that thread does not wait in the kernel: it may have left its selector, and wait for the GIL or
        for a processor.
    """

    def __init__(self, loop_thread_id: int, *, is_awake: bool) -> None:
        self._is_awake = is_awake
        self.look = Look()
        self._places = self.look.thread(loop_thread_id)
        self._ids = self.look.thread_frame_ids(loop_thread_id)
        self.frame_ids: set[int] = set()
        "The ids of the frames of the loop's thread."
        self.is_busy = False
        "Whether the loop executes something, or is about to."

    def take(self) -> None:
        """Takes the look."""
        self.look.take()
        self.frame_ids = set(self._ids)
        self.is_busy = self._is_awake or bool(executed_by_loop(self._places))


class CoroutineLook:
    """What one look at a coroutine has seen; see `read`.

    Parameters:
      coroutine: The coroutine.
      loop: The look, not taken yet.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], loop: LoopLook) -> None:
        self.is_known = False
        self.is_running = False
        "Whether its step runs at this moment: the thread of the event loop is the run's own then."
        self.key: Hashable = None
        "Tells one wait from another."
        self._places: list[Place] = []
        self._awaitable: Any = None
        self._holder: Any = None
        self._loop = loop
        self._links, self._chain = loop.look.coroutine(coroutine)

    def read(self) -> None:
        """Tells what it does, once the look is taken."""
        links, chain = self._links, self._chain
        self.is_known = bool(links)
        if links:
            frame_ids = self._loop.frame_ids
            self.is_running = any(frame_id in frame_ids for _, frame_id, _ in links) or (
                links[-1][2] and len(chain) < 2
            )
            if not self.is_running:
                self._follow(links, chain, self._loop.is_busy)

    def _follow(self, links: list[Any], chain: list[Any], is_busy: bool) -> None:
        """Finds what is awaited, through tasks that await others."""
        places = [place for place, _, _ in links]
        future = future_of(chain[-1])
        for _ in range(_MAX_TASKS):
            inner: Any = future.get_coro() if isinstance(future, asyncio.Task) and not future.done() else None
            if inner is None or not has_frame(inner):
                break
            look = Look()
            links, further = look.coroutine(inner)
            look.take()
            if not links:
                break
            places, chain = places + [place for place, _, _ in links], further
            future = future_of(chain[-1])
        self._places = places[::-1]
        self._awaitable, self._holder = chain[-1], chain[-2] if len(chain) > 1 else None
        if can_go_on(links[-1], self._awaitable) or is_due(future, self._holder, is_busy=is_busy):
            self.key = _LOOP_WAIT
        else:
            self.key = tuple((id(code), line) for code, line in self._places[:_PLACES])

    def name(self) -> Name:
        """Returns: What it awaits."""
        if self.key == _LOOP_WAIT:
            return Name(_LOOP_WAIT)
        wait = awaited_wait(Branch((), self._awaitable, self._holder), self._places, None)
        # It may be done by now, or its connection be about to be closed.
        return Name(("awaiting", on_of(wait)), is_whole=wait.kind not in ("socket", "loop") or wait.peer is not None)
