"""Looks many times a second at what all accounted runs of the process do, on one thread."""

from __future__ import annotations

import random
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import Any

from ...errors import GUARDED
from ...runtime.sampling_thread import SamplingThread
from ...runtime.switch_interval import SwitchInterval
from ...runtime.thread_calls import ThreadCalls
from ...runtime.timed_calls import TimedCalls
from .account import Account, Name
from .calls import GIL, RUNNING, UNKNOWN, Calls
from .coroutine_waits import CoroutineWaits, is_loop_busy
from .gil_chances import GilChances
from .neighbours import NativeIds, Neighbours
from .plan import Plan

#: Seconds between samples on average, and between looks of the thread itself; longer where they would take more than a
#: share of the time: so much for each run, and at most so much for all.
INTERVAL_S = 0.005
_LOOK_INTERVAL_S = 0.01
_LOOKS_SHARE = 0.02
_MOST_SHARE = 0.05

#: Samples that are planned ahead, and how many are taken at once.
_PLANNED, _AT_ONCE = 12, 4

#: A sample stands for so many seconds at most. Longer gaps, as on a machine that is much too busy, are nobody's.
_MOST_S = 0.1

#: Seconds until the samples of a run are no longer taken one by one, so that a short run has all of its own.
_YOUNG_S = 0.25

#: How long a thread keeps the GIL at most while this one looks by itself, in seconds. What it sees is that much late.
_SWITCH_INTERVAL_S = 0.0005

#: A turn that takes more CPU time, as the first one of a run may, counts as one that takes as long as this, in seconds.
_LONGEST_S = 0.001

#: Seconds until it goes on after an error.
_PAUSE_S = 0.1

#: Seconds between readings of the CPU times of all threads, while this thread looks by itself.
_CLOCKS_S = 0.05

#: Seconds between readings of the list of threads.
_THREADS_S = 0.25

#: What no stack tells more about.
_PLAIN = (RUNNING, GIL, UNKNOWN)

#: Signals that tell of a fault of the thread itself.
_OF_THE_THREAD = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGTRAP", "SIGSYS")


