"""Reads the stacks of threads and coroutines at one moment, without the GIL passing to another thread meanwhile."""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import accumulate, chain, compress, islice, repeat, takewhile
from operator import attrgetter, call, itemgetter, truth
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, cast

from .coroutine_steps import MeasuredCoroutine
from .current_frames import called, steps_into

#: The code of a frame, and the line that it is at, if it is at one.
Place = tuple[CodeType, int | None]

#: The place of a coroutine, the id of its frame (which is looked for among a thread's), and whether it runs.
Link = tuple[Place, int, bool]

#: In a chain of coroutines that await each other, those beyond this number are left out.
MAX_AWAITING = 300

#: The iterators of `anext`, `asend`, `athrow` and `aclose` of asynchronous generators, and of coroutines that an
#: `__await__` awaits; and the most objects that are looked at behind one.
_ITERATORS = ("anext_awaitable", "async_generator_asend", "async_generator_athrow", "coroutine_wrapper")
_MAX_BEHIND = 20

#: Until Python 3.11 any allocation may start a collection; since 3.12 only the interpreter's loop does.
_ALLOCATION_COLLECTS = sys.version_info < (3, 12)

_PLACE = attrgetter("f_code", "f_lineno")
_OFFSET = attrgetter("f_lasti")
_FRAME_OF_GREENLET = attrgetter("gr_frame")

#: Type -> a getter of the awaited object, the frame, and whether it runs.
_SUSPENDED: dict[type, Callable[[Any], Any]] = {
    CoroutineType: attrgetter("cr_await", "cr_frame", "cr_running"),
    GeneratorType: attrgetter("gi_yieldfrom", "gi_frame", "gi_running"),
    AsyncGeneratorType: attrgetter("ag_await", "ag_frame", "ag_running"),
    MeasuredCoroutine: attrgetter("coroutine.cr_await", "coroutine.cr_frame", "coroutine.cr_running"),
}

#: Gives for any object: it awaits nothing, has no frame, and does not run.
_nothing: Any = partial(next, repeat((None, None, False)))

#: Type -> a getter of the awaited object, the code, the line, and whether it runs; it fails if that has ended. It keeps
#: no frame: the line is read within the same call of a C function.
_LINKS: dict[type, Callable[[Any], Any]] = {
    CoroutineType: attrgetter("cr_await", "cr_code", "cr_frame.f_lineno", "cr_running"),
    GeneratorType: attrgetter("gi_yieldfrom", "gi_code", "gi_frame.f_lineno", "gi_running"),
    AsyncGeneratorType: attrgetter("ag_await", "ag_code", "ag_frame.f_lineno", "ag_running"),
}


class Look:
    """Reads the stacks of threads and coroutines at one moment.

    Ask for all stacks first; `take` then fills the lists that were given out. It does that in one call of a C function,
    out of iterators that are C functions as well: another thread can get the GIL between two steps of Python code, but
    not within such a call. No frame is kept either: a frame that is held while its thread goes on keeps its objects
    alive, and has them finalised on this thread.

    Note:
      On Python 3.11 the garbage collector is off meanwhile. There `frame.f_back` makes a frame object, which may start
      a collection, whose finalisers may let another thread run. If the function of the frame returns meanwhile,
      `f_back` reads freed memory: it gives another object, or crashes.
    """

    def __init__(self) -> None:
        self._innermost: dict[int, FrameType] = {}
        self._steps = steps_into(self._innermost)

    def thread(self, thread_id: int) -> list[Place]:
        """Returns: The places of a thread, the innermost first; empty if there is no such thread."""
        return self._filled(map(_PLACE, self._thread_frames(thread_id)))

    def thread_frame_ids(self, thread_id: int) -> list[int]:
        """Returns: The ids of the frames of `thread`."""
        return self._filled(map(id, self._thread_frames(thread_id)))

    def thread_positions(self, thread_id: int) -> list[tuple[int, int]]:
        """Returns: The ids of the frames of `thread`, each with the offset of its instruction in bytes."""
        frames, same_frames = self._thread_frames(thread_id), self._thread_frames(thread_id)
        return self._filled(zip(map(id, frames), map(_OFFSET, same_frames), strict=False))

    def greenlet(self, greenlet: Any) -> list[Place]:
        """Returns: The places of a greenlet that does not run, the innermost first; empty for one that does."""
        return self._filled(map(_PLACE, _outward(map(_FRAME_OF_GREENLET, (greenlet,)))))

    def coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> tuple[list[Link], list[Any]]:
        """Returns: The links of a coroutine, of the one it awaits, and so on; and all of them as objects.

        The objects have one more at the end, which has no frame: the awaitable of the last coroutine.
        """
        first, frame_of, runs = itemgetter(0), itemgetter(1), itemgetter(2)
        seen: list[tuple[Any, FrameType | None, bool]] = [(coroutine, None, False)]
        # The list grows while it is iterated: the object that was found last is looked at next.
        found: Any = map(
            cast(Any, call), map(_SUSPENDED.get, map(type, map(first, seen)), repeat(_nothing)), map(first, seen)
        )
        self._steps.append(map(seen.append, takewhile(frame_of, islice(found, MAX_AWAITING))))
        frames, same_frames, running = (islice(seen, 1, None) for _ in range(3))
        links = zip(
            map(_PLACE, map(frame_of, frames)), map(id, map(frame_of, same_frames)), map(runs, running), strict=False
        )
        filled = self._filled(links), self._filled(map(first, seen))
        self._steps.append(called(seen.clear))
        return filled

    def take(self) -> None:
        """Fills the lists."""
        _in_one_step([*self._steps, called(self._innermost.clear)])

    def _filled(self, values: Iterator[Any]) -> list[Any]:
        filled: list[Any] = []
        self._steps.append(map(filled.extend, (values,)))
        return filled

    def _thread_frames(self, thread_id: int) -> Iterator[FrameType]:
        return _outward(map(self._innermost.get, (thread_id,)))


