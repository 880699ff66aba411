"""Notices that no Python code ran for seconds, and finds the thread that kept the GIL meanwhile.

It finds out afterwards, at the first look that gets the GIL again. `faulthandler.dump_traceback_later` would write the
stacks meanwhile, without the GIL, and was rejected. It cannot know whether Python runs: where the process was paused,
or the thread that renews the timer waits for a disk, it reads the stacks of threads that run. Such dumps crashed Python
3.11.7, 3.12.1 and 3.13.0, each within fifty of them. And a process that is forked while the timer is armed hangs when
it ends.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import NamedTuple

from .frames import Look, Place, thread_ids
from .schedstat import Schedstat
from .thread_report import Frame, frame_of
from .thread_state import ThreadStateReader, cpu_s

#: A look that comes so late, in seconds, means that no Python code ran.
LEAST_S = 2.0

#: Seconds between the readings of what the threads have used.
_READ_S = 0.25

#: A thread that waits for the GIL wakes up once in each switch interval; a machine that is busy lets it do so less
#: often, but at least in this part of the intervals. The interval in seconds is the least that counts.
_WAKES = 0.05
_INTERVAL_S = 0.005

#: The thread that was on a processor for this part of the time, where no other had half as much, kept the GIL. The
#: processors may be shared with many; a thread that waits for the GIL needs a fraction of a per cent.
_BUSY = 0.05
_CLEARLY = 2.0

#: The most frames of the thread.
MAX_DEPTH = 50


@dataclass(frozen=True, kw_only=True)
class GilStall:
    """A time in which no Python code ran."""

    seconds: float
    ended_at: datetime
    thread_name: str | None
    "Of the thread that kept the GIL; None where that is not known."
    thread_id: int | None
    frames: Sequence[Frame] = ()
    "Where that thread was when it gave the GIL up, the innermost first; empty where that is not known."

    @property
    def text(self) -> str:
        """A sentence for a developer."""
        what = f"No Python code ran in this process for {self.seconds:.1f} s, until {self.ended_at:%H:%M:%S} UTC: "
        if self.thread_name is None:
            return f"{what}C code kept the GIL; it is not known which thread it was."
        who = f"the thread {self.thread_name!r} kept the GIL in C code"
        if not self.frames:
            return f"{what}{who}; its task had ended before its stack could be read, so the call is not known."
        where = ", called by ".join(f"{frame.function} at {frame.file}:{frame.line}" for frame in self.frames[:2])
        return f"{what}{who}, called by {where}."


class _Thread(NamedTuple):
    """A thread, and what it has used so far."""

    ident: int
    native_id: int
    name: str
    cpu_s: float
    turns: int | None
    "How often it came onto a processor; None for a thread without a task, and where the kernel does not tell."


class GilWatchdog:
    """Finds such times; all on one thread, which calls `look` many times in `least_s`.

    Parameters:
      clock: Gives seconds.
      least_s: A look that comes so late means that no Python code ran.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, least_s: float = LEAST_S) -> None:
        self._clock = clock
        self._states = ThreadStateReader(measured_s=0.0)
        self._least_s = least_s
        self._looked_at: float | None = None
        self._wakes = 0
        "How often this thread had waited for something at the last look."
        self._read_at = 0.0
        self._threads: dict[int, _Thread] = {}
        "Ident -> each thread at the last reading."

    def rest(self) -> None:
        """Makes the next look the first one: nobody looked for a while."""
        self._looked_at = None

    def look(self, task_threads: Collection[int]) -> GilStall | None:
        """Looks at the time that has passed since the last look.

        Parameters:
          task_threads: The ids of the threads that execute tasks.

        Returns:
          The stall that ends now; None if there is none.
        """
        now, looked_at = self._clock(), self._looked_at
        stall = None
        if looked_at is not None and now - looked_at >= self._least_s:
            stall = self._find(looked_at, now, task_threads)
        if stall is not None or looked_at is None or now >= self._read_at:
            self._threads = {thread.ident: thread for thread in _threads(task_threads)}
            self._read_at = now + _READ_S
        self._wakes = _own_wakes()
        self._looked_at = self._clock()
        return stall

    def _find(self, looked_at: float, now: float, task_threads: Collection[int]) -> GilStall | None:
        seconds = now - looked_at
        stacks = _stacks()  # First: the next call that gives up the GIL lets the thread go on.
        if not _waited_for_gil(_own_wakes() - self._wakes, seconds):
            return None  # This thread itself was late: it waited for a disk, or the process was paused.
        natives = {thread.ident: thread.native_id for thread in self._threads.values()}
        of_tasks = {natives[ident]: stacks[ident] for ident in task_threads if ident in natives and ident in stacks}
        states = self._states.read(of_tasks, of_tasks)
        awake = {native_id for native_id, state in states.items() if state.state != "blocked"}
        threads = _threads(task_threads)
        keeper = self._keeper(seconds, self._clock() - now, threads, awake)
        places = [] if keeper is None else stacks.get(keeper.ident, [])
        return GilStall(
            seconds=seconds,
            ended_at=datetime.now(UTC),
            thread_name=None if keeper is None else keeper.name,
            thread_id=None if keeper is None else keeper.ident,
            frames=[frame_of(*place) for place in places[:MAX_DEPTH]],
        )

    def _keeper(
        self, seconds: float, late_s: float, threads: Collection[_Thread], awake: Collection[int]
    ) -> _Thread | None:
        """Returns: The thread that was busy; else the one with a task that neither waited for the GIL nor is blocked.

        Parameters:
          seconds: The length of the stall.
          late_s: How long after its end the threads were read. The one that kept the GIL waits for it by then.
          threads: The threads now.
          awake: The native ids of those with a task that ran, or waited for the GIL, right after the stall; empty
            where that cannot be told.
        """
        pairs = [(thread, self._threads[thread.ident]) for thread in threads if thread.ident in self._threads]
        used = sorted(((now.cpu_s - before.cpu_s, now) for now, before in pairs), key=itemgetter(0), reverse=True)
        if used and used[0][0] >= _BUSY * seconds:
            return used[0][1] if len(used) == 1 or used[0][0] >= _CLEARLY * used[1][0] else None
        since = late_s / sys.getswitchinterval()
        quiet = [
            now
            for now, before in pairs
            if now.turns is not None and before.turns is not None
            if not _waited_for_gil(now.turns - before.turns - since, seconds) and (now.native_id in awake or not awake)
        ]
        return quiet[0] if len(quiet) == 1 else None


def _stacks() -> dict[int, list[Place]]:
    look = Look()
    stacks = {thread_id: look.thread(thread_id) for thread_id in thread_ids()}
    look.take()
    return stacks


def _waited_for_gil(wakes: float, seconds: float) -> bool:
    return wakes >= _WAKES * seconds / max(sys.getswitchinterval(), _INTERVAL_S)


def _own_wakes() -> int:
    """Returns: How often this thread has waited for something so far. It does not give up the GIL."""
    import resource  # Windows has none.

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _threads(task_threads: Collection[int]) -> list[_Thread]:
    own = threading.get_ident()
    return [
        _Thread(
            ident, native_id, thread.name, cpu_s(native_id) or 0.0, _turns(native_id) if ident in task_threads else None
        )
        for thread in threading.enumerate()
        if (ident := thread.ident) is not None and (native_id := thread.native_id) is not None and ident != own
    ]


def _turns(native_id: int) -> int | None:
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", "rb", buffering=0) as file:
            counted = Schedstat.parse(file.read(256))
    except OSError:  # The thread has ended.
        return None
    return None if counted is None else counted.turns
