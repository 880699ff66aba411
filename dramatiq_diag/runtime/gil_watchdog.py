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
from pathlib import Path
from typing import NamedTuple

from .frames import Look, Place, thread_ids
from .thread_report import Frame, frame_of
from .thread_state import ThreadStateReader, cpu_s
from .waits.kernel_files import KernelFiles

#: A look that comes so late, in seconds, means that no Python code ran.
LEAST_S = 2.0

#: Seconds between the readings of what the threads have used.
_READ_S = 0.25

#: A thread that waits for the GIL wakes up once in each switch interval; a machine that is busy lets it do so less
#: often, but at least in this part of the intervals. The interval in seconds is the least that counts.
_WAKES = 0.02
_INTERVAL_S = 0.005

#: A thread that waited less than this part of what the looking thread waited may have kept the GIL.
_FEW = 0.5

#: A thread that wakes up in less than this part of the intervals waits for a processor as well. On such a machine the
#: threads may have passed the GIL on, each after a long wait for a processor, and the looking thread came late.
_STARVED = 0.9

#: The thread that was on a processor for this part of the time, where no other had half as much, kept the GIL. The
#: processors may be shared with many; a thread that waits for the GIL needs a fraction of a per cent.
_BUSY = 0.05
_CLEARLY = 2.0

#: A `/proc/self/task/<id>/status` is shorter.
_STATUS_BYTES = 8192

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
    waits: int | None
    "How often it has waited for something, the GIL included; None where the kernel does not tell."


class GilWatchdog:
    """Finds such times; all on one thread, which calls `look` many times in `least_s`.

    Parameters:
      clock: Gives seconds.
      least_s: A look that comes so late means that no Python code ran.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, least_s: float = LEAST_S) -> None:
        self._clock = clock
        self._states = ThreadStateReader(measured_s=0.0)
        # To get the GIL again after each file takes long beside threads that compute, and wakes this one up many times.
        self._files = KernelFiles(Path("/"), keeps_gil=True)
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

    def look(self) -> GilStall | None:
        """Looks at the time that has passed since the last look.

        Returns:
          The stall that ends now; None if there is none.
        """
        now, looked_at = self._clock(), self._looked_at
        stall = None
        if looked_at is not None and now - looked_at >= self._least_s:
            stall = self._find(looked_at, now)
        if stall is not None or looked_at is None or now >= self._read_at:
            self._threads = {thread.ident: thread for thread in self._read()}
            self._read_at = now + _READ_S
        self._wakes = _own_wakes()
        self._looked_at = self._clock()
        return stall

    def _find(self, looked_at: float, now: float) -> GilStall | None:
        seconds = now - looked_at
        stacks = _stacks()  # First: the next call that gives up the GIL lets the thread go on.
        wakes = _own_wakes() - self._wakes
        if wakes < _WAKES * seconds / max(sys.getswitchinterval(), _INTERVAL_S):
            return None  # This thread itself was late: it waited for a disk, or the process was paused.
        natives = {thread.ident: thread.native_id for thread in self._threads.values()}
        places_of = {natives[ident]: places for ident, places in stacks.items() if ident in natives}
        states = self._states.read(places_of, places_of)
        awake = {native_id for native_id, state in states.items() if state.state != "blocked"}
        suspects = self._suspects(seconds, self._clock() - now, wakes, awake)
        if not suspects and wakes < _STARVED * seconds / sys.getswitchinterval():
            return None  # All threads had to wait for the GIL, so it went from one to the other.
        keeper = _keeper(suspects, seconds)
        places = [] if keeper is None else stacks.get(keeper.ident, [])
        return GilStall(
            seconds=seconds,
            ended_at=datetime.now(UTC),
            thread_name=None if keeper is None else keeper.name,
            thread_id=None if keeper is None else keeper.ident,
            frames=[frame_of(*place) for place in places[:MAX_DEPTH]],
        )

    def _suspects(
        self, seconds: float, late_s: float, wakes: int, awake: Collection[int]
    ) -> list[tuple[float, _Thread]]:
        """Returns: The threads that may have kept the GIL, each behind the CPU time that it used, the busiest first.

        Such a thread ran, and seldom waited: threads that compete for the GIL wait for it about as often as this one.
        If it is blocked by now, it was busy.

        Parameters:
          seconds: The length of the stall.
          late_s: How long after its end the threads are read. The one that kept the GIL waits for it by then.
          wakes: How often this thread waited meanwhile.
          awake: The native ids of the threads that ran, or waited for the GIL, right after the stall; empty where that
            cannot be told.
        """
        few = _FEW * wakes + late_s / sys.getswitchinterval()
        pairs = [(now, self._threads[now.ident]) for now in self._read() if now.ident in self._threads]
        used = [
            (now.cpu_s - before.cpu_s, now)
            for now, before in pairs
            if now.waits is None or before.waits is None or now.waits - before.waits < few
        ]
        may = [
            (cpu_s, thread)
            for cpu_s, thread in used
            if cpu_s > 0 and (thread.native_id in awake or not awake or cpu_s >= _BUSY * seconds)
        ]
        return sorted(may, key=itemgetter(0), reverse=True)

    def _read(self) -> list[_Thread]:
        """Reads what the other threads have used so far. It does not give up the GIL."""
        own = threading.get_ident()
        return [
            _Thread(ident, native_id, thread.name, cpu_s(native_id) or 0.0, self._waits(native_id))
            for thread in threading.enumerate()
            if (ident := thread.ident) is not None and (native_id := thread.native_id) is not None and ident != own
        ]

    def _waits(self, native_id: int) -> int | None:
        """Returns: See `_Thread`; None also for a thread that has ended."""
        status = self._files.read(f"proc/self/task/{native_id}/status", _STATUS_BYTES)
        _, found, rest = status.rpartition(b"\nvoluntary_ctxt_switches:")
        return int(rest.split()[0]) if found else None


def _keeper(suspects: Sequence[tuple[float, _Thread]], seconds: float) -> _Thread | None:
    """Returns: The only suspect, or the one that was clearly the busiest; None where that is not certain."""
    if len(suspects) == 1:
        return suspects[0][1]
    if suspects and suspects[0][0] >= max(_BUSY * seconds, _CLEARLY * suspects[1][0]):
        return suspects[0][1]
    return None


def _stacks() -> dict[int, list[Place]]:
    look = Look()
    stacks = {thread_id: look.thread(thread_id) for thread_id in thread_ids()}
    look.take()
    return stacks


def _own_wakes() -> int:
    """Returns: How often this thread has waited for something so far. It does not give up the GIL."""
    import resource  # Windows has none.

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
