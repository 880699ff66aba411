"""Looks at the coroutines of async actors: do they run, await something, or wait for a loop that is busy?"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Hashable, Mapping
from typing import Any

from ...runtime.coroutine_steps import MeasuredCoroutine
from ...runtime.frames import Look, awaited_by, future_of
from ...runtime.stacks import Branch
from ...runtime.waits.coroutines import awaited_wait, executed_by_loop
from ...runtime.waits.python import is_event_of_socket, reads_answer
from .account import LOOP_WAIT, Account, Name
from .calls import on_of
from .readiness import Readiness, can_go_on, have_bytes

#: The most tasks that await each other and are followed.
_MAX_TASKS = 10

#: A loop that has nothing to do ends a sleep up to a millisecond late, as its selector counts in milliseconds. Whether
#: it had nothing to do is known from samples alone.
_LATE_S = 0.0012

#: The innermost places of a coroutine that tell one wait from another.
_PLACES = 5


class CoroutineWaits:
    """Knows where coroutines wait. Until its next step each stays there, and is not read again."""

    def __init__(self) -> None:
        self._waits: dict[Account, CoroutineWait] = {}
        self._descriptors: dict[Account, int] = {}
        "The connection that each coroutine has awaited last."
        self._has_bytes: dict[int, bool] = {}
        self.late: dict[Account, float] = {}
        "The accounts of those that the last look saw wait for the event loop -> the seconds that it stood for."

    def begin(self) -> None:
        """Asks for answers that have come; the rest of a look takes long enough for others to come."""
        self._has_bytes = have_bytes({*self._descriptors.values()})

    def look(
        self, coroutines: Mapping[Account, Coroutine[Any, Any, Any]], now_s: float, *, is_busy: bool
    ) -> list[Account]:
        """Adds the time since the last look to the accounts of coroutines that wait.

        Parameters:
          coroutines: The account of each coroutine.
          now_s: When the look began, by `time.perf_counter`.
          is_busy: Whether their event loop executes something at this moment, or is about to.

        Returns: The accounts of those whose steps run: the thread of the event loop is their own then.

        Note:
          The time before the first step of a measured coroutine and after its last one is known without samples.
        """
        known, self._waits, self.late = self._waits, {}, {}
        self._descriptors = {account: each for account, each in self._descriptors.items() if account in coroutines}
        others: list[Account] = []
        for account in coroutines:
            wait = known.get(account)
            if _is_outside_of_steps(coroutines[account]):
                self.late[account] = account.elapse(now_s)
            elif wait is None or wait.is_over():
                others.append(account)
            else:
                self._add(account, wait, now_s, is_busy=is_busy)
        running: list[Account] = []
        for account in others:
            if account in known:
                known[account].correct(account)
            wait = CoroutineWait(coroutines[account], account)
            if wait.is_running:
                running.append(account)
            elif wait.is_known:
                self._add(account, wait, now_s, is_busy=is_busy)
        return running

    def _add(self, account: Account, wait: CoroutineWait, now_s: float, *, is_busy: bool) -> None:
        self._waits[account] = wait
        account.correction = wait.correction
        if wait.descriptor is not None:
            self._descriptors[account] = wait.descriptor
        spent_s = account.elapse(now_s)
        if wait.add(account, spent_s, now_s, self._has_bytes, is_busy=is_busy):
            self.late[account] = spent_s


class CoroutineWait:
    """Where a coroutine waits, until its next step. Nothing of what it awaits is kept alive.

    Parameters:
      coroutine: The coroutine.
      account: Its account, in which what it awaits is named.
    """

    __slots__ = (
        "_can_go_on",
        "_key",
        "_measured",
        "_readiness",
        "_seen_late_s",
        "_seen_s",
        "_sleeps_since_s",
        "_steps_s",
        "is_known",
        "is_running",
    )

    def __init__(self, coroutine: Coroutine[Any, Any, Any], account: Account) -> None:
        self._measured = coroutine if isinstance(coroutine, MeasuredCoroutine) else None
        self._steps_s: float | None = None
        "How long its steps had taken, which tells whether there was another one; None where that is not known."
        self._key: Hashable = None
        "Tells one wait from another."
        self._can_go_on = False
        "Whether it could go on when it was read."
        self._readiness = Readiness(None, None)
        self._sleeps_since_s: float | None = None
        "When a sleep began whose end is known."
        self._seen_s = self._seen_late_s = 0.0
        "The seconds that samples stand for which have seen it, and those after its end."
        if self._measured is not None:
            self._measured.waits_until_s = None
            self._steps_s, coroutine = self._measured.steps_s, self._measured.coroutine
        self.is_running = bool(getattr(coroutine, "cr_running", False))
        "Whether its step runs at this moment: the thread of the event loop is the run's own then."
        self.is_known = self.is_running or self._read(coroutine, account)

    def is_over(self) -> bool:
        """Returns: Whether there was another step of the coroutine since, or may have been."""
        measured: Any = self._measured
        return measured is None or measured.steps_s != self._steps_s or measured.coroutine.cr_running

    @property
    def descriptor(self) -> int | None:
        """The connection that it awaits."""
        return self._readiness.descriptor

    def add(
        self, account: Account, spent_s: float, now_s: float, has_bytes: Mapping[int, bool], *, is_busy: bool
    ) -> bool:
        """Adds seconds to its account: to waits for the event loop, or to what it awaits.

        Parameters:
          account: The account.
          spent_s: What this sample stands for.
          now_s: The time of the sample.
          has_bytes: Descriptor -> whether there were bytes to read at that time.
          is_busy: Whether the event loop executes something at this moment, or is about to.

        Returns: Whether it waits for the event loop.
        """
        is_late = self._can_go_on or self._readiness.has_come(now_s, has_bytes, is_busy=is_busy)
        account.add(LOOP_WAIT if is_late else self._key, spent_s)
        self._seen_s += spent_s
        self._seen_late_s += spent_s if is_late else 0.0
        return is_late

    def correct(self, account: Account) -> None:
        """Adds the correction to its account, which asks for it until then."""
        account.correction = None
        for key, more_s in self.correction().items():
            account.add(key, more_s)

    def correction(self) -> dict[Hashable, float]:
        """Returns: What divides a sleep that is over as it was: its end and the next step are known exactly."""
        since_s, due_s = self._sleeps_since_s, self._readiness.due_s
        until_s = None if self._measured is None else self._measured.waits_until_s
        if since_s is None or due_s is None or until_s is None or until_s - due_s < _LATE_S:
            return {}
        more_s = self._seen_s * min((until_s - due_s) / (until_s - since_s), 1.0) - self._seen_late_s
        return {LOOP_WAIT: more_s, self._key: -more_s}

    def _read(self, coroutine: Coroutine[Any, Any, Any], account: Account) -> bool:
        """Finds what is awaited, through tasks that await others. Returns: Whether it has not ended."""
        places, chain, is_running = awaited_by(coroutine)
        if not places:
            return False
        future = future_of(chain[-1])
        for _ in range(_MAX_TASKS):
            inner: Any = future.get_coro() if isinstance(future, asyncio.Task) and not future.done() else None
            if inner is None:
                break
            further, inner_chain, is_running = awaited_by(inner)
            self._steps_s = None  # The steps of the tasks are not counted.
            if not further:
                break
            places, chain = places + further, inner_chain
            future = future_of(chain[-1])
        upward = places[::-1]
        awaitable = chain[-1]
        holder = chain[-3] if len(chain) > 2 and is_event_of_socket(upward) else chain[-2]
        self._key = tuple([(id(code), line) for code, line in upward[:_PLACES]])
        self._readiness = Readiness(future, holder, reads=reads_answer(upward))
        self._can_go_on = self._readiness.is_done or (not is_running and can_go_on(upward[0][0], awaitable))
        since_s = None if self._measured is None else self._measured.waits_since_s
        if not self.is_over():  # Otherwise what was read may be of the next wait.
            self._sleeps_since_s = since_s

        def name() -> Name:
            wait = awaited_wait(Branch((), awaitable, holder), upward, None)
            # It may be done by now, or its connection be about to be closed.
            is_whole = wait.kind not in ("socket", "loop") or wait.peer is not None
            return Name(("awaiting", on_of(wait)), is_whole)

        if not self._can_go_on and not account.is_named(self._key):
            account.note(self._key, self._key, 0.0, name)  # The key is the place.
        return True


def _is_outside_of_steps(coroutine: Coroutine[Any, Any, Any]) -> bool:
    """Returns: Whether a measured coroutine has not begun, or has ended."""
    return isinstance(coroutine, MeasuredCoroutine) and (coroutine.began_s is None or coroutine.ended_s is not None)


def is_loop_busy(thread_id: int) -> bool:
    """Returns: Whether the event loop of a thread executes something."""
    look = Look()
    places = look.thread(thread_id)
    look.take()
    return bool(executed_by_loop(places))
