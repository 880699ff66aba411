"""Looks at the threads of the process, with which neither the garbage collector nor another thread may interfere."""

from __future__ import annotations

import gc
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from itertools import accumulate, chain, compress, islice, repeat, takewhile
from operator import attrgetter, call, itemgetter, truth
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, ClassVar, cast

#: The code of a frame, and the line that it is at, if it is at one.
Place = tuple[CodeType, int | None]

#: The place of a coroutine, the id of its frame, to be looked for among a thread's, and whether it runs.
Link = tuple[Place, int, bool]

#: Of coroutines that await each other, more than this are left out.
MAX_AWAITING = 300

#: Until Python 3.11 any allocation may start a collection; since 3.12 only the interpreter's loop does.
_ALLOCATION_COLLECTS = sys.version_info < (3, 12)

_PLACE = attrgetter("f_code", "f_lineno")

#: Type -> what gives what it waits for, its frame, and whether it runs.
_SUSPENDED: dict[type, Callable[[Any], Any]] = {
    CoroutineType: attrgetter("cr_await", "cr_frame", "cr_running"),
    GeneratorType: attrgetter("gi_yieldfrom", "gi_frame", "gi_running"),
    AsyncGeneratorType: attrgetter("ag_await", "ag_frame", "ag_running"),
}


#: Gives for any object: nothing that it waits for, no frame, and that it does not run.
_nothing: Any = partial(next, repeat((None, None, False)))


class GarbagePause:
    """Keeps the garbage collector from running by itself, from `begin` to `end`, for as long as anyone wants it.

    Starting and stopping memray goes through the threads of the interpreter and makes objects on the way, and so the
    collector may run. What it finalises (a file that is closed, a thread that is started) lets another thread run,
    which may end meanwhile or need the lock that is held: then the process crashes or hangs (python/cpython#106883,
    python/cpython#137400).
    """

    _lock: ClassVar = threading.Lock()
    _users: ClassVar[set[GarbagePause]] = set()
    _was_enabled: ClassVar = False

    def begin(self) -> None:
        """Begins; does nothing where the collector does not run by itself anyway."""
        pause = GarbagePause
        with pause._lock:
            if not pause._users:
                pause._was_enabled = gc.isenabled()
            pause._users.add(self)  # First: an interrupt may come between any two lines, and `end` comes after it.
            gc.disable()

    def end(self) -> None:
        """Ends; may be called again."""
        pause = GarbagePause
        with pause._lock:
            if self in pause._users:
                if pause._was_enabled and len(pause._users) == 1:
                    gc.enable()
                pause._users.discard(self)

    @staticmethod
    def end_in_child() -> None:
        """Ends all of them in a forked child: the threads that would have done it are not in it."""
        pause = GarbagePause
        pause._lock = threading.Lock()
        if pause._users and pause._was_enabled:
            gc.enable()
        pause._users.clear()


class Look:
    """Reads the stacks of threads and coroutines at one moment.

    Ask for all of them first; `take` then fills the lists that were given out. It does that in one call of a C
    function, out of iterators that are C functions as well: another thread gets the GIL between two steps of Python
    code, and not within such a call. No frame is left over either: one that is held while its thread runs on keeps its
    objects alive, and has them finalised on the thread that looks.

    Note:
      The garbage collector is off meanwhile on Python 3.11. `frame.f_back` makes a frame object there, which may start
      a collection, and what that finalises may let another thread run. If the function that is looked at returns
      meanwhile, `f_back` takes what it finds in freed memory: another object, or a crash.
    """

    def __init__(self) -> None:
        self._innermost: dict[int, FrameType] = {}
        self._steps: list[Iterator[object]] = [map(self._innermost.update, _called(sys._current_frames))]

    def thread(self, thread_id: int) -> list[Place]:
        """Returns: The places of a thread, the innermost first; none where there is no such thread."""
        return self._filled(map(_PLACE, self._thread_frames(thread_id)))

    def thread_frame_ids(self, thread_id: int) -> list[int]:
        """Returns: The ids of the frames of `thread`."""
        return self._filled(map(id, self._thread_frames(thread_id)))

    def coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[list[Link], list[Any]]:
        """Returns: A coroutine and what it awaits and so on, as far as they have frames; and all of them as objects,
        with what the last one awaits at the end."""
        first, frame_of, runs = itemgetter(0), itemgetter(1), itemgetter(2)
        seen: list[tuple[Any, FrameType | None, bool]] = [(coroutine, None, False)]
        # The list grows while it is gone through: what was found last is looked at next.
        found: Any = map(
            cast(Any, call), map(_SUSPENDED.get, map(type, map(first, seen)), repeat(_nothing)), map(first, seen)
        )
        self._steps.append(map(seen.append, takewhile(frame_of, islice(found, MAX_AWAITING))))
        frames, same_frames, running = (islice(seen, 1, None) for _ in range(3))
        links = zip(
            map(_PLACE, map(frame_of, frames)), map(id, map(frame_of, same_frames)), map(runs, running), strict=False
        )
        filled = self._filled(links), self._filled(map(first, seen))
        self._steps.append(_called(seen.clear))
        return filled

    def take(self) -> None:
        """Fills the lists."""
        _in_one_step([*self._steps, _called(self._innermost.clear)])

    def _filled(self, values: Iterator[Any]) -> list[Any]:
        filled: list[Any] = []
        self._steps.append(map(filled.extend, (values,)))
        return filled

    def _thread_frames(self, thread_id: int) -> Iterator[FrameType]:
        return _outward(map(self._innermost.get, (thread_id,)))


def has_frame(awaitable: Any) -> bool:
    """Returns: Whether this is a coroutine or the like that has not ended."""
    what: tuple[Any, FrameType | None, bool] = _SUSPENDED.get(type(awaitable), _nothing)(awaitable)
    return what[1] is not None


def thread_ids() -> list[int]:
    """Returns: The ids of all threads; no frame is held for it, not even for a moment."""
    ids: list[int] = []
    _in_one_step([map(ids.extend, _called(sys._current_frames))])
    return ids


def _in_one_step(steps: list[Iterator[object]]) -> None:
    """Runs iterators of C functions to their ends, one after the other, in one call."""
    was_enabled: list[bool] = []
    if _ALLOCATION_COLLECTS:
        before = map(was_enabled.append, _called(gc.isenabled))
        steps = [before, _called(gc.disable), *steps, map(cast(Any, call), compress((gc.enable,), was_enabled))]
    try:
        deque(chain.from_iterable(steps), maxlen=0)
    except BaseException:
        if was_enabled == [True]:
            gc.enable()
        raise


def _called(function: Any) -> Iterator[Any]:
    """Returns: An iterator that gives what the function returns, once, and calls it only then."""
    return map(cast(Any, call), (function,))


def _outward(frames: Iterable[FrameType | None]) -> Iterator[FrameType]:
    """Returns: An iterator of a frame, the one that called it, and so on."""
    every: Any = accumulate(chain(cast(Iterable[Any], frames), repeat("f_back")), getattr)
    return takewhile(truth, every)
