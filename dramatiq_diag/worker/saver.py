"""Sealed runs -> whole entries in the spool, on one background thread per process that never waits for the store."""

from __future__ import annotations

import queue
import threading
import time
import uuid

from ..errors import SpoolError
from ..runtime.loggers import get_logger
from ..runtime.task_log import TaskLog
from ..spool.backlog import Backlog
from ..spool.delivery import BATCH_SIZE
from ..spool.directory import Spool
from .run import Run

#: Seconds that sealed runs are gathered for: a thread that works all the time would make tasks wait for the GIL.
_GATHER_S = 0.05

#: Seconds between looks at the size of the spool, and the part of the time that they may take.
_MEASURE_INTERVAL_S = 5.0
_MEASURE_SHARE = 0.02


class RunSaver:
    """Lets the recordings of sealed runs leave their files, and keeps the spool: entries at hand, its size in view.

    Parameters:
      spool: The spool of the process.
      backlog: Where the entries go.
      log: The messages of the tasks' threads, which are written here.
    """

    def __init__(self, spool: Spool, backlog: Backlog, log: TaskLog) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backlog = backlog
        self._spool = spool
        self._log = log
        self._submitted: dict[uuid.UUID, Run] = {}
        "What was submitted and not taken yet."
        self._taken = 0
        "Runs that were ever taken."
        self._lock = threading.Lock()
        self._sealed: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._measure_at = 0.0
        self.has_warned = False
        "Whether it was said that the spool cannot be used."
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.saver", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, run: Run) -> None:
        """Takes a sealed run. Runs on the task's thread; where an interrupt strikes, it may be called again."""
        self._submitted[run.run_id] = run
        self._sealed.put(run)

    @property
    def submitted(self) -> int:
        """How many runs were ever submitted."""
        with self._lock:
            return self._taken + len(self._submitted)

    def stop(self, timeout_s: float) -> None:
        """Saves what was submitted, then ends the thread; waits for that within the time."""
        self._sealed.put(None)
        self._thread.join(timeout_s)

    # The rest runs on the saver's thread.

    def _run(self) -> None:
        stopping = False
        while not stopping:
            try:
                self._log.write()
                self._keep_spool()
                stopping = self._save(self._take())
            except Exception:
                self.logger.exception("The saver met an unexpected error and goes on.")
                time.sleep(_GATHER_S)

    def _take(self) -> list[Run | None]:
        """Waits for sealed runs. Returns: Those that came within a moment."""
        taken: list[Run | None] = []
        try:
            taken.append(self._sealed.get(timeout=_MEASURE_INTERVAL_S))
            if self._sealed.qsize() < BATCH_SIZE and taken[0] is not None:
                time.sleep(_GATHER_S)
            while taken[-1] is not None and len(taken) < BATCH_SIZE:
                taken.append(self._sealed.get_nowait())
        except queue.Empty:
            pass
        return taken

    def _save(self, taken: list[Run | None]) -> bool:
        """Returns: Whether that was the end."""
        self._log.write()
        runs = [run for run in taken if run is not None and self._is_first(run)]
        for run in runs:
            try:
                run.save()
            except Exception:
                self.logger.exception("Run %s could not be saved as a whole.", run.run_id)
        self.backlog.add([run.entry for run in runs])
        return None in taken

    def _is_first(self, run: Run) -> bool:
        """Returns: Whether the run was not taken before, as it may have been where it was submitted twice."""
        with self._lock:
            self._submitted.pop(run.run_id, None)
            first, run.taken = not run.taken, True
            self._taken += first
        return first

    def _keep_spool(self) -> None:
        """Makes entries for the next runs, measures the spool, and opens it if it could not be opened before."""
        spool = self._spool
        started = time.monotonic()
        try:
            spool.refill_pool()
            if started < self._measure_at:
                return
            if spool.owner is None:
                spool.open()
            spool.measure()
            self.has_warned = False
        except (SpoolError, OSError) as error:  # Runs are saved in any case: this comes before each time.
            if not self.has_warned:
                self.logger.warning("%s Until then diagnostics are held in memory.", error)
                self.has_warned = True
        took_s = time.monotonic() - started
        self._measure_at = started + max(_MEASURE_INTERVAL_S, took_s / _MEASURE_SHARE)