def awaited_by(coroutine: Any) -> tuple[list[Place], list[Any], bool]:
    """Reads a coroutine in a tenth of the time of a `Look`; it is for one that does not go on meanwhile.

    Returns: The places of the coroutine, of the one it awaits, and so on; all of them as objects, with the iterators
    between them, and the awaitable of the last one; and whether the last one runs. No places if it has ended, or one of
    them ended meanwhile.

    Note:
      Another thread may get the GIL in between, also by a collection. What is read stays alive with the coroutines,
      which the list holds; that is not so for `frame.f_back`.
    """
    places: list[Place] = []
    chain, is_running = [coroutine], False
    while len(places) < MAX_AWAITING:
        if (getter := _LINKS.get(type(chain[-1]))) is None:
            behind = () if chain[-1] is None else frames_behind(chain[-1])
            if not behind:
                break
            chain.append(behind[0])
            continue
        try:
            awaited, code, line, is_running = getter(chain[-1])
        except AttributeError:
            return [], [], False
        places.append((code, line))
        chain.append(awaited)
    return places, chain, is_running


def future_of(awaitable: Any) -> Any:
    """Returns: The future or task behind the iterator that a coroutine awaits; None if there is none."""
    behind = [awaitable, *gc.get_referents(awaitable)]
    return next((found for found in behind if hasattr(type(found), "_asyncio_future_blocking")), None)


def frames_behind(awaitable: Any) -> list[Any]:
    """Returns: The coroutines and generators with frames that an iterator stands for which has none, as in `async for`.

    It looks at types alone before it knows an object, so that no code of the application runs. Nothing is behind a
    future here: a task that is awaited has steps of its own.
    """
    if future_of(awaitable) is not None:
        return []
    behind = [awaitable]
    for found in behind:  # The list grows while it is iterated.
        if found is awaitable or type(found).__name__ in _ITERATORS:
            behind += gc.get_referents(found)[:_MAX_BEHIND] if len(behind) < _MAX_BEHIND else ()
    return [found for found in behind if has_frame(found)]


def has_frame(awaitable: Any) -> bool:
    """Returns: True for a coroutine or generator that has not ended; False for anything else."""
    _, frame, _ = _SUSPENDED.get(type(awaitable), _nothing)(awaitable)
    return frame is not None


def is_looking(places: Sequence[Place]) -> bool:
    """Returns: Whether a stack, with its innermost place first, is that of the thread that looked."""
    return bool(places) and places[0][0] is _in_one_step.__code__


def thread_ids() -> list[int]:
    """Returns: The ids of all threads. No frame is held for it, not even for a moment."""
    ids: list[int] = []
    innermost: dict[int, FrameType] = {}
    _in_one_step([*steps_into(innermost), map(ids.extend, (innermost,)), called(innermost.clear)])
    return ids


def _in_one_step(steps: list[Iterator[object]]) -> None:
    """Runs iterators of C functions to their ends, one after the other, in one call."""
    was_enabled: list[bool] = []
    if _ALLOCATION_COLLECTS:
        before = map(was_enabled.append, called(gc.isenabled))
        steps = [before, called(gc.disable), *steps, map(cast(Any, call), compress((gc.enable,), was_enabled))]
    try:
        deque(chain.from_iterable(steps), maxlen=0)
    except BaseException:
        if was_enabled == [True]:
            gc.enable()
        raise


def _outward(frames: Iterable[FrameType | None]) -> Iterator[FrameType]:
    """Returns: An iterator of a frame, the one that called it, and so on."""
    every: Any = accumulate(chain(cast(Iterable[Any], frames), repeat("f_back")), getattr)
    return takewhile(truth, every)
