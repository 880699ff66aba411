"""Reports what all threads of the process do, with stacks and waits: first the task's thread or coroutine."""

from __future__ import annotations

import linecache
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any, NamedTuple

from .frames import Look, Place, future_of, is_looking, thread_ids
from .greenlets import greenlet_places
from .own_threads import is_own_thread
from .sameness import Identity, SameTimes
from .stacks import AWAIT, Branch, Codes, CoroutineStacks, Stack
from .thread_state import ThreadStateReader, cpu_s, state_of_greenlet
from .waits.coroutines import awaited_wait, blocked_wait, executed_by_loop
from .waits.wait import State, ThreadState, Wait

#: The most threads that are reported, and the most branches of a coroutine.
_MAX_THREADS = 200
_MAX_BRANCHES = 20

#: The most frames of one stack; outer frames are left out.
_MAX_DEPTH = 100

#: The most characters of the name of a thread, function or file, and of a line of source.
_MAX_TEXT = 200

#: The most characters of what a wait says.
_MAX_DETAIL = 1000

#: An event loop that executes the same function after this time is blocked, in seconds.
_BLOCKED_S = 0.02

_NOT_KNOWN = ThreadState("blocked", Wait("unknown", None, "is a thread of which the kernel's id is not known"))


@dataclass(frozen=True, slots=True)
class Frame:
    """One call on a stack."""

    function: str
    file: str
    line: int
    "0 if unknown."
    source: str
    "The line of the file, without indentation; empty if it cannot be read."


@dataclass(frozen=True, slots=True)
class ThreadReport:
    """What a thread, or the coroutine of a task, does right now."""

    name: str
    is_task: bool
    "Whether it is the task's own thread or coroutine."
    state: State
    same_for_s: float
    "For how long consecutive looks have seen the same, in seconds; 0.0 at the first look."
    wait: Wait | None
    frames: tuple[Frame, ...]
    "The innermost first."


class ThreadReports:
    """Takes reports, and remembers between them for how long a thread has not moved.

    Parameters:
      reader: Reads the states of threads.
      clock: Gives seconds.
      blocked_s: How long it waits for an event loop to go on with another function, in seconds.
    """

    def __init__(
        self,
        reader: ThreadStateReader | None = None,
        clock: Callable[[], float] = time.monotonic,
        blocked_s: float = _BLOCKED_S,
    ) -> None:
        self._reader = reader or ThreadStateReader()
        self._times = SameTimes(clock)
        self._blocked_s = blocked_s

    @property
    def missing(self) -> str | None:
        """A sentence about what the last reports lack; None if they lack nothing."""
        return self._reader.missing

    def take(
        self,
        task_thread_id: int,
        coroutine: Coroutine[Any, Any, Any] | None = None,
        loop_thread_id: int | None = None,
    ) -> list[ThreadReport]:
        """Returns: The reports: the coroutine of an async actor or else the task's thread first, then other threads.

        It takes a few milliseconds; and twice 20 ms more, in which it gives up the GIL, where threads compete for the
        GIL or the event loop is busy with something else.

        Parameters:
          task_thread_id: The thread of the task, as `threading.get_ident` gives it.
          coroutine: The coroutine of an async actor.
          loop_thread_id: The thread that runs it.
        """
        self._times.begin()
        moment = _look(self._reader, coroutine, loop_thread_id or 0)
        reports = self._of_coroutine(moment)
        if coroutine is None and task_thread_id not in moment.stacks:
            reports.append(self._of_greenlet(task_thread_id))
        for thread_id in sorted(moment.stacks, key=lambda thread_id: thread_id != task_thread_id)[:_MAX_THREADS]:
            if thread_id == task_thread_id or not moment.is_own(thread_id):
                is_task = thread_id == task_thread_id and coroutine is None
                reports.append(self._of_thread(moment, thread_id, is_task))
        return reports

    def _of_thread(self, moment: _Moment, thread_id: int, is_task: bool) -> ThreadReport:
        places, state = moment.stacks[thread_id], moment.states.get(thread_id) or _NOT_KNOWN
        seen = (_key_of(places), state.wait and state.wait.call, moment.cpu_s(thread_id))
        same_for_s = self._times.same_for_s(thread_id, seen)
        return _report(moment.name(thread_id), is_task, state, same_for_s, places)

    def _of_greenlet(self, ident: int) -> ThreadReport:
        """Returns: The report of a task that has no thread of its own."""
        places = greenlet_places(ident)
        same_for_s = self._times.same_for_s("greenlet", _key_of(places))
        return _report("greenlet of the task", True, state_of_greenlet(places), same_for_s, places)

    def _of_coroutine(self, moment: _Moment) -> list[ThreadReport]:
        """Returns: The reports of the stacks of the task's coroutine; empty without one."""
        loop_state = moment.states.get(moment.loop_thread_id)
        executed = executed_by_loop(moment.stacks.get(moment.loop_thread_id, ()))
        is_blocked = bool(executed) and moment.awaits() and self._is_still(moment, len(executed))
        reports = []
        for number, branch in enumerate(moment.branches[:_MAX_BRANCHES]):
            places = _places_of(branch.stack, moment.codes)
            cpu = None
            if branch.awaitable is None:
                state, cpu = loop_state or ThreadState("running"), moment.cpu_s(moment.loop_thread_id)
            elif is_blocked:
                state = ThreadState("awaiting", blocked_wait(executed, loop_state))
            else:
                state = ThreadState("awaiting", awaited_wait(branch, places, loop_state))
            name = "coroutine of the task" + (f", branch {number + 1}" if len(moment.branches) > 1 else "")
            awaited = Identity(future_of(branch.awaitable) or branch.awaitable)
            reports.append(
                _report(name, True, state, self._times.same_for_s(name, (_key_of(places), awaited, cpu)), places)
            )
        return reports

    def _is_still(self, moment: _Moment, count: int) -> bool:
        """Returns: Whether the event loop, a little later, still executes the outermost of *count* functions."""
        time.sleep(self._blocked_s)
        look = Look()
        places, frames = look.thread(moment.loop_thread_id), look.thread_frame_ids(moment.loop_thread_id)
        look.take()
        executed = executed_by_loop(places)
        return bool(executed) and frames[len(executed) - 1] == moment.loop_frames[count - 1]


