"""Spool -> store, on one background thread per process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .backlog import Backlog
from .delivery import BATCH_SIZE, Delivery
from .errors import DiagnosticsError
from .lazy_store import LazyStore
from .logs import get_logger
from .models import RunStatus
from .run import Run
from .store import RunRecord, Store

if TYPE_CHECKING:
    from .process import Process

#: The switch interval while runs are published, in seconds: a task that comes back from a system call waits that long.
_SWITCH_INTERVAL_S = 0.0005

#: Seconds between looks at what has no event: running runs, dead siblings, the schedule.
_TICK_S = 0.25
_SALVAGE_INTERVAL_S = 3.0
_SCHEDULE_INTERVAL_S = 5.0
_ANNOUNCE_AFTER_S = 1.0

_BACKOFF_S = (0.25, 10.0)
_WARNING_INTERVAL_S = 60.0


class Publisher:
    """Publishes saved runs, shows running ones, salvages what dead siblings left, and keeps the schedule.

    Parameters:
      process: The worker process.
      backlog: The entries to be published.
    """

    def __init__(self, process: Process, backlog: Backlog) -> None:
        self.logger = get_logger(__name__, type(self))
        self.process = process
        self.backlog = backlog
        self.schedule: Callable[[Store], None] | None = None
        "Enqueues the cleanup when it is due; set by the middleware."
        self._store = LazyStore(process.settings)
        self.delivery = Delivery(process.spool, self._store.opened)
        self._announced: set[Run] = set()
        self._lost = False
        "Whether a run of this process could not be published at all."
        self._stop_at: float | None = None
        self._not_before = 0.0
        self._backoff_s = _BACKOFF_S[0]
        self._warned_at = -_WARNING_INTERVAL_S
        self._due = dict.fromkeys(("salvage", "schedule"), 0.0)
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.publisher", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def flush(self, count: int, timeout_s: float) -> bool:
        """Waits until the first *count* runs of this process are published. Returns: Whether they are."""
        done = self.backlog.wait_until_done(count, timeout_s)
        return done and not self._lost and not self.backlog.dropped

    def stop(self, timeout_s: float) -> None:
        """Publishes what is possible within the time, then ends the thread."""
        self._stop_at = time.monotonic() + timeout_s
        self.backlog.wake()
        self._thread.join(timeout_s + 1.0)
        if self._thread.is_alive():
            self.logger.warning("The store did not answer in time; what is left waits in the spool.")

    # The rest runs on the publisher's thread.

    def _run(self) -> None:
        while True:
            try:
                if not self._can_publish():
                    self.backlog.wait_for_news(_TICK_S)
                if self._stop_at is not None:
                    self._finish(self._stop_at)
                    return
                if time.monotonic() >= self._not_before:
                    self._look_around()
                    self._publish_backlog()
            except Exception:
                self.logger.exception("The publisher met an unexpected error and goes on.")
                self._wait_longer()

    def _look_around(self) -> None:
        self._guarded(self._announce)
        if self._is_due("salvage", _SALVAGE_INTERVAL_S):
            self._guarded(self._salvage)
        if self._is_due("schedule", _SCHEDULE_INTERVAL_S):
            self._guarded(self._keep_schedule)

    def _can_publish(self) -> bool:
        return bool(self.backlog) and time.monotonic() >= self._not_before

    def _publish_backlog(self) -> None:
        """Publishes for a moment at most; the other duties come in between."""
        if self._can_publish():
            until = time.monotonic() + _TICK_S
            with self.process.switch_interval.short(_SWITCH_INTERVAL_S):
                while self._can_publish() and time.monotonic() < until:
                    self._guarded(self._publish)

    def _publish(self) -> None:
        batch = self.backlog.oldest(BATCH_SIZE, but=self.delivery.refused)
        if batch:
            if self.delivery.deliver(batch):
                self._lost = True
            self.backlog.done(len(batch))

    def _announce(self) -> None:
        before = time.perf_counter() - _ANNOUNCE_AFTER_S
        running = {run for run in tuple(self.process.runs.values()) if run.started < before}
        self._announced &= running
        fresh = running - self._announced
        self._store.opened().announce([_running(run) for run in fresh])
        self._announced |= fresh

    def _salvage(self) -> None:
        self.delivery.salvage(until=self._stop_at)

    def _keep_schedule(self) -> None:
        if self.schedule is not None:
            self.schedule(self._store.opened())

    def _finish(self, stop_at: float) -> None:
        while self.backlog and time.monotonic() < stop_at:
            time.sleep(max(min(self._not_before, stop_at) - time.monotonic(), 0.0))
            self._publish_backlog()
        if self.backlog:
            self.logger.warning("%d runs wait in the spool for the next worker.", len(self.backlog))
        else:
            self._guarded(self._salvage)
        self._store.close()

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
            self._store.reopen()
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
            dropped = f" {self.backlog.dropped} were dropped, as the disk took nothing." if self.backlog.dropped else ""
            self.logger.warning("%s %d sealed runs wait in the spool.%s", error, len(self.backlog), dropped)


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
        parent_run_id=run.choice.parent_run_id,
        capture_id=run.choice.capture_id,
    )
