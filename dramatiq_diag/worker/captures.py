"""Captures in a worker process: which runs that begin here are diagnosed because a capture asks for them."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence

from sqlalchemy.orm import Session

from ..policy.selection import Selection
from ..runtime.loggers import get_logger
from ..store.slots import OpenCapture, open_captures


class CaptureClient:
    """Lets the runs of this process be diagnosed that open captures ask for, and no more than a capture has free slots.

    Whether such a run has a slot is decided when it is announced or published. Until then, several processes may
    diagnose more runs together than a capture asks for; the surplus is dropped.

    Parameters:
      selection: The selection of the process, which is given the captures that are open.
      can_run: Returns whether this process runs an actor of that name.
    """

    def __init__(self, selection: Selection, can_run: Callable[[str], bool]) -> None:
        self.logger = get_logger(__name__, type(self))
        self._selection = selection
        self._can_run = can_run
        self._open: Mapping[str, Sequence[tuple[OpenCapture, Iterator[int]]]] = {}
        "Actor -> its captures, each with an item for each run that may begin. To take one is one step, without a lock."
        self._undecided: dict[uuid.UUID, uuid.UUID] = {}
        "Run -> its capture, for runs of this process of which is not known whether they have a slot."
        self._warned: set[uuid.UUID] = set()

    # These two run on the task's thread.

    def take(self, actor_name: str) -> OpenCapture | None:
        """Returns: The capture that asks for the run of the actor that begins now, or None."""
        for capture, slots in self._open.get(actor_name, ()):
            if time.monotonic() < capture.closes_at and next(slots, None) is not None:
                return capture
        return None

    def begun(self, run_id: uuid.UUID, capture_id: uuid.UUID) -> None:
        """Notes that a run has begun which `take` gave a capture."""
        self._undecided[run_id] = capture_id

    # The rest runs on the threads that talk to the database.

    def decided(self, run_ids: Iterable[uuid.UUID]) -> None:
        """Notes that these runs have a slot, or have lost it."""
        for run_id in run_ids:
            self._undecided.pop(run_id, None)

    def forget_lost(self, unsaved: Container[uuid.UUID]) -> None:
        """Forgets all runs but these: nothing else waits to be published, so the entries of the others were lost."""
        self.decided([run_id for run_id in tuple(self._undecided) if run_id not in unsaved])

    @property
    def actor_names(self) -> Collection[str]:
        """The actors of which runs are captured here."""
        return self._open.keys()

    def look(self, session: Session) -> None:
        """Learns which captures are open, and lets as many runs begin as there are slots left for this process."""
        captures = [capture for capture in open_captures(session) if self._is_for_here(capture)]
        undecided = Counter(tuple(self._undecided.values()))
        by_actor: dict[str, list[tuple[OpenCapture, Iterator[int]]]] = {}
        for capture in captures:
            slots = iter(range(capture.free_slots - undecided[capture.capture_id]))
            by_actor.setdefault(capture.actor_name, []).append((capture, slots))
        self._open = by_actor
        self._selection.captures = self if captures else None

    def _is_for_here(self, capture: OpenCapture) -> bool:
        if not self._can_run(capture.actor_name):
            return False
        reason = self._selection.reason_against(capture.diagnostics)
        if reason is not None and capture.capture_id not in self._warned:
            self._warned.add(capture.capture_id)
            text = "Capture %s of actor %r is left to other workers: %s"
            self.logger.warning(text, capture.capture_id, capture.actor_name, reason)
        return reason is None
