"""Spool -> store, on one background thread per process."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from dramatiq.logging import get_logger

from .delivery import BATCH_SIZE, Delivery
from .entry import Entry
from .errors import DiagnosticsError, SchemaError, SpoolError
from .models import RunStatus
from .run import Run
from .store import RunRecord, Store

if TYPE_CHECKING:
    from .process import Process

#: Seconds that sealed runs are gathered for: a thread that publishes all the time would make tasks wait for the GIL.
_GATHER_S = 0.05

#: The switch interval while runs are published, in seconds: a task that comes back from a system call waits that long.
_SWITCH_INTERVAL_S = 0.0005

#: Seconds between looks at what has no event: running runs, dead siblings, the schedule, the size of the spool.
_TICK_S = 0.25
_SALVAGE_INTERVAL_S = 3.0
_SCHEDULE_INTERVAL_S = 5.0
_MEASURE_INTERVAL_S = 5.0
_ANNOUNCE_AFTER_S = 1.0

_BACKOFF_S = (0.25, 10.0)
_WARNING_INTERVAL_S = 60.0


class Publisher:
    """Publishes sealed runs, shows running ones, salvages what dead siblings left, and keeps the schedule.

    Parameters:
      process: The worker process.
    """

    def __init__(self, process: Process) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.schedule: Callable[[Store], None] | None = None
        "Enqueues the cleanup when it is due; set by the middleware."
        self.delivery = Delivery(process.spool, self._opened_store)
        self._store: Store | None = None
        self._opened = False
        self._sealed: queue.SimpleQueue[Run | None] = queue.SimpleQueue()
        self._backlog: deque[Entry] = deque()
        self._announced: set[Run] = set()
        self._submitted = 0
        self._done = 0
        self._lost = False
        "Whether a run of this process could not be published at all."
        self._progress = threading.Condition(threading.Lock())
        self._stop_at: float | None = None
        self._not_before = 0.0
        self._backoff_s = _BACKOFF_S[0]
        self._warned_at = -_WARNING_INTERVAL_S
        self._due = dict.fromkeys(("salvage", "schedule", "measure", "respool"), 0.0)
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.publisher", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def submit(self, run: Run) -> None:
        """Takes a sealed run. Runs on the task's thread."""
        with self._progress:
            self._submitted += 1
        self._sealed.put(run)

    def flush(self, timeout_s: float) -> bool:
        """Waits until everything submitted so far is published. Returns: Whether it is."""
        with self._progress:
            wanted = self._submitted
            return self._progress.wait_for(lambda: self._done >= wanted, timeout_s) and not self._lost

    def stop(self, timeout_s: float) -> None:
        """Publishes what is possible within the time, then ends the thread."""
        self._stop_at = time.monotonic() + timeout_s
        self._sealed.put(None)
        self._thread.join(timeout_s + 1.0)
        if self._thread.is_alive():
            self.logger.warning("The store did not answer in time; what is left waits in the spool.")

    # The rest runs on the publisher's thread.

    def _run(self) -> None:
        while True:
            try:
                self.process.spool.make_ready()
                stopping = self._take()
                if not stopping:
                    self._look_around()
                self._publish_backlog()
                if stopping:
                    self._finish()
                    return
            except Exception:
                self.logger.exception("The publisher met an unexpected error and goes on.")
                self._wait_longer()

    def _take(self) -> bool:
        """Waits for sealed runs and lets each leave its files. Returns: Whether it is time to stop."""
        timeout_s = _TICK_S
        while True:
            try:
                run = self._sealed.get(timeout=timeout_s)
            except queue.Empty:
                return self._stop_at is not None
            if run is None:
                return True
            if timeout_s and self._stop_at is None:
                time.sleep(_GATHER_S)
            run.save()
            self._announced.discard(run)
            self._backlog.append(run.entry)
            if len(self._backlog) >= BATCH_SIZE and time.monotonic() >= self._not_before:
                return False
            timeout_s = 0.0

    def _look_around(self) -> None:
        if self._is_due("measure", _MEASURE_INTERVAL_S):
            self._respool()
        if time.monotonic() < self._not_before:
            return
        self._guarded(self._announce)
        if self._is_due("salvage", _SALVAGE_INTERVAL_S):
            self._guarded(self._salvage)
        if self._is_due("schedule", _SCHEDULE_INTERVAL_S):
            self._guarded(self._keep_schedule)

    def _respool(self) -> None:
        """Measures the spool, and opens it if it could not be opened before."""
        try:
            if self.process.spool.owner is None:
                self.process.spool.open()
            self.process.spool.measure()
        except SpoolError as error:
            self._warn(error)

    def _publish_backlog(self) -> None:
        if self._backlog and time.monotonic() >= self._not_before:
            with self.process.switch_interval.short(_SWITCH_INTERVAL_S):
                self._publish_batches()

    def _publish_batches(self) -> None:
        while self._backlog and time.monotonic() >= self._not_before:
            batch = list(islice(self._backlog, BATCH_SIZE))
            if not self._guarded(lambda batch=batch: self._publish(batch)):  # type: ignore[misc]
                return
            for _ in batch:
                self._backlog.popleft()
            with self._progress:
                self._done += len(batch)
                self._progress.notify_all()
            if self._sealed.qsize() and len(self._backlog) < BATCH_SIZE:
                return

    def _publish(self, entries: list[Entry]) -> None:
        if self.delivery.deliver(entries):
            self._lost = True

    def _announce(self) -> None:
        before = time.perf_counter() - _ANNOUNCE_AFTER_S
        fresh = [r for r in tuple(self.process.runs.values()) if r.started < before and r not in self._announced]
        self._opened_store().announce([_running(run) for run in fresh])
        self._announced.update(fresh)

    def _salvage(self) -> None:
        self.delivery.salvage()

    def _keep_schedule(self) -> None:
        if self.schedule is not None:
            self.schedule(self._opened_store())

    def _finish(self) -> None:
        while self._backlog and self._stop_at is not None and time.monotonic() < self._stop_at:
            time.sleep(max(min(self._not_before, self._stop_at) - time.monotonic(), 0.0))
            self._publish_backlog()
        if self._backlog:
            self.logger.warning("%d runs wait in the spool for the next worker.", len(self._backlog))
        else:
            self._guarded(self._salvage)
        if self._store is not None:
            self._store.close()

    def _opened_store(self) -> Store:
        if self._store is None:
            self._store = Store(self.process.settings)
        if not self._opened:
            self._store.open()
            self._opened = True
        return self._store

    def _is_due(self, what: str, interval_s: float) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + interval_s
        return True

    def _guarded(self, step: Callable[[], None]) -> bool:
        """Runs a step that needs the store; a fault makes the next steps wait. Returns: Whether it worked."""
        try:
            step()
        except DiagnosticsError as error:
            self._opened = self._opened and not isinstance(error, SchemaError)
            self._warn(error)
            self._wait_longer()
            return False
        self._backoff_s = _BACKOFF_S[0]
        return True

    def _wait_longer(self) -> None:
        self._not_before = time.monotonic() + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S[1])

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_INTERVAL_S:
            self._warned_at = now
            self.logger.warning("%s %d sealed runs wait in the spool.", error, len(self._backlog))


def _running(run: Run) -> RunRecord:
    return RunRecord(
        run_id=run.run_id,
        task_id=run.task_id,
        actor_name=run.actor_name,
        queue_name=run.queue_name,
        status=RunStatus.RUNNING,
        started_at=run.started_at,
        hostname=run.process.hostname,
        pid=run.process.pid,
    )
