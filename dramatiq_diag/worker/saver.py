"""Completes the spool entries of sealed runs, on one background thread per process that never waits for the store."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..errors import SpoolError
from ..runtime.background import BackgroundThread
from ..runtime.loggers import get_logger
from ..runtime.task_log import TaskLog
from ..spool.backlog import Backlog
from ..spool.delivery import BATCH_SIZE
from ..spool.directory import Spool
from ..spool.entry import Entry
from .tuning import Tuning

#: Seconds for which sealed runs are gathered: a thread that works all the time would make tasks wait for the GIL.
_GATHER_S = 0.05

#: The part of the time that measurements of the spool may take.
_MEASURE_SHARE = 0.02


class Sealed(Protocol):
    """A run that has ended, or an attachment: its entry has its end."""

    taken: bool
    "Whether the saver has it."

    @property
    def entry(self) -> Entry: ...

    def save(self) -> None:
        """Completes the entry."""


class RunSaver:
    """Saves sealed runs, and keeps the spool: entries at hand, its size known.

    Parameters:
      log: The messages of the tasks' threads, which are written here.
      on_saved: Called when entries are in the backlog.
    """

    def __init__(
        self, spool: Spool, backlog: Backlog, log: TaskLog, on_saved: Callable[[], None], tuning: Tuning
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backlog = backlog
        self.thread = BackgroundThread("saver", self._step, self._finish, backoff_s=(_GATHER_S, _GATHER_S))
        self._spool = spool
        self._log = log
        self._on_saved = on_saved
        self._waiting: dict[Sealed, None] = {}
        "The runs that were submitted and are not taken yet, the oldest first."
        self._taken = 0
        "How many runs were ever taken."
        self._lock = threading.Lock()
        "Held while runs go from one to the other, so that `submitted` counts each once."
        self._max_open, self._max_waiting = tuning.max_open, tuning.max_waiting
        self.left_out = 0
        "About how many tasks were not diagnosed, as this was behind, since it was last logged; threads count at once."
        self._measure_interval_s = tuning.measure_s
        self._measure_at = 0.0
        self.has_warned = False
        "Whether it was said that the spool cannot be used."

    def submit(self, run: Sealed) -> None:
        """Takes a sealed run. Runs on the task's thread; where an interrupt strikes, it may be called again."""
        # In this order: `_take` sets `taken` before the run leaves those that wait. A run that was submitted before is
        # left alone, as the saver may write to its file.
        if run not in self._waiting and not run.taken:
            if len(self._waiting) >= self._max_open:
                run.entry.park()
            self._waiting[run] = None
        self.thread.wake()

    @property
    def waiting(self) -> int:
        """How many runs were submitted and are not taken yet."""
        return len(self._waiting)

    @property
    def is_behind(self) -> bool:
        """Whether so many ended runs wait to be saved that no more tasks are diagnosed."""
        return self.waiting >= self._max_waiting

    @property
    def submitted(self) -> int:
        """How many runs were ever submitted."""
        with self._lock:
            return self._taken + len(self._waiting)

    # The rest runs on the saver's thread.

    def _step(self) -> float:
        if 0 < len(self._waiting) < BATCH_SIZE and not self.thread.is_stopping:
            time.sleep(_GATHER_S)
        self._save()
        self._keep_spool()
        return 0.0 if self._waiting else self._measure_interval_s

    def _finish(self, _stop_at: float) -> None:
        self._save()
        while self._waiting:
            self._save()

    def _save(self) -> None:
        """Saves a batch of the runs that were submitted."""
        self._log.write()
        runs = self._take()
        for run in runs:
            try:
                if run.entry.reopen():  # The publisher counts an entry as lost that someone has removed.
                    run.save()
            except BaseException:
                self.logger.exception("Run %s could not be saved as a whole.", run.entry.run_id)
        if self.left_out and len(self._waiting) <= self._max_waiting / 2:
            left_out, self.left_out = self.left_out, 0
            text = "Tasks ended faster than their diagnostics could be saved: about %d of them were not diagnosed."
            self.logger.warning(text, left_out)
        if runs:
            self.backlog.add([run.entry for run in runs])
            self._on_saved()

    def _take(self) -> list[Sealed]:
        """Returns: A batch of the runs that waited longest. They wait no more."""
        runs = list(self._waiting)[:BATCH_SIZE]  # Other threads change the dict; `list` copies it at once.
        with self._lock:
            for run in runs:
                run.taken = True  # First; see `submit`.
                del self._waiting[run]
            self._taken += len(runs)
        return runs

    def _keep_spool(self) -> None:
        """Makes entries for the next runs, measures the spool, and opens it if it could not be opened before."""
        spool = self._spool
        started = time.monotonic()
        try:
            spool.refill_pool()
            spool.write_store_id()
            if started < self._measure_at:
                return
            if spool.owner is None:
                spool.open()
            spool.measure()
            spool.keep_lock_young()
            self.has_warned = False
        except (SpoolError, OSError) as error:
            if not self.has_warned:
                self.logger.warning("%s Until then diagnostics are held in memory.", error)
                self.has_warned = True
        took_s = time.monotonic() - started
        self._measure_at = started + max(self._measure_interval_s, took_s / _MEASURE_SHARE)
