"""`memray`: records allocations, to show which code allocated the memory that was held at the peak."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from operator import call
from pathlib import Path
from typing import Any

from dramatiq.asyncio import get_event_loop_thread

from ..errors import SkippedError
from ..runtime.gc_pause import GcPause
from ..runtime.interrupts import NotedCall, forget_interrupts, watch_interrupts
from ..runtime.profile_function import EveryThreadsProfileFunction, ProfileFunctionLook
from ..runtime.profile_hook import LOOP_THREAD, TASK_THREAD
from ..runtime.stacks import coroutine_function
from ..runtime.ticker import Timer
from .base import Collector, CollectorSettings, Options, Recording, RunContext, import_extra
from .services import Services

#: Seconds between checks of the size of an allocation profile.
_SIZE_INTERVAL_S = 0.25

#: Bytes of an object that Python's own allocator leaves to `malloc`, which memray records.
_RECORDED_BYTES = 1024

_REPLACED = (
    "The task replaced memray's profile function on its thread, as profilers do (`sys.setprofile`; cProfile before "
    "Python 3.12): its later allocations have no stacks, or wrong ones."
)


class MemrayOptions(Options):
    """Options of `memray`; see `memray.Tracker`."""

    native_traces: bool = False
    "Whether the stacks have the calls of C, C++ and Rust as well; the task then takes much more time."
    trace_python_allocators: bool = False
    "Whether objects of Python's own allocator count as well; the allocation profile is then many times as large."


class MemrayCollector(Collector):
    """`memray`: all allocations of the process while the task runs, recorded by one Tracker per process.

    Note:
      The main thread of the profile is the thread that started the Tracker: the task's own, or the ticker's if the
      recording began late. Then the task's thread has the name `TASK_THREAD` in it. For an async actor the event loop's
      thread has the name `LOOP_THREAD`. The file contains `sys.argv`.
    """

    name = "memray"
    artifact_name = "memray_profile"
    filename = "memray.bin"
    media_type = "application/octet-stream"
    options_class = MemrayOptions

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        self._memray = import_extra("memray")
        self.profile_function: ProfileFunctionLook | None = None
        self.first_function: EveryThreadsProfileFunction | None = None

    def open(self, services: Services) -> None:
        super().open(services)
        watch_interrupts(services.profile_hook, services.messages)
        self.first_function = first_function()
        self._start_and_stop()

    def close(self) -> None:
        forget_interrupts(self.services.profile_hook)

    def record(self, run: RunContext) -> Recording:
        return _MemrayRecording(self, run, self._memray)

    def _start_and_stop(self) -> None:
        """Starts and stops a Tracker that writes no file, before there are tasks.

        When memray meets greenlet for the first time (when a Tracker starts, or when greenlet is imported within one),
        it prints a notice by the rich package. An exception in that, such as a time limit, ends the process.
        """
        with suppress(ImportError):
            import_module("greenlet")
        tracker = self._memray.Tracker(destination=self._memray.FileDestination("/dev/null", overwrite=True))
        look = ProfileFunctionLook()
        try:
            with GcPause(), _silenced(), tracker:
                look.during()
            look.after()
            self.profile_function = look
        except RuntimeError as error:
            if not _is_second_tracker(error):  # Else the application has a Tracker: each run says so.
                raise


class _MemrayRecording(Recording):
    """One use of the Tracker.

    An interrupt may also strike within `Tracker.__enter__` and `Tracker.__exit__`, which call functions in Python. When
    one of them was cut short, `Tracker.__exit__` is called (again): it undoes whatever has been done.
    """

    runs_inline = True

    def __init__(self, collector: MemrayCollector, run: RunContext, memray: Any) -> None:
        self.collector = collector
        self.run = run
        self.memray = memray
        self.hook = collector.services.profile_hook
        self.max_bytes = int(collector.settings.memray_max_bytes)
        self.options = run.options(collector)
        self.path: Path = run.entry.path(collector.artifact_name)
        self.pause = GcPause()
        self.lock = threading.Lock()
        self.tracker: Any = None
        self.entry_call: NotedCall | None = None
        self.exit_call: NotedCall | None = None
        self.settled = False
        self.is_second_tracker = False
        self.unwanted: str | None = None
        "Why it was ended while it was being started."
        self.timer = Timer(_SIZE_INTERVAL_S, self._check_size)
        self.started = 0.0

    def start(self) -> None:
        if not self.run.is_executing:
            # The next steps take time, and the run is to be known if the process dies meanwhile.
            self.run.write_start()
        wait_s = 0.0 if self.run.is_executing else self.collector.settings.memray_wait
        reason = self.hook.acquire_exclusive(self, self.run.task_id, wait_s)
        if reason is not None:
            raise SkippedError(reason)
        try:
            present = sys.getprofile()
            if present is not None and not callable(present):  # The Tracker could not set it again when it ends.
                raise SkippedError(f"Another profiler is active on this thread: {present!r:.100}.")
            # Only this format stays readable after SIGKILL. Compressing would take place on the stopping thread.
            self.tracker = self.memray.Tracker(
                destination=self.memray.FileDestination(self.path, compress_on_exit=False),
                file_format=self.memray.FileFormat.ALL_ALLOCATIONS,
                native_traces=self.options.native_traces,
                trace_python_allocators=self.options.trace_python_allocators,
            )
            self.path.chmod(0o600)
            # Making it may have taken longer than an interrupt waits.
            if (reason := self.unwanted or self.hook.reason_against_start()) is not None:
                raise SkippedError(reason)
        except Exception:
            self.settled = True
            self._forget()
            raise
        assert self.collector.first_function is not None
        self.entry_call = NotedCall(self.tracker.__enter__, self.collector.first_function.setting())
        self.enter = self.entry_call.make
        self.pause.begin()  # Right before `enter`.

    def entered(self, error: Exception | None) -> None:
        self.pause.end()
        self.is_second_tracker = _is_second_tracker(error)
        self.settled = True
        if error is not None:
            self._end()
            if self.is_second_tracker:
                raise SkippedError(f"The application itself uses memray: {error}") from error
            raise error
        if self.unwanted is not None:
            self._end(self.unwanted)
            return
        self.started = time.perf_counter()
        if self.run.is_executing:
            _name_thread(TASK_THREAD, self.run.thread_id)
        loop_thread = get_event_loop_thread()
        if loop_thread is not None and coroutine_function(self.run.actor) is not None:
            _name_thread(LOOP_THREAD, loop_thread.ident)
        self.collector.services.ticker.add(self.timer)

    def stop(self) -> None:
        self.is_second_tracker = self.is_second_tracker or _is_second_tracker(self.run.enter_error)
        self.settled = True
        self.timer.cancel()
        look = self.collector.profile_function
        with self.lock:
            if self.started and self.tracker is not None and look is not None and look.was_replaced():
                self.reason = _REPLACED
        self._end()

    def end_early(self, reason: str) -> None:
        self.timer.cancel()
        self.unwanted = reason  # Then the look whether it has started: so one of the two threads sees the other's note.
        if self.settled:
            self._end_elsewhere(reason)

    def _check_size(self) -> None:
        if self.path.stat().st_size > self.max_bytes:
            self.timer.cancel()
            elapsed_s = time.perf_counter() - self.started
            self._end_elsewhere(
                f"The allocation profile was ended after {elapsed_s:.1f} s, at its limit of {self.max_bytes} bytes."
            )

    def _end_elsewhere(self, reason: str) -> None:
        before = sys.getprofile()
        self._end(reason)
        sys.setprofile(before)  # The Tracker has set this to what it found on the thread that started it.

    def _end(self, reason: str | None = None) -> None:
        """Ends the Tracker if there is one; repeated after an interrupt in it."""
        with self.lock:
            try:
                if self.tracker is not None and self.entry_call is not None and not self.is_second_tracker:
                    self.reason = reason or self.reason
                    self._exit(self.tracker)
            except Exception:
                self._forget()
                raise
            self._forget()

    def _exit(self, tracker: Any) -> None:
        assert self.entry_call is not None
        if not self.entry_call.has_begun or (self.exit_call is not None and self.exit_call.has_returned):
            return
        self.exit_call = NotedCall(partial(tracker.__exit__, None, None, None))
        with self.pause:
            self.exit_call.make()

    def _forget(self) -> None:
        """Drops the Tracker, after its end, and gives back what the recording holds."""
        self.tracker = self.enter = None
        self.entry_call = self.exit_call = None
        self.pause.end()  # An interrupt may have come before `entered`.
        self.hook.release(self)


@contextmanager
def _silenced() -> Iterator[None]:
    """Keeps memray's notice on greenlet from being printed."""
    names = vars(sys.modules["memray._memray"])
    original = names.get("pprint")
    names["pprint"] = lambda *_, **__: None
    try:
        yield
    finally:
        names["pprint"] = original