class AccountSampler(SamplingThread[Account]):
    """Samples all accounts; idle without accounts.

    The C library reads the calls of the threads at planned moments, and this thread takes them some at a time; see
    `TimedCalls`. Beside coroutines, and without glibc, it looks by itself.

    Parameters:
      switch_interval: Kept short while it looks by itself.
      neighbours: Measures the tasks of the process at each turn.
      native_ids: The ids of the threads in the kernel, which it refreshes.
      loop_thread_id: Gives the thread of the event loop, once there is one.
      warn_once: Logs a warning; see `Services`.
      open_calls: Opens the planned moments; None where the system has none.
    """

    def __init__(
        self,
        switch_interval: SwitchInterval,
        neighbours: Neighbours,
        native_ids: NativeIds,
        loop_thread_id: Callable[[], int | None],
        warn_once: Callable[..., None],
        open_calls: Callable[[int], TimedCalls | None] = TimedCalls.opened,
    ) -> None:
        super().__init__("accounting")
        self._warn_once = warn_once
        self._switch_interval = switch_interval
        self._neighbours = neighbours
        self._native_ids = native_ids
        self._loop_thread_id = loop_thread_id
        self._open_calls = open_calls
        self._is_open = False
        self._planned: TimedCalls | None = None
        self._calls, self._lines = Calls(), ThreadCalls()
        self._waits = CoroutineWaits()
        self._uniform = random.Random().uniform  # noqa: S311 - no secret depends on it.
        self._took_s = 0.0
        "The CPU time that a sample takes here."
        self._threads_at_s = self._clocks_at_s = -1.0
        self._sampled_ids: set[int] = set()
        "The threads whose calls are read, also between runs: what is read of a run is planned before it begins."
        self._plan, self._gil_chances = Plan(), GilChances()

    def start(self) -> None:
        self._native_ids.refresh()
        super().start()

    @property
    def accounts(self) -> frozenset[Account]:
        """The accounts that are sampled."""
        return self.sampled

    def sample_all(self) -> None:
        try:
            self._native_ids.refresh()  # Threads of workers begin after this one.
            self._neighbours.begin()
            self._sample_all(self._opened())
        except GUARDED as error:
            self._warn_once("accounting", error, "A sample of an account was lost.")
            time.sleep(_PAUSE_S)
        finally:
            self._switch_interval.want(self, None)
            if not self.accounts:
                self._waits = CoroutineWaits()
                self._neighbours.rest()

    def stop(self) -> None:
        super().stop()
        if self._planned is not None:
            self._planned.close()

    def _opened(self) -> TimedCalls | None:
        """Returns: The planned moments, which stay open for later runs; None where the system has none."""
        if not self._is_open:
            self._is_open = True
            signals = signal.valid_signals() - {getattr(signal, name, None) for name in _OF_THE_THREAD}
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
            self._planned = self._open_calls(_PLANNED)
        return self._planned

    def _sample_all(self, planned: TimedCalls | None) -> None:
        """Samples until no account is left."""
        while self.is_wanted:
            is_planned = planned is not None and not any(account.coroutine for account in self.accounts)
            self._switch_interval.want(self, None if is_planned else _SWITCH_INTERVAL_S)
            if planned is not None and is_planned:
                self._take(planned)
            else:
                self._wait_and_look()
            if (now_s := time.perf_counter()) > self._threads_at_s + _THREADS_S:  # It may give up the GIL.
                self._threads_at_s = now_s
                self._native_ids.refresh()
                present = set(self._native_ids().values())
                self._lines.keep_only(present)
                self._sampled_ids &= present

    @property
    def _interval_s(self) -> float:
        return max(INTERVAL_S, self._took_s / min(_LOOKS_SHARE * len(self.accounts) or 1.0, _MOST_SHARE))

    def _add_took(self, began_s: float, samples: int) -> None:
        took_s = min((time.thread_time() - began_s) / samples, _LONGEST_S)
        self._took_s = 0.9 * self._took_s + 0.1 * took_s

    # Planned moments

    def _take(self, planned: TimedCalls) -> None:
        """Plans as many samples as there is room for, and takes some."""
        began_s = time.thread_time()
        self._sampled_ids |= {account.native_id for account in self.accounts}
        self._plan.fill(planned, self._sampled_ids, self._interval_s, time.perf_counter())
        is_young = any(account.started() > time.perf_counter() - _YOUNG_S for account in self.accounts)
        moments = planned.take(1 if is_young else _AT_ONCE)
        # One of a coroutine may have been added meanwhile: its thread only waits for the event loop.
        accounts = [account for account in self.accounts if account.coroutine is None]
        taken: defaultdict[tuple[Account, Hashable], float] = defaultdict(float)
        for at_s, until_s, lines in moments:
            for account in accounts:
                if account.started() <= at_s and account.native_id in lines:
                    key = self._calls.key(lines[account.native_id])
                    account.add(key, spent_s := min(account.elapse(until_s), _MOST_S))
                    taken[account, key] += spent_s
        for account in accounts:
            self._note(account, taken)
        self._neighbours.look()
        self._add_took(began_s, max(len(moments), 1))

    def _note(self, account: Account, taken: Mapping[tuple[Account, Hashable], float]) -> None:
        """Notes where an account's thread waits now, so that what it was seen in can be named.

        Parameters:
          account: The account.
          taken: An account, and what it was seen in since the last such note -> the seconds of that.
        """
        line = self._lines.line(account.native_id)
        key = self._calls.key(line)
        if key not in _PLAIN:
            spent_s = taken.get((account, key), 0.0)
            self._note_place(account, key, spent_s, line, account.thread_id, account.native_id)

    def _note_place(
        self, account: Account, key: Hashable, spent_s: float, line: bytes, thread_id: int, native_id: int
    ) -> None:
        place = self._calls.place(key, thread_id)

        def name() -> Name | None:
            on = self._calls.name(line, place, thread_id, lambda: self._lines.line(native_id))
            return None if on is None else Name(("blocked", on))

        account.note(key, place, spent_s, name)

    # Looks of this thread

    def _wait_and_look(self) -> None:
        threads = any(account.coroutine is None for account in self.accounts)
        interval_s = max(self._interval_s, _LOOK_INTERVAL_S if threads else INTERVAL_S)
        time.sleep(interval_s * self._uniform(0.5, 1.5))
        began_s = time.thread_time()
        self._look(time.perf_counter())
        self._add_took(began_s, 1)

    def _look(self, now_s: float) -> None:
        self._waits.begin()
        accounts = self.accounts
        threads = [account for account in accounts if account.coroutine is None and account.started() < now_s]
        coroutines = _coroutines_of(accounts)
        loop_id = (self._loop_thread_id() or 0) if coroutines else 0
        loop_native_id = self._native_ids().get(loop_id, 0)
        own = [account.native_id for account in threads] + [loop_native_id] * bool(coroutines)
        lines = {native_id: self._lines.line(native_id) for native_id in own}
        keys = {native_id: self._calls.key(line) for native_id, line in lines.items()}
        # A loop that waits for a processor or the GIL has left its selector, though its stack still says it selects.
        is_busy = bool(coroutines) and (keys[loop_native_id] in (RUNNING, GIL) or is_loop_busy(loop_id))
        running = self._waits.look(coroutines, now_s, is_busy=is_busy)
        kept = self._neighbours.kept() if coroutines else {}
        for account, spent_s in self._waits.late.items():
            account.add_kept(kept, spent_s)
        if now_s > self._clocks_at_s + _CLOCKS_S:
            self._clocks_at_s = now_s
            self._gil_chances.read_clocks({*self._native_ids().values(), *lines})
            self._neighbours.look()
        waiting = self._gil_chances.of(keys, self._key_of) if threads or running else {}
        for account in threads:
            self._add(account, account.elapse(now_s), account.thread_id, account.native_id, lines, keys, waiting)
        for account in running:
            spent_s = account.elapse(now_s)
            account.in_steps_s += spent_s
            self._add(account, spent_s, loop_id, loop_native_id, lines, keys, waiting)

    def _key_of(self, native_id: int) -> Hashable:
        return self._calls.key(self._lines.line(native_id))

    def _add(
        self,
        account: Account,
        spent_s: float,
        thread_id: int,
        native_id: int,
        lines: Mapping[int, bytes],
        keys: Mapping[int, Hashable],
        waiting: Mapping[int, float],
    ) -> None:
        """Adds a sample of a thread to an account."""
        key = keys[native_id]
        chance = waiting[native_id] if key == GIL else 1.0
        account.add(key, spent_s * chance)
        account.add(RUNNING, spent_s * (1.0 - chance))
        if key not in _PLAIN:
            self._note_place(account, key, spent_s * chance, lines[native_id], thread_id, native_id)


def _coroutines_of(accounts: Iterable[Account]) -> dict[Account, Coroutine[Any, Any, Any]]:
    found = ((account, account.coroutine()) for account in accounts if account.coroutine is not None)
    return {account: coroutine for account, coroutine in found if coroutine is not None}