class _Moment(NamedTuple):
    """What one look has seen."""

    stacks: dict[int, list[Place]]
    "Thread id -> places, the innermost first."
    branches: list[Branch]
    codes: Codes
    loop_thread_id: int
    loop_frames: list[int]
    "The ids of the frames of the event loop's thread, the innermost first."
    threads: dict[int, threading.Thread]
    states: dict[int, ThreadState]

    def name(self, thread_id: int) -> str:
        thread = self.threads.get(thread_id)
        return thread.name if thread else "a thread that Python did not start"

    def cpu_s(self, thread_id: int) -> float | None:
        thread = self.threads.get(thread_id)
        return cpu_s(thread.native_id) if thread and thread.native_id else None

    def awaits(self) -> bool:
        """Returns: Whether the coroutine awaits something, and does not run itself."""
        return any(branch.awaitable is not None for branch in self.branches)

    def is_own(self, thread_id: int) -> bool:
        """Returns: Whether a thread is this package's own, or the one that looked."""
        return is_own_thread(self.name(thread_id)) or is_looking(self.stacks[thread_id])


def _look(reader: ThreadStateReader, coroutine: Coroutine[Any, Any, Any] | None, loop_thread_id: int) -> _Moment:
    look = Look()
    places = {thread_id: look.thread(thread_id) for thread_id in thread_ids()}
    frames = look.thread_frame_ids(loop_thread_id)
    awaited = None if coroutine is None else CoroutineStacks(look, coroutine, loop_thread_id)
    look.take()
    codes: Codes = {}
    branches = [] if awaited is None else awaited.branches(codes)
    stacks = {thread_id: found for thread_id, found in places.items() if found}
    threads = {thread.ident: thread for thread in threading.enumerate() if thread.ident in stacks}
    native = {thread_id: thread.native_id for thread_id, thread in threads.items() if thread.native_id}
    found = reader.read(native.values(), {native[thread_id]: stacks[thread_id] for thread_id in native})
    states = {thread_id: found[native[thread_id]] for thread_id in native if native[thread_id] in found}
    return _Moment(stacks, branches, codes, loop_thread_id, frames, threads, states)


def _key_of(places: Sequence[Place]) -> tuple[tuple[int, int | None], ...]:
    return tuple((id(code), line) for code, line in places)


def _places_of(stack: Stack, codes: Codes) -> list[Place]:
    """Returns: The places of a stack, the innermost first."""
    pairs = list(zip(stack[::2], stack[1::2], strict=True))
    return [(codes[key], line) for key, line in reversed(pairs) if key != AWAIT]


def _report(name: str, is_task: bool, state: ThreadState, same_for_s: float, places: Sequence[Place]) -> ThreadReport:
    frames = tuple(frame_of(*place) for place in places[:_MAX_DEPTH])
    wait = state.wait and replace(state.wait, detail=_clean(state.wait.detail[:_MAX_DETAIL]))
    return ThreadReport(_clean(name[:_MAX_TEXT]), is_task, state.state, same_for_s, wait, frames)


def frame_of(code: CodeType, line: int | None) -> Frame:
    """Returns: A call, with its line of source."""
    source = linecache.getline(code.co_filename, line).strip() if line else ""
    function, file = code.co_qualname[:_MAX_TEXT], code.co_filename[-_MAX_TEXT:]
    return Frame(_clean(function), _clean(file), line or 0, _clean(source[:_MAX_TEXT]))


def _clean(text: str) -> str:
    """Returns: The text without what no database keeps: zero bytes, and bytes of names that are not UTF-8."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
