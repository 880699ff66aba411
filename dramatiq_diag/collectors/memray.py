"""`memray`: who allocated what was held at the peak."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

from ..errors import SkippedError, UnavailableError
from ..frames import GarbagePause
from ..hook import TASK_THREAD
from ..run import Run
from ..settings import Settings
from ..ticker import Timer
from .base import Collector, Options, Recording

#: Seconds between looks at the size of a capture.
_LOOK_INTERVAL_S = 0.25


class MemrayOptions(Options):
    """What a request may say of `memray`: see `memray.Tracker`."""

    native_traces: bool = False
    "Whether the stacks have the calls of C, C++ and Rust as well; that takes the task a good deal more time."
    trace_python_allocators: bool = False
    "Whether each object counts that Python's own allocator gives out: a capture many times as large."


class MemrayCollector(Collector):
    """`memray`: a capture of all allocations of the process while the task runs, made by one Tracker per process.

    Note:
      The capture's main thread is the task's thread (the worker thread, for an async actor); that of one which began
      late is our own, and the task's has the name `TASK_THREAD` in it. It holds `sys.argv`.
    """

    name = "memray"
    artifact_name = "memray_profile"
    filename = "memray.bin"
    media_type = "application/octet-stream"
    options_class = MemrayOptions

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        try:
            import memray
        except ImportError as error:
            raise UnavailableError(
                f"memray is not installed ({error}); install it with: pip install 'dramatiq_diag[memray]'"
            ) from error
        self._memray = memray

    def record(self, run: Run) -> Recording:
        return _MemrayRecording(self, run, self._memray)


class _MemrayRecording(Recording):
    quick = True

    def __init__(self, collector: MemrayCollector, run: Run, memray: Any) -> None:
        self.collector = collector
        self.run = run
        self.memray = memray
        self.hook = collector.process.profile_hook
        self.max_bytes = int(collector.settings.memray_max_bytes)
        self.options = run.options(collector)
        self.path: Path = run.entry.path(collector.artifact_name)
        self.pause = GarbagePause()
        self.lock = threading.Lock()
        self.tracker: Any = None
        self.timer = Timer(_LOOK_INTERVAL_S, self._look)
        self.started = 0.0

    def start(self) -> None:
        if not self.run.is_executing:
            # What follows takes its time, and the run is to be known if the process dies meanwhile.
            self.run.entry.write()
        wait_s = 0.0 if self.run.is_executing else self.collector.settings.memray_wait
        refusal = self.hook.take(self, self.run.task_id, wait_s)
        if refusal is not None:
            raise SkippedError(refusal)
        try:
            # Only this format stays readable after SIGKILL. Compressing would take place on the stopping thread.
            self.tracker = self.memray.Tracker(
                destination=self.memray.FileDestination(self.path, compress_on_exit=False),
                file_format=self.memray.FileFormat.ALL_ALLOCATIONS,
                native_traces=self.options.native_traces,
                trace_python_allocators=self.options.trace_python_allocators,
            )
            self.path.chmod(0o600)
        except Exception:
            self._give_up()
            raise
        self.enter = self.tracker.__enter__
        self.pause.begin()  # A Tracker goes through all threads; right before `enter`.

    def entered(self, error: Exception | None) -> None:
        self.pause.end()
        if error is not None:
            self._give_up()
            if isinstance(error, RuntimeError):
                raise SkippedError(f"The application itself uses memray: {error}") from error
            raise error
        self.started = time.perf_counter()
        if self.run.is_executing:
            self._name_thread()
        self.collector.process.ticker.add(self.timer)

    def _name_thread(self) -> None:
        """Tells the capture which thread is the task's, as this is another one.

        memray notes a name when a `Thread` has both that and an id, and this one is never started: nobody else sees it.
        """
        threading.Thread(name=TASK_THREAD)._ident = self.run.thread_id  # type: ignore[attr-defined]

    def _give_up(self) -> None:
        self.tracker = self.enter = None
        self.hook.release(self)

    def stop(self) -> None:
        self.pause.end()  # Where an interrupt came before `entered`.
        self.timer.cancel()
        self._end()

    def _look(self) -> None:
        if self.path.stat().st_size > self.max_bytes:
            self.timer.cancel()
            elapsed_s = time.perf_counter() - self.started
            before = sys.getprofile()
            self._end(f"The capture was ended after {elapsed_s:.1f} s, at its limit of {self.max_bytes} bytes.")
            sys.setprofile(before)  # The Tracker restored here what it had found on the task's thread.

    def _end(self, reason: str | None = None) -> None:
        with self.lock:
            tracker, self.tracker, self.enter = self.tracker, None, None
            try:
                if tracker is not None:
                    self.reason = reason
                    self.pause.begin()
                    tracker.__exit__(None, None, None)
            finally:
                self.pause.end()
                self.hook.release(self)
