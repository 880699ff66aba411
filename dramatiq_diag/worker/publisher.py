"""Brings runs from the spool into the store, and does all else that needs the store, on one thread per process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping

from ..collectors.services import Services
from ..errors import DiagnosticsError
from ..runtime.background import BackgroundThread
from ..runtime.loggers import get_logger
from ..spool.backlog import Backlog
from ..spool.delivery import BATCH_SIZE, Delivery, Outcome, Salvaged
from ..spool.directory import Spool
from ..spool.entry import Entry
from ..statuses import RunStatus
from ..store.records import RunRecord
from ..store.store import Store
from ..store.worker_actors import note_actors
from .captures import CaptureClient
from .run import Run

#: The switch interval while runs are published, in seconds: a task that comes back from a system call waits that long.
_SWITCH_INTERVAL_S = 0.0005

#: Seconds between looks at what wakes nobody: running runs, dead siblings, the schedule.
_TICK_S = 0.25
_SALVAGE_INTERVAL_S = 3.0
_SCHEDULE_INTERVAL_S = 5.0

#: Seconds after which a run that still runs is announced.
_ANNOUNCE_AFTER_S = 1.0

#: Seconds after which a process says again which actors it has.
_ACTORS_INTERVAL_S = 3600.0

#: The part of the time that salvages without a result may take: a directory of many refused entries is long to list.
_SALVAGE_SHARE = 0.02

_BACKOFF_S = (0.25, 10.0)
_WARNING_INTERVAL_S = 60.0


class Publisher:
    """Publishes saved runs, announces running ones, and salvages the runs of dead siblings.

    Besides, it looks for open captures, says which actors the process has, and keeps the schedule of the cleanup.

    Parameters:
      services: The clock and the switch interval of the process.
      spool: The spool of the process.
      backlog: The entries to be published.
      store: The store.
      runs: Thread id -> the diagnosed run on it.
      captures: The captures of the process.
      actors: Returns the actors that the process executes, each with its queue.
      keep_schedule: Enqueues the cleanup when it is due; called every few seconds.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        backlog: Backlog,
        store: Store,
        runs: Mapping[int, Run],
        captures: CaptureClient,
        actors: Callable[[], Mapping[str, str]],
        keep_schedule: Callable[[Store], None] | None = None,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backlog = backlog
        self.delivery = Delivery(spool, store)
        self.thread = BackgroundThread("publisher", self._step, self._finish, backoff_s=_BACKOFF_S)
        self._services = services
        self._spool = spool
        self._store = store
        self._runs = runs
        self._captures = captures
        self._actors = actors
        self._keep_schedule_of_cleanup = keep_schedule
        self._announced: set[Run] = set()
        self._noted_actors: Mapping[str, str] = {}
        "The actors that this process last said it has."
        self._lost = False
        "Whether a run of this process could not be published at all."
        self._salvaging: Generator[Salvaged, None, None] | None = None
        "The salvage that is under way."
        self._salvaged = Salvaged()
        "The runs that it has published so far."
        self._salvage_began = 0.0
        self._warned_at = -_WARNING_INTERVAL_S
        self._due = dict.fromkeys(("salvage", "captures", "actors", "schedule"), 0.0)

    def flush(self, count: int, timeout_s: float) -> bool:
        """Waits until the first *count* runs of this process are published. Returns: Whether they are."""
        done = self.backlog.wait_until_done(count, timeout_s)
        return done and not (self._lost or self.backlog.dropped or self.backlog.lost)

    def stop(self, timeout_s: float) -> None:
        """Publishes what is possible within the time, then ends the thread."""
        if not self.thread.stop(timeout_s, grace_s=1.0):
            self.logger.warning("The store did not answer in time; what is left waits in the spool.")

    # The rest runs on the publisher's thread.

    def _step(self) -> float:
        """Does a bit of each duty, the runs of this process first. A fault ends the turn."""
        duties = (
            self._store.open,
            self._announce,
            self._publish_backlog,
            self._salvage_further,
            self._look_at_captures,
            self._keep_schedule,
        )
        if all(self._guarded(duty) for duty in duties):
            self.thread.recovered()  # Only now: a read-only server answers each question and takes nothing.
        return 0.0 if self.backlog or self._salvaging is not None else _TICK_S

    def _publish_backlog(self) -> None:
        """Publishes for a moment at most; the other duties come in between."""
        if self.backlog:
            until = time.monotonic() + _TICK_S
            with self._services.switch_interval.short(_SWITCH_INTERVAL_S):
                while self.backlog and time.monotonic() < until:
                    batch = self.backlog.oldest(BATCH_SIZE, but=self.delivery.refused)
                    if batch:
                        self.delivery.deliver(batch, self._settled)

    def _settled(self, entry: Entry, outcome: Outcome) -> None:
        self._lost |= outcome is not Outcome.PUBLISHED
        self.backlog.done(entry)
        self._captures.decided((entry.run_id,))

    def _announce(self) -> None:
        before = self._services.clock() - _ANNOUNCE_AFTER_S
        running = {run for run in tuple(self._runs.values()) if run.started < before}
        self._announced &= running
        fresh = running - self._announced
        without_slot = self._store.announce([_running(run) for run in fresh])
        self._announced |= fresh
        self._captures.decided(run.run_id for run in fresh)
        for run in fresh:
            if run.run_id in without_slot:
                run.lose_slot()

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

    def _look_at_captures(self) -> None:
        """Looks for open captures. Says which actors this process has: at its start, after a change and hourly."""
        if not self._is_due("captures", self._captures.poll_interval_s):
            return
        if not self.backlog:
            self._captures.forget_lost(self.backlog.unsaved)
        with self._store.session() as session:
            self._captures.look(session)
        actors = self._actors()
        if self._is_due("actors", _ACTORS_INTERVAL_S) or actors != self._noted_actors:
            with self._store.session() as session:
                note_actors(session, actors)
            self._noted_actors = actors

    def _keep_schedule(self) -> None:
        if self._keep_schedule_of_cleanup is not None and self._is_due("schedule", _SCHEDULE_INTERVAL_S):
            self._keep_schedule_of_cleanup(self._store)

    def _finish(self, stop_at: float) -> None:
        while self.backlog and time.monotonic() < stop_at:
            time.sleep(min(self.thread.pause_left_s, max(stop_at - time.monotonic(), 0.0)))
            self._guarded(self._publish_backlog)
        if self._salvaging is not None:  # It holds a lock, and siblings may have died since it began.
            self._salvaging.close()
        if self.backlog:
            self.logger.warning("%d runs wait in the spool for the next worker.", len(self.backlog))
        elif self._spool.owner is not None:
            self._guarded(lambda: self.delivery.salvage(until=stop_at))
        self._store.close()

    def _is_due(self, duty: str, interval_s: float) -> bool:
        now = time.monotonic()
        if now < self._due[duty]:
            return False
        self._due[duty] = now + interval_s
        return True

    def _guarded(self, duty: Callable[[], object]) -> bool:
        """Does a duty that needs the store; a fault makes the thread pause. Returns: Whether there was none."""
        try:
            duty()
        except DiagnosticsError as error:
            self._store.reopen()
            self._warn(error)
            self.thread.back_off()
            return False
        return True

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
