"""Spool -> store, on one background thread per process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping

from ..collectors.services import Services
from ..errors import DiagnosticsError
from ..runtime.loggers import get_logger
from ..spool.backlog import Backlog
from ..spool.delivery import BATCH_SIZE, Delivery, Outcome, Salvaged
from ..spool.directory import Spool
from ..spool.entry import Entry
from ..statuses import RunStatus
from ..store.lazy_store import LazyStore
from ..store.records import RunRecord
from ..store.store import Store
from .run import Run

#: The switch interval while runs are published, in seconds: a task that comes back from a system call waits that long.
_SWITCH_INTERVAL_S = 0.0005

#: Seconds between looks at what has no event: running runs, dead siblings, the schedule.
_TICK_S = 0.25
_SALVAGE_INTERVAL_S = 3.0
_SCHEDULE_INTERVAL_S = 5.0
_ANNOUNCE_AFTER_S = 1.0

#: The part of the time that salvages without a result may take: a directory of many refused entries is long to list.
_SALVAGE_SHARE = 0.02

_BACKOFF_S = (0.25, 10.0)
_WARNING_INTERVAL_S = 60.0


class Publisher:
    """Publishes saved runs, shows running ones, salvages what dead siblings left, and keeps the schedule.

    Parameters:
      services: The clock and the switch interval of the process.
      spool: The spool of the process.
      backlog: The entries to be published.
      store: The store.
      runs: Thread id -> the diagnosed run on it.
      keep_schedule: Enqueues the cleanup when it is due; called every few seconds.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        backlog: Backlog,
        store: LazyStore,
        runs: Mapping[int, Run],
        keep_schedule: Callable[[Store], None] | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backlog = backlog
        self.delivery = Delivery(spool, store.opened)
        self._services = services
        self._spool = spool
        self._store = store
        self._runs = runs
        self._keep_schedule_of_cleanup = keep_schedule
        self._announced: set[Run] = set()
        self._lost = False
        "Whether a run of this process could not be published at all."
        self._salvaging: Generator[Salvaged, None, None] | None = None
        "The salvage that is under way."
        self._salvaged = Salvaged()
        "What it has published so far."
        self._salvage_began = 0.0
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
        return done and not (self._lost or self.backlog.dropped or self.backlog.lost)

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
                if not self._can_publish() and (self._salvaging is None or self._is_waiting()):
                    self.backlog.wait_for_news(_TICK_S)
                if self._stop_at is not None:
                    self._finish(self._stop_at)
                    return
                if not self._is_waiting():
                    self._take_turn()
            except Exception:
                self.logger.exception("The publisher met an unexpected error and goes on.")
                self._wait_longer()

    def _take_turn(self) -> None:
        """Does a bit of each duty, the runs of this process first. A fault ends the turn."""
        done = self._guarded(self._announce)
        if done:
            self._publish_backlog()
            done = not self._is_waiting() and self._guarded(self._salvage_further)
        if done and self._is_due("schedule", _SCHEDULE_INTERVAL_S):
            done = self._guarded(self._keep_schedule)
        if done:  # Only then is the store well: a read-only server answers each question and takes nothing.
            self._backoff_s = _BACKOFF_S[0]

    def _is_waiting(self) -> bool:
        return time.monotonic() < self._not_before

    def _can_publish(self) -> bool:
        return bool(self.backlog) and not self._is_waiting()

    def _publish_backlog(self) -> None:
        """Publishes for a moment at most; the other duties come in between."""
        if self._can_publish():
            until = time.monotonic() + _TICK_S
            with self._services.switch_interval.short(_SWITCH_INTERVAL_S):
                while self._can_publish() and time.monotonic() < until:
                    self._guarded(self._publish)

    def _publish(self) -> None:
        batch = self.backlog.oldest(BATCH_SIZE, but=self.delivery.refused)
        if batch:
            self.delivery.deliver(batch, self._settled)

    def _settled(self, entry: Entry, outcome: Outcome) -> None:
        self._lost |= outcome is not Outcome.PUBLISHED
        self.backlog.done(entry)

    def _announce(self) -> None:
        before = self._services.clock() - _ANNOUNCE_AFTER_S
        running = {run for run in tuple(self._runs.values()) if run.started < before}
        self._announced &= running
        fresh = running - self._announced
        self._store.opened().announce([_running(run) for run in fresh])
        self._announced |= fresh

    def _salvage_further(self) -> None:
        """Takes one step of the salvage that is under way, or begins one when it is due."""
        if self._spool.owner is None:  # It cannot be used, which was said.
            return
        if self._salvaging is None:
            if not self._is_due("salvage", _SALVAGE_INTERVAL_S):
                return
            self._salvaging, self._salvaged = self.delivery.salvage_in_steps(), Salvaged()
            self._salvage_began = time.monotonic()
        with self._services.switch_interval.short(_SWITCH_INTERVAL_S):
            salvaged = next(self._salvaging, None)
        if salvaged is not None:
            self._salvaged = salvaged
            return
        self._salvaging = None
        if not self._salvaged.recovered_runs:
            took_s = time.monotonic() - self._salvage_began
            self._due["salvage"] = max(self._due["salvage"], self._salvage_began + took_s / _SALVAGE_SHARE)

    def _salvage_until(self, stop_at: float) -> None:
        if self._spool.owner is None:
            return
        self.delivery.salvage(until=stop_at)

    def _keep_schedule(self) -> None:
        if self._keep_schedule_of_cleanup is not None:
            self._keep_schedule_of_cleanup(self._store.opened())

    def _finish(self, stop_at: float) -> None:
        while self.backlog and time.monotonic() < stop_at:
            time.sleep(max(min(self._not_before, stop_at) - time.monotonic(), 0.0))
            self._publish_backlog()
        if self._salvaging is not None:  # It holds a lock, and siblings may have died since it began.
            self._salvaging.close()
        if self.backlog:
            self.logger.warning("%d runs wait in the spool for the next worker.", len(self.backlog))
        else:
            self._guarded(lambda: self._salvage_until(stop_at))
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
        return True

    def _wait_longer(self) -> None:
        self._not_before = time.monotonic() + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S[1])

    def _warn(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARNING_INTERVAL_S:
            self._warned_at = now
            dropped = f" {self.backlog.dropped} were dropped, as the disk took nothing." if self.backlog.dropped else ""
            lost = f" {self.backlog.lost} were removed from it." if self.backlog.lost else ""
            text = str(error) if str(error).endswith(".") else f"{error}."
            self.logger.warning("%s %d sealed runs wait in the spool.%s%s", text, len(self.backlog), lost, dropped)


def _running(run: Run) -> RunRecord:
    return RunRecord(**run.identity, status=RunStatus.RUNNING, started_at=run.started_at)
