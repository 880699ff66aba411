"""Looks many times a second at what all accounted runs of the process do, on one thread."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import Any

from ...errors import GUARDED
from ...runtime.sampling_thread import SamplingThread
from ...runtime.switch_interval import SwitchInterval
from ...runtime.thread_calls import ThreadCalls
from ...runtime.thread_state import cpu_s
from ...runtime.timed_calls import TimedCalls
from .account import Account, Name
from .calls import GIL, RUNNING, SLEEP, UNKNOWN, Calls
from .coroutine_waits import CoroutineWaits, is_loop_busy
from .neighbours import NativeIds, Neighbours

#: Seconds between samples on average, and between looks of the thread itself; longer where they would take more than a
#: share of the time: so much for each run, and at most so much for all.
INTERVAL_S = 0.005
_LOOK_INTERVAL_S = 0.01
_LOOKS_SHARE = 0.02
_MOST_SHARE = 0.05

#: Samples that are planned ahead, and how many are taken at once.
_PLANNED, _AT_ONCE = 12, 4

#: By how much the interval grows when all planned samples had passed before this thread had the GIL again, and what is
#: left of that after each turn. Where eight threads compete for the GIL it waits for eight switch intervals of 5 ms.
#: Samples that always began with its turn would see the same threads wait, and the same ones compute, each time.
_GROWS, _SHRINKS = 1.5, 0.99

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

#: A thread that used the CPU for a smaller part of the time did not have the GIL, most likely.
_LEAST_SHARE = 0.02

#: What no stack tells more about.
_PLAIN = (RUNNING, GIL, UNKNOWN, SLEEP)

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
        self._planned_until_s = 0.0
        self._stretch = 1.0
        "By how much the interval of planned samples is longer than it has to be."
        self._clocks: dict[int, float] = {}
        "Native id of a thread -> its CPU time at the last look."
        self._used: dict[int, float] = {}
        "Native id of a thread, but for this one -> the CPU time that it used between the last two looks."

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
        self._plan(planned, time.perf_counter())
        is_young = any(account.started() > time.perf_counter() - _YOUNG_S for account in self.accounts)
        moments = planned.take(1 if is_young else _AT_ONCE)
        accounts = self.accounts
        for at_s, until_s, lines in moments:
            for account in accounts:
                if account.started() <= at_s and account.native_id in lines:
                    key = self._calls.key(lines[account.native_id])
                    account.add(key, min(account.elapse(until_s), _MOST_S))
        for account in accounts:
            self._note(account)
        self._neighbours.look()
        self._add_took(began_s, max(len(moments), 1))

    def _plan(self, planned: TimedCalls, now_s: float) -> None:
        ran_dry = 0.0 < self._planned_until_s < now_s
        self._stretch = self._stretch * _GROWS if ran_dry else max(self._stretch * _SHRINKS, 1.0)
        interval_s = self._interval_s * self._stretch
        for _ in range(planned.free):
            from_s = max(self._planned_until_s, now_s)  # Nothing is planned for the past.
            self._planned_until_s = from_s + interval_s
            planned.plan(self._uniform(from_s, self._planned_until_s), self._planned_until_s, self._sampled_ids)

    def _note(self, account: Account) -> None:
        """Notes where an account's thread waits now, so that what it was seen in can be named."""
        line = self._lines.line(account.native_id)
        key = self._calls.key(line)
        if key not in _PLAIN:
            self._note_place(account, key, line, account.thread_id, account.native_id)

    def _note_place(self, account: Account, key: Hashable, line: bytes, thread_id: int, native_id: int) -> None:
        place = self._calls.place(key, thread_id)

        def name() -> Name | None:
            on = self._calls.name(line, place, thread_id, lambda: self._lines.line(native_id))
            return None if on is None else Name(("blocked", on))

        account.note(key, place, name)

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
        if now_s > self._clocks_at_s + _CLOCKS_S:
            self._clocks_at_s = now_s
            self._look_at_clocks({*self._native_ids().values(), *lines})
            self._neighbours.look()
        waiting = self._waiting_for_gil(keys) if threads or running else {}
        for account in threads:
            self._add(account, account.elapse(now_s), account.thread_id, account.native_id, lines, keys, waiting)
        for account in running:
            spent_s = account.elapse(now_s)
            account.in_steps_s += spent_s
            self._add(account, spent_s, loop_id, loop_native_id, lines, keys, waiting)

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
            self._note_place(account, key, lines[native_id], thread_id, native_id)

    def _look_at_clocks(self, native_ids: set[int]) -> None:
        before, self._clocks = self._clocks, {each: cpu_s(each) or 0.0 for each in native_ids}
        self._used = {each: max(now_s - before.get(each, now_s), 0.0) for each, now_s in self._clocks.items()}
        self._used.pop(threading.get_native_id(), None)

    def _waiting_for_gil(self, keys: Mapping[int, Hashable]) -> dict[int, float]:
        """Returns: Native id of each thread that is seen in the GIL's futex -> the chance that it really waited.

        This thread has the GIL at this moment, so one of them had it before. The more of the CPU time a thread used of
        late, the more likely it was that one.
        """
        asking = [native_id for native_id, key in keys.items() if key == GIL]
        if not asking:
            return {}
        least_s = _LEAST_SHARE * sum(self._used.values())
        busy = [each for each, used_s in self._used.items() if used_s > least_s and each not in keys]
        asking += [each for each in busy if self._calls.key(self._lines.line(each)) == GIL]
        if len(asking) == 1:  # Either it had the GIL, or it waits for this thread; or the one that had it blocks now.
            return {asking[0]: float(self._used[asking[0]] <= least_s and bool(busy))}
        whole_s = sum(self._used.get(native_id, 0.0) for native_id in asking)
        return {each: 1.0 - self._used.get(each, 0.0) / whole_s if whole_s > 0 else 1.0 for each in asking}


def _coroutines_of(accounts: Iterable[Account]) -> dict[Account, Coroutine[Any, Any, Any]]:
    found = ((account, account.coroutine()) for account in accounts if account.coroutine is not None)
    return {account: coroutine for account, coroutine in found if coroutine is not None}
