"""Publishes runs from the spool into the store, announces those that run, and salvages those of dead siblings."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime

from ..collectors.services import Services
from ..errors import DiagnosticsError, RunRefusedError
from ..runtime.background import BackgroundThread
from ..runtime.loggers import RareWarning, get_logger
from ..spool.backlog import Backlog
from ..spool.delivery import BATCH_SIZE, Delivery, Outcome, Salvaged
from ..spool.directory import Spool
from ..spool.entry import Entry
from ..statuses import RunStatus
from ..store.heap_windows import add_windows
from ..store.records import RunRecord
from ..store.store import Store
from .captures import CaptureClient
from .heap_windows import HeapWindows
from .run import Run
from .tuning import TUNING, Tuning

#: The switch interval while runs are published, in seconds: a task that comes back from a system call waits that long.
_SWITCH_INTERVAL_S = 0.0005

#: Seconds between steps that nothing wakes the thread for: running runs and dead siblings are polled.
_TICK_S = 0.25

#: Seconds after which a run that still runs is announced.
_ANNOUNCE_AFTER_S = 1.0

#: The part of the time that salvages without a result may take: a directory of many refused entries is long to list.
_SALVAGE_SHARE = 0.02


class Publisher:
    """Publishes saved runs, announces running ones, and salvages the runs of dead siblings, on one thread per process.

    Parameters:
      runs: Thread id -> the diagnosed run on it.
      on_settled: Called with the id of each entry that was published, or is lost.
      forget_lost: Called now and then with a function that says whether nothing waits to be published.
      heap_windows: The windows of the live memory, which are published beside the runs.
    """

    def __init__(
        self,
        services: Services,
        spool: Spool,
        backlog: Backlog,
        store: Store,
        runs: Mapping[int, Run],
        captures: CaptureClient,
        on_settled: Callable[[uuid.UUID], None] = lambda _: None,
        forget_lost: Callable[[Callable[[], bool]], None] = lambda _: None,
        heap_windows: HeapWindows | None = None,
        *,
        tuning: Tuning = TUNING,
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.backlog = backlog
        self.delivery = Delivery(spool, store)
        self.thread = BackgroundThread("publisher", self._step, self._finish, backoff_s=tuning.backoff_s)
        self._tuning = tuning
        self._services = services
        self._spool = spool
        self._store = store
        self._runs = runs
        self._captures = captures
        self._on_settled = on_settled
        self._forget_lost = forget_lost
        self._heap_windows = heap_windows
        self._announced: set[Run] = set()
        self._lost = False
        "Whether a run of this process could not be published at all."
        self._salvaging: Generator[None, None, None] | None = None
        "The salvage that is under way."
        self._salvaged = Salvaged()
        "The runs that it has published so far."
        self._salvage_began = 0.0
        self._warn_rarely = RareWarning(self.logger)
        self._salvage_at = 0.0

    def flush(self, count: int, timeout_s: float) -> bool:
        """Waits until the first *count* runs of this process are published. Returns: Whether they are."""
        done = self.backlog.wait_until_done(count, timeout_s)
        return done and not (self._lost or self.backlog.dropped or self.backlog.lost)

    def unpublished_s(self) -> float | None:
        """Returns: For how many seconds the oldest run has waited to be published; None where none waits."""
        oldest = self.backlog.oldest(1, but=self.delivery.refused)
        written_at = oldest[0].written_at() if oldest else None
        # Both times are by the clock of this host, which may be wrong.
        return None if written_at is None else max((datetime.now(UTC) - written_at).total_seconds(), 0.0)

    def stop(self, timeout_s: float) -> None:
        """Publishes what is possible within the time, then ends the thread."""
        if not self.thread.stop(timeout_s, grace_s=1.0):
            self.logger.warning("The store did not answer in time; what is left waits in the spool.")

    # The rest runs on the publisher's thread.

    def _step(self) -> float:
        """Does a bit of each duty, the runs of this process first. A fault ends the turn."""
        duties = (
            self._store.open,
            self._note_store,
            self._announce,
            self._publish_backlog,
            self._publish_windows,
            self._salvage_further,
        )
        if all(self._guarded(duty) for duty in duties):
            if not self.backlog:
                self._captures.forget_lost(self.backlog.unsaved)
            self._forget_lost(lambda: not self.backlog)
            self.thread.recovered()  # Only now: a read-only server answers each question and takes nothing.
        return 0.0 if self.backlog or self._salvaging is not None else _TICK_S

    def _note_store(self) -> None:
        """Tells the spool which store its runs are of, again after a fault: the database may have been replaced."""
        if self._spool.store_id is None:
            self._spool.store_id = self._store.store_id()

    def _publish_backlog(self) -> None:
        """Publishes for a moment at most; the other duties come in between."""
        if self.backlog:
            until = time.monotonic() + _TICK_S
            with self._services.switch_interval.short(_SWITCH_INTERVAL_S):
                while self.backlog and time.monotonic() < until:
                    batch = self.backlog.oldest(BATCH_SIZE, but={*self.delivery.refused, *self.delivery.deferred})
                    if batch:
                        self.delivery.deliver(batch, self._settled)
                    else:
                        self.delivery.retry_deferred()

    def _publish_windows(self, *, is_last: bool = False) -> None:
        """Publishes the closed windows: one statement in half a minute, and none where no task was executed."""
        if self._heap_windows is None:
            return
        windows = self._heap_windows.waiting(is_last=is_last)
        if windows:
            try:
                with self._store.session() as session:
                    add_windows(session, windows)
            except RunRefusedError as error:  # They are worth less than the runs, which would wait for them.
                self.logger.warning("Windows of the live memory could not be stored, and are dropped: %s", error)
            self._heap_windows.stored(windows)

    def _settled(self, entry: Entry, outcome: Outcome) -> None:
        self._lost |= outcome is not Outcome.PUBLISHED
        self.backlog.done(entry)
        self._captures.decided((entry.run_id,))
        self._on_settled(entry.run_id)

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
            if time.monotonic() < self._salvage_at:
                return
            self._salvaged = Salvaged()
            self._salvaging = self.delivery.salvage_in_steps(self._salvaged)
            self._salvage_began = time.monotonic()
            self._salvage_at = self._salvage_began + self._tuning.salvage_s
        with self._services.switch_interval.short(_SWITCH_INTERVAL_S):
            try:
                next(self._salvaging)
                return
            except StopIteration:
                self._salvaging = None
        if not self._salvaged.recovered_runs:
            took_s = time.monotonic() - self._salvage_began
            self._salvage_at = max(self._salvage_at, self._salvage_began + took_s / _SALVAGE_SHARE)

    def _finish(self, stop_at: float) -> None:
        while self.backlog and time.monotonic() < stop_at:
            time.sleep(min(self.thread.pause_left_s, max(stop_at - time.monotonic(), 0.0)))
            self._guarded(self._publish_backlog)
        if time.monotonic() < stop_at and not self.thread.pause_left_s:
            self._guarded(lambda: self._publish_windows(is_last=True))
        if self._salvaging is not None:  # It holds a lock, and siblings may have died since it began.
            self._salvaging.close()
        on_disk, in_memory = self.backlog.count_by_place()
        if on_disk > 0:
            self.logger.warning("%d runs wait in the spool for the next worker.", on_disk)
        if in_memory:
            text = (
                "%d runs are in memory, in whole or in part, as the disk did not take them, and end with this process."
            )
            self.logger.warning(text, in_memory)
        if not self.backlog and self._spool.owner is not None:
            self._guarded(lambda: self.delivery.salvage(until=stop_at))

    def _guarded(self, duty: Callable[[], object]) -> bool:
        """Does a duty that needs the store; a fault makes the thread pause. Returns: Whether there was none."""
        try:
            duty()
        except DiagnosticsError as error:
            self._store.reopen()
            self._spool.store_id = None
            self._warn(error)
            self.thread.back_off()
            return False
        return True

    def _warn(self, error: Exception) -> None:
        dropped = f" {self.backlog.dropped} were dropped, as the disk took nothing." if self.backlog.dropped else ""
        lost = f" {self.backlog.lost} were removed from it." if self.backlog.lost else ""
        text = str(error) if str(error).endswith(".") else f"{error}."
        on_disk, in_memory = self.backlog.count_by_place()
        held = f" {in_memory} wait in memory, as the disk did not take them." if in_memory else ""
        self._warn_rarely("%s %d sealed runs wait in the spool.%s%s%s", text, on_disk, held, lost, dropped)


def _running(run: Run) -> RunRecord:
    return RunRecord(**run.identity, status=RunStatus.RUNNING, started_at=run.started_at, is_attached=run.is_attached)
