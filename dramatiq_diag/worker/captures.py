"""Captures in a worker process: which runs are to be captured, learned and told on one background thread."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import partial

from ..errors import DiagnosticsError
from ..policy.selection import Selection
from ..runtime.loggers import get_logger
from ..store import permits
from ..store.lazy_store import LazyStore
from ..store.permits import OpenCapture
from ..store.worker_actors import note_actors
from .held import HeldPermits, Permit

#: Seconds between looks at which captures are open; one query each.
POLL_INTERVAL_S = 2.5

#: Seconds between looks while runs that are wanted begin without a permit.
_EAGER_INTERVAL_S = 0.5

#: Seconds after which a process says again which actors it has.
_ACTORS_INTERVAL_S = 3600.0

#: Seconds before the end of a lease from which on a permit is not used: that long there is to tell of a run.
_MARGIN_S = permits.LEASE_S / 3


class CaptureClient:
    """Learns which captures are open, holds permits for the runs of this process, and tells which were used.

    A process without runs for a permit keeps it, so that a rare task is captured as well, until another process says
    that it wants one; then it lets it go, and leaves the next ones to those that have runs.

    Note:
      A run that dies before it was told of, at most a moment after it began, leaves its permit to another one when the
      lease ends: then the capture has its artifacts and those of the other.

    Parameters:
      store: The store.
      selection: The selection of the process, which is given the captures that are open.
      can_run: Returns whether this process runs an actor of that name.
      actors: Returns the actors that this process runs, each with its queue.
    """

    def __init__(
        self,
        store: LazyStore,
        selection: Selection,
        can_run: Callable[[str], bool],
        actors: Callable[[], Mapping[str, str]],
    ) -> None:
        self.logger = get_logger(__name__, type(self))
        self.held = HeldPermits()
        self._selection = selection
        self._can_run = can_run
        self._actors = actors
        self._holder = uuid.uuid4()
        self._mine: dict[uuid.UUID, Permit] = {}
        "Capture -> the permit that this process has of it and has not told to be used."
        self._untold: list[tuple[Permit, uuid.UUID]] = []
        self._warned: set[uuid.UUID] = set()
        self._failing = False
        self._stopping = False
        self._due = 0.0
        self._noted: Mapping[str, str] = {}
        "The actors that this process last said it has."
        self._note_due = 0.0
        self._store = store
        self._thread = threading.Thread(target=self._run, name="dramatiq_diag.captures", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Lets the thread give back what it holds, and end; see `join`."""
        self._stopping = True
        self.held.news.put(None)

    def join(self, timeout_s: float) -> None:
        """Waits for the end of the thread; a permit that it cannot give back is free after its lease."""
        self._thread.join(timeout_s)

    # The rest runs on the thread of the captures.

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._hear(max(self._due - time.monotonic(), 0.0))
                if self._untold:
                    self._guarded(self._tell)
                if time.monotonic() >= self._due and not self._stopping:
                    self._due = time.monotonic() + POLL_INTERVAL_S
                    self._guarded(self._look_around)
            except Exception:
                self.logger.exception("Captures could not be seen to; tasks run on without them for now.")
                self._due = time.monotonic() + POLL_INTERVAL_S
        self._finish()

    def _hear(self, timeout_s: float) -> None:
        """Waits for permits that were used, or for a reason to look around."""
        try:
            self._take_in(self.held.news.get(timeout=timeout_s))
            while True:
                self._take_in(self.held.news.get_nowait())
        except queue.Empty:
            pass

    def _take_in(self, news: tuple[Permit, uuid.UUID] | None) -> None:
        if news is None:
            if not self._failing:
                self._due = min(self._due, time.monotonic() + _EAGER_INTERVAL_S)
            return
        self._untold.append(news)
        permit, _ = news
        if self._mine.get(permit.capture.capture_id) is permit:
            del self._mine[permit.capture.capture_id]

    def _tell(self) -> None:
        """Says which runs permits were used for, and has the next ones at once."""
        while self._untold:
            permit, run_id = self._untold[0]
            capture_id = permit.capture.capture_id
            with self._store.opened().session() as session:
                known = permits.use(session, capture_id, permit.number, self._holder, run_id)
            if not known:
                self.logger.warning(
                    "Run %s was captured though the permit's lease had ended; capture %s may have a run more than it "
                    "asked for.",
                    run_id,
                    capture_id,
                )
            del self._untold[0]
            if capture_id not in self._mine and not self._stopping:
                self._claim(permit.capture)

    def _look_around(self) -> None:
        self._look()
        self._note_actors()

    def _note_actors(self) -> None:
        """Says which actors this process has: when it starts, when there are others, and now and then."""
        actors, now = self._actors(), time.monotonic()
        if actors != self._noted or now >= self._note_due:
            with self._store.opened().session() as session:
                note_actors(session, actors)
            self._noted, self._note_due = actors, now + _ACTORS_INTERVAL_S

    def _look(self) -> None:
        """Learns which captures are open, and sees to a permit of each."""
        self.held.missed = False
        with self._store.opened().session() as session:
            captures = [capture for capture in permits.open_captures(session) if self._is_for_here(capture)]
        # Given back, as a capture may only have ended for this process: the last worker with its actor stops.
        for capture_id in self._mine.keys() - {capture.capture_id for capture in captures}:
            self._give_back(self._mine[capture_id])
        self.held.watch({capture.actor_name for capture in captures})
        self._selection.captures = self.held if captures else None
        for capture in captures:
            self._see_to(capture)

    def _is_for_here(self, capture: OpenCapture) -> bool:
        if not self._can_run(capture.actor_name):
            return False
        reason = self._selection.reason_against(capture.diagnostics)
        if reason is not None and capture.capture_id not in self._warned:
            self._warned.add(capture.capture_id)
            text = "Capture %s of actor %r is left to other workers: %s"
            self.logger.warning(text, capture.capture_id, capture.actor_name, reason)
        return reason is None

    def _see_to(self, capture: OpenCapture) -> None:
        now = time.monotonic()
        permit = self._mine.get(capture.capture_id)
        if permit is not None and permit.usable_until + _MARGIN_S < now:  # Its run died, or the database was away.
            self.held.withdraw(self._mine.pop(capture.capture_id))
            permit = None
        lately_s = 2 * POLL_INTERVAL_S
        is_wanted = capture.wanted_s is not None and capture.wanted_s < lately_s
        has_runs = self.held.ran_since(capture.actor_name, now - lately_s)
        if permit is None:
            claimed = capture.has_free_permit and (has_runs or not is_wanted) and self._claim(capture)
            if has_runs and not claimed and (capture.wanted_s is None or capture.wanted_s > _EAGER_INTERVAL_S):
                with self._store.opened().session() as session:
                    permits.want(session, capture.capture_id)
        elif is_wanted and not has_runs:
            self._give_back(permit)
        elif permit.usable_until - now < _MARGIN_S and self.held.is_unused(permit):
            self._renew(permit)

    def _claim(self, capture: OpenCapture) -> bool:
        started = time.monotonic()
        with self._store.opened().session() as session:
            number = permits.claim(session, capture.capture_id, self._holder)
        if number is None:
            return False
        usable_until = started + permits.LEASE_S - _MARGIN_S
        permit = Permit(capture=capture, number=number, usable_until=usable_until)
        self._mine[capture.capture_id] = permit
        self.held.offer(permit)
        return True

    def _renew(self, permit: Permit) -> None:
        started = time.monotonic()
        with self._store.opened().session() as session:
            renewed = permits.renew(session, permit.capture.capture_id, permit.number, self._holder)
        if renewed:
            permit.usable_until = started + permits.LEASE_S - _MARGIN_S
        else:  # Another process has it by now; the next look claims another one.
            self.held.withdraw(permit)
            self._mine.pop(permit.capture.capture_id, None)

    def _give_back(self, permit: Permit) -> None:
        if self.held.withdraw(permit):  # Otherwise a run has just taken it.
            del self._mine[permit.capture.capture_id]
            with self._store.opened().session() as session:
                permits.give_back(session, permit.capture.capture_id, permit.number, self._holder)

    def _finish(self) -> None:
        self._selection.captures = None
        try:
            self._hear(0.0)
            if not self._failing:
                self._guarded(self._tell)
                for permit in tuple(self._mine.values()):
                    self._guarded(partial(self._give_back, permit))
        except Exception:
            self.logger.exception("The permits of captures were not given back; they are free after their lease.")
        self._store.close()

    def _guarded(self, step: Callable[[], None]) -> None:
        """Runs a step that needs the database; while it is away captures pause, which is said once."""
        try:
            step()
            self._failing = False
        except DiagnosticsError as error:
            self._store.reopen()
            if not self._failing:
                self.logger.warning("Captures pause, and tasks run on: %s", error)
            self._failing = True