def _is_second_tracker(error: Exception | None) -> bool:
    """Returns: Whether a Tracker did nothing because another one is active."""
    return isinstance(error, RuntimeError) and "one Tracker" in str(error)


def _name_thread(name: str, thread_id: int | None) -> None:
    """Gives a thread a name in the allocation profile, which is being recorded, and nowhere else.

    memray notes a name as soon as a `Thread` has a name and an id. This `Thread` is never started, so nobody sees it.
    """
    threading.Thread(name=name)._ident = thread_id  # type: ignore[attr-defined]


def first_function() -> EveryThreadsProfileFunction:
    """Makes the profile function that each thread gets first when a Tracker has started.

    With it a Tracker records the thread as if the thread had begun just then. By itself memray 1.20 notes the stacks of
    all threads when a Tracker starts. If such a thread has allocated with the noted stack, its first call or return
    writes into the file without memray's lock. Meanwhile other threads may allocate without the GIL, as in SQLite, and
    write with the lock. Two writers damage the file, or end the process by SIGSEGV or SIGBUS: once in some 1,000
    Trackers beside three threads that used SQLite.

    With any other profile function than memray's, an allocation makes memray drop the noted stack, with the lock. Then
    memray's function for new threads notes the stack anew, and sets memray's own profile function.
    """
    start_thread_trace = import_module("memray._memray").start_thread_trace

    def begin(*_: object) -> None:
        bytearray(_RECORDED_BYTES)  # Drops the noted stack.
        # memray's function is not called from here, as the frame of this one would be noted too. The end of the Tracker
        # takes this function away; all of the look and the change is C code, so that does not happen in between.
        deque(map(sys.setprofile, map(following.get, map(call, (sys.getprofile,)))), 0)

    following: Any = {begin: start_thread_trace}
    return EveryThreadsProfileFunction(begin)
