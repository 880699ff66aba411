"""The permits of captures that this process has at hand, for the threads of tasks."""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass

from ..store.permits import OpenCapture


@dataclass(kw_only=True, eq=False)
class Permit:
    """The right to capture one run, as this process has it."""

    capture: OpenCapture
    number: int
    usable_until: float
    "By `time.monotonic`."


class HeldPermits:
    """At most one unused permit of each capture.

    A task's thread only pops one and tells of it; each is a single step, so there is no lock to wait for, or to be
    interrupted with.
    """

    def __init__(self) -> None:
        self.news: queue.SimpleQueue[tuple[Permit, uuid.UUID] | None] = queue.SimpleQueue()
        "Permits that were used, each with the id of its run; None for another reason to look around."
        self.missed = False
        "Whether a run began without a permit since the last look."
        self._unused: dict[str, deque[Permit]] = {}
        "Actor -> its permits; none for an actor that waits for one."
        self._taken: dict[int, Permit] = {}
        "Thread -> the permit of the run that begins on it."
        self._ran: dict[str, float] = {}
        "Actor -> when a run of it last began, by `time.monotonic`."

    # These two run on the task's thread.

    def take(self, actor_name: str) -> OpenCapture | None:
        """Takes a permit for the run that begins on this thread. Returns: The capture that it is of, or None."""
        unused = self._unused.get(actor_name)
        if unused is None:
            return None
        now = self._ran[actor_name] = time.monotonic()
        try:
            permit = unused.popleft()
            while min(permit.usable_until, permit.capture.closes_at) < now:
                permit = unused.popleft()
        except IndexError:
            if not self.missed:
                self.missed = True
                self.news.put(None)
            return None
        self._taken[threading.get_ident()] = permit
        return permit.capture

    def used(self, run_id: uuid.UUID) -> None:
        """Says which run it was that this thread took a permit for."""
        permit = self._taken.pop(threading.get_ident(), None)
        if permit is not None:
            self.news.put((permit, run_id))

    # The rest runs on the thread of the captures.

    def watch(self, actor_names: set[str]) -> None:
        """Notes from now on when runs of these actors begin, and of no others."""
        for actor_name in self._unused.keys() - actor_names:
            del self._unused[actor_name]
            self._ran.pop(actor_name, None)
        for actor_name in actor_names - self._unused.keys():
            self._unused[actor_name] = deque()

    def offer(self, permit: Permit) -> None:
        """Lets a run have the permit, after those that are there already."""
        self._unused[permit.capture.actor_name].append(permit)

    def withdraw(self, permit: Permit) -> bool:
        """Returns: Whether no run has taken the permit; then none will any more."""
        try:
            self._unused[permit.capture.actor_name].remove(permit)
        except (KeyError, ValueError):
            return False
        return True

    def is_unused(self, permit: Permit) -> bool:
        """Returns: Whether no run has taken the permit yet."""
        return permit in self._unused.get(permit.capture.actor_name, ())

    def ran_since(self, actor_name: str, moment: float) -> bool:
        """Returns: Whether a run of the actor began at that moment or later, by `time.monotonic`."""
        return self._ran.get(actor_name, moment - 1) >= moment
