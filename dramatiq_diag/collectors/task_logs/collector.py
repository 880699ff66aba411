"""`logs` and `debug-logs`: record the log messages of a task's own code."""

from __future__ import annotations

import logging
import threading
from typing import Annotated, ClassVar

from pydantic import ByteSize, Field

from ...errors import GUARDED, SkippedError
from ...runtime.stacks import coroutine_function
from ..base import Collector, CollectorSettings, Options, Recording, RunContext
from ..names import MAX_LOG_BYTES
from .format import text_of
from .tap import LogTap, RunLog

#: The deepest nesting of records that are logged while the message of another one is formatted, as by an ORM.
_MAX_NESTED = 4


class LogsOptions(Options):
    """Options of `logs` and `debug-logs`."""

    max_bytes: Annotated[ByteSize, Field(gt=0, le=MAX_LOG_BYTES)] | None = None
    "The size at which the log ends, up to 64 MiB; without it DRAMATIQ_DIAG_LOGS_MAX_BYTES."


class LogsCollector(Collector):
    """`logs`: the records of the run's thread or coroutine that pass the levels of their loggers.

    Note:
      Code with the run's context belongs to the run: tasks that its coroutine creates, and `asyncio.to_thread`. A
      thread that it starts does not. A log that began in the middle of a run has the records of its thread alone.
    """

    name = "logs"
    artifact_name = "task_logs"
    filename = "task.log"
    media_type = "text/plain"
    options_class = LogsOptions

    debug: ClassVar[bool] = False
    "Whether the log has all records from DEBUG on, whatever the levels of the loggers."

    def __init__(self, settings: CollectorSettings) -> None:
        super().__init__(settings)
        self.tap = LogTap(debug=self.debug)

    def record(self, run: RunContext) -> Recording:
        return _LogsRecording(self, run)

    def close(self) -> None:
        self.tap.close()


class DebugLogsCollector(LogsCollector):
    """`debug-logs`: as `logs`, with all records from DEBUG on. Handlers of the application see no more than before.

    Note:
      `isEnabledFor` is true for the run's own code. `logging.disable` and disabled loggers stay as they are.
    """

    name = "debug-logs"
    debug = True


class _LogsRecording(Recording):
    runs_inline = True

    def __init__(self, collector: LogsCollector, run: RunContext) -> None:
        self.collector = collector
        self.run = run
        asked_bytes = run.options(collector).max_bytes
        self.max_bytes = int(collector.settings.logs_max_bytes if asked_bytes is None else asked_bytes)
        self.size_bytes = 0
        self.left_out = self.lost = 0
        self.stopped = False
        self.log = RunLog(collector.tap, self._write, run.thread_id)
        self.depths: dict[int, int] = {}
        "Thread id -> the number of records that are being formatted there."
        # Reentrant: a finaliser that the garbage collector runs in here may log as well, on this thread.
        self.lock = threading.RLock()

    def start(self) -> None:
        if self.run.is_executing:
            self._check_late()
        self.run.append_text(self.collector, "")  # A run that logs nothing has an empty log.
        self.log.start()

    def _check_late(self) -> None:
        """Raises: SkippedError where a log cannot begin in the middle of the run."""
        if coroutine_function(self.run.actor) is not None:
            raise SkippedError("The log of an async actor cannot begin in its middle: its context is fixed by then.")
        if self.collector.tap.has_log_of(self.run.thread_id):
            raise SkippedError(f"{self.collector.name} is being collected for this run already.")

    def stop(self) -> None:
        self.log.stop()
        with self.lock:
            if not self.stopped and self.left_out + self.lost:
                self.reason = " ".join(self._reasons())
                self.run.append_text(self.collector, f"# {self.reason}\n")
            self.stopped = True

    def _reasons(self) -> list[str]:
        limit = f"its limit is {self.max_bytes} bytes, see DRAMATIQ_DIAG_LOGS_MAX_BYTES"
        told = [f"{self.left_out} records were left out at the end of the log: {limit}."] if self.left_out else []
        return [*told, f"{self.lost} records could not be written."] if self.lost else told

    def _write(self, record: logging.LogRecord) -> None:
        """Takes a record on the thread that logged it. The task sees no error of it."""
        thread_id = threading.get_ident()
        depth = self.depths.get(thread_id, 0)
        self.depths[thread_id] = depth + 1
        try:
            self._take(record, depth)
        except GUARDED:
            self.lost += 1
        finally:
            self.depths[thread_id] = depth

    def _take(self, record: logging.LogRecord, depth: int) -> None:
        if depth >= _MAX_NESTED:
            raise RecursionError
        text = "" if self.left_out else text_of(record)
        size_bytes = len(text.encode())
        with self.lock:
            if self.stopped:
                return
            if self.left_out or self.size_bytes + size_bytes > self.max_bytes:
                if not self.left_out:  # Now, as a killed worker has no end.
                    self.run.append_text(self.collector, "# The limit of this log is reached; the rest is left out.\n")
                self.left_out += 1
                return
            self.size_bytes += size_bytes
            self.run.append_text(self.collector, text)
