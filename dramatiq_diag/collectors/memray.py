"""`memray`: who allocated what was held at the peak."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib import import_module
from operator import call
from pathlib import Path
from typing import Any

from dramatiq.asyncio import get_event_loop_thread

from ..errors import SkippedError, UnavailableError
from ..runtime.frames import GarbagePause
from ..runtime.interrupts import forget_interrupts, watch_interrupts
from ..runtime.profile_hook import LOOP_THREAD, TASK_THREAD
from ..runtime.stacks import coroutine_function
from ..runtime.thread_state import ProfileFunctionLook
from ..runtime.ticker import Timer
from .base import Collector, CollectorSettings, Options, Recording, RunContext
from .services import Services

#: Seconds between looks at the size of a capture.
_LOOK_INTERVAL_S = 0.25

#: What `_noting` leaves where it was not interrupted.
_NOTES = 2

_REPLACED = (
    "The task replaced memray's profile function on its thread, as profilers do (`sys.setprofile`; cProfile before "
    "Python 3.12): what it allocated from then on has no stacks, or wrong ones."
)


class MemrayOptions(Options):
    """What a request may say of `memray`: see `memray.Tracker`."""

    native_traces: bool = False
    "Whether the stacks have the calls of C, C++ and Rust as well; that takes the task a good deal more time."
    trace_python_allocators: bool = False
    "Whether each object counts that Python's own allocator gives out: a capture many times as large."


class MemrayCollector(Collector):
    """`memray`: a capture of all allocations of the process while the task runs, made by one Tracker per process.

    Note:
      The capture's main thread is the one that started the Tracker: the task's own thread, or the ticker's where the
      capture began late; then the task's thread has the name `TASK_THREAD` in it. For an async actor the event loop's
      thread has the name `LOOP_THREAD`. A capture holds `sys.argv`.
    """

    name = "memray"
    artifact_name = "memray_profile"
    filename = "memray.bin"
    media_type = "application/octet-stream"
    options_class = MemrayOptions

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        try:
            import memray
        except ImportError as error:
            raise UnavailableError(
                f"memray is not installed ({error}); install it with: pip install 'dramatiq_diag[memray]'"
            ) from error
        self._memray = memray
        self.profile_function: ProfileFunctionLook | None = None

    def open(self, services: Services) -> None:
        super().open(services)
        watch_interrupts(services.profile_hook)
        self._start_and_stop()

    def close(self) -> None:
        forget_interrupts(self.services.profile_hook)

    def record(self, run: RunContext) -> Recording:
        return _MemrayRecording(self, run, self._memray)

    def _start_and_stop(self) -> None:
        """Starts and stops a Tracker that writes no file, before there are tasks.

        When memray meets greenlet for the first time (where a Tracker starts, or where greenlet is imported within
        one), it prints a notice by the rich package. An exception in that, such as a time limit, ends the process.
        """
        with suppress(ImportError):
            import_module("greenlet")
        tracker = self._memray.Tracker(destination=self._memray.FileDestination("/dev/null", overwrite=True))
        pause = GarbagePause()
        pause.begin()
        try:
            look = ProfileFunctionLook()
            with _silenced(), tracker:
                look.during()
            look.after()
            self.profile_function = look
        except RuntimeError as error:
            if not _is_refusal(error):  # Else the application has a Tracker: each run is told so.
                raise
        finally:
            pause.end()


class _MemrayRecording(Recording):
    """A capture.

    An interrupt may strike the task's thread between any two instructions, also within `Tracker.__enter__` and
    `Tracker.__exit__`, which call functions in Python. So both are called by code in C that notes in a list how far it
    came: an item before, and one after. Where only the first is there, `Tracker.__exit__` is called (again): it undoes
    whatever has been done.
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
        self.pause = GarbagePause()
        self.lock = threading.Lock()
        self.tracker: Any = None
        self.entering: list[Any] = []
        self.exiting: list[Any] = []
        self.settled = False
        self.refused = False
        self.timer = Timer(_LOOK_INTERVAL_S, self._look)
        self.started = 0.0

    def start(self) -> None:
        if not self.run.is_executing:
            # What follows takes its time, and the run is to be known if the process dies meanwhile.
            self.run.write_start()
        wait_s = 0.0 if self.run.is_executing else self.collector.settings.memray_wait
        refusal = self.hook.acquire_exclusive(self, self.run.task_id, wait_s)
        if refusal is not None:
            raise SkippedError(refusal)
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
            if (refusal := self.hook.refusal_of_interrupts()) is not None:
                raise SkippedError(refusal)
        except Exception:
            self._give_up()
            raise
        self.enter = _noting(self.tracker.__enter__, self.entering)
        self.pause.begin()  # A Tracker goes through all threads; right before `enter`.

    def entered(self, error: Exception | None) -> None:
        self.pause.end()
        self.refused = _is_refusal(error)
        self.settled = True
        if error is not None:
            self._end()
            if self.refused:
                raise SkippedError(f"The application itself uses memray: {error}") from error
            raise error
        self.started = time.perf_counter()
        if self.run.is_executing:
            _name_thread(TASK_THREAD, self.run.thread_id)
        loop_thread = get_event_loop_thread()
        if loop_thread is not None and coroutine_function(self.run.actor) is not None:
            _name_thread(LOOP_THREAD, loop_thread.ident)
        self.collector.services.ticker.add(self.timer)

    def stop(self) -> None:
        self.pause.end()  # Where an interrupt came before `entered`.
        self.refused = self.refused or _is_refusal(self.run.enter_error)
        self.settled = True
        self.timer.cancel()
        self._look_at_profile_function()
        self._end()

    def _look_at_profile_function(self) -> None:
        look = self.collector.profile_function
        with self.lock:
            if self.started and self.tracker is not None and look is not None and look.was_replaced():
                self.reason = _REPLACED

    def end_early(self, reason: str) -> None:
        self.timer.cancel()
        self._end_elsewhere(reason)

    def _look(self) -> None:
        if self.path.stat().st_size > self.max_bytes:
            self.timer.cancel()
            elapsed_s = time.perf_counter() - self.started
            self._end_elsewhere(
                f"The capture was ended after {elapsed_s:.1f} s, at its limit of {self.max_bytes} bytes."
            )

    def _end_elsewhere(self, reason: str) -> None:
        before = sys.getprofile()
        self._end(reason)
        sys.setprofile(before)  # The Tracker restored here what it had found on the thread that started it.

    def _end(self, reason: str | None = None) -> None:
        """Ends the Tracker if there is one; after an interrupt in it, it has to be called again."""
        with self.lock:
            try:
                if self.tracker is not None and self.entering and not self.refused:
                    self.reason = reason or self.reason
                    self._exit(self.tracker)
            except Exception:
                self._forget()
                raise
            self._forget()

    def _forget(self) -> None:
        self.tracker = self.enter = None
        self.entering.clear()
        self.hook.release(self)

    def _give_up(self) -> None:
        self.settled = True
        self._forget()

    def _exit(self, tracker: Any) -> None:
        if len(self.exiting) == _NOTES:  # An interrupt struck after it had returned.
            return
        self.exiting.clear()
        self.pause.begin()
        try:
            _noting(partial(tracker.__exit__, None, None, None), self.exiting)()
        finally:
            self.pause.end()


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


def _noting(function: Callable[[], object], notes: list[Any]) -> Callable[[], object]:
    """Returns: A call of the function that appends an item to the notes before it, and another one after it.

    Between those three there is no instruction of Python, and so no interrupt.
    """
    functions: tuple[Callable[[], object], ...] = (int, function)
    return partial(notes.extend, map(call, functions))


def _is_refusal(error: Exception | None) -> bool:
    """Returns: Whether a Tracker did nothing because another one is active."""
    return isinstance(error, RuntimeError) and "one Tracker" in str(error)


def _name_thread(name: str, thread_id: int | None) -> None:
    """Gives a thread a name in the capture, which is being made, and nowhere else.

    memray notes a name when a `Thread` has both that and an id, and this one is never started: nobody else sees it.
    """
    threading.Thread(name=name)._ident = thread_id  # type: ignore[attr-defined]
