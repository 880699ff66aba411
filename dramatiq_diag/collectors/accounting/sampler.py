"""Looks many times a second at what all accounted runs of the process do, on one thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping
from typing import Any

from ...errors import GUARDED
from ...runtime.sampling_thread import SamplingThread
from ...runtime.switch_interval import SwitchInterval
from ...runtime.thread_calls import ThreadCalls
from ...runtime.thread_state import cpu_s
from .arithmetic import OTHERS, Where
from .calls import GIL, RUNNING, UNKNOWN, Calls
from .coroutine_waits import CoroutineLook, LoopLook
from .neighbours import NativeIds, Neighbours

#: Seconds between looks on average; longer where looks would take more than a share of the time: so much for each run,
#: and at most so much for all.
INTERVAL_S = 0.01
_LOOKS_SHARE = 0.02
_MOST_SHARE = 0.05

#: How long a thread keeps the GIL at most while it samples, in seconds. What the sampler sees is that much late.
_SWITCH_INTERVAL_S = 0.0005

#: A look that takes more CPU time, as the first one of a run may, counts as one that takes as long as this, in seconds.
_LONGEST_S = 0.001

#: Seconds until it goes on after an error.
_PAUSE_S = 0.1

#: Seconds between readings of the list of threads.
_THREADS_S = 0.25

#: The most different waits that one run is seen in, and how often it is tried to name one of them.
_MAX_KEYS = 1000
_MAX_TRIES = 5

#: A thread that used the CPU for a smaller part of the time did not have the GIL, most likely.
_LEAST_SHARE = 0.02

#: Threads whose names begin so are this package's own.
_OWN_PREFIX = "dramatiq_diag."


class Account:
    """What one run was seen in.

    Parameters:
      thread_id: The thread that executes the run.
      native_id: Its id in the kernel.
      started: Gives the time at which the function was called, by `time.perf_counter`; earlier time is not charged.
      coroutine: Gives the coroutine of an async actor, once there is one; None for other actors.
    """

    def __init__(
        self,
        thread_id: int,
        native_id: int,
        started: Callable[[], float],
        coroutine: Callable[[], Coroutine[Any, Any, Any] | None] | None = None,
    ) -> None:
        self.thread_id = thread_id
        self.native_id = native_id
        self.started = started
        self.coroutine = coroutine
        self.last_s = 0.0
        self.sample_count = 0
        self._seen: dict[Hashable, float] = {}
        "What it was seen in -> the seconds that these samples stand for."
        self._names: dict[Hashable, Where] = {}
        self._tries: dict[Hashable, int] = {}

    def elapse(self, now_s: float) -> float:
        """Returns: The time since the last sample, in seconds."""
        spent_s = now_s - max(self.last_s, self.started())
        self.last_s = now_s
        if spent_s > 0:
            self.sample_count += 1
        return max(spent_s, 0.0)

    def add(self, key: Hashable, spent_s: float, name: Callable[[], Where | None]) -> None:
        """Adds seconds to what it was seen in.

        Parameters:
          key: What it was seen in.
          spent_s: The seconds.
          name: Names it; None if that failed. It is called once, or a few times if it fails.
        """
        if key not in self._seen and len(self._seen) >= _MAX_KEYS:
            key = OTHERS
        self._seen[key] = self._seen.get(key, 0.0) + spent_s
        if key not in self._names and key != OTHERS and self._tries.get(key, 0) < _MAX_TRIES:
            self._tries[key] = self._tries.get(key, 0) + 1
            if (where := name()) is not None:
                self._names[key] = where

    def seen(self, cpu_s: float | None) -> dict[Where, float]:
        """Returns: What the run was seen in off the CPU -> the seconds that these samples stand for.

        Parameters:
          cpu_s: The CPU time of the run meanwhile. The time of a thread on the run queue is counted, that of a
            coroutine is not: it is what it was seen in without a wait, less its CPU time.
        """
        found: dict[Where, float] = {}
        for key, seconds in self._seen.copy().items():
            if key == RUNNING:
                where: Where = ("run_queue" if cpu_s is not None else "unknown", None)
                seconds = max(seconds - (cpu_s or 0.0), 0.0) if self.coroutine is not None else 0.0
            else:
                where = self._names.get(key, ("blocked" if self.coroutine is None else "awaiting", None))
            found[where] = found.get(where, 0.0) + seconds
        return found


class AccountSampler(SamplingThread[Account]):
    """Samples all accounts at each turn; idle without accounts.

    Parameters:
      switch_interval: Kept short while it samples.
      neighbours: Measures the tasks of the process at each turn.
      native_ids: The ids of the threads in the kernel, which it refreshes.
      loop_thread_id: Gives the thread of the event loop, once there is one.
      warn_once: Logs a warning; see `Services`.
    """

    def __init__(
        self,
        switch_interval: SwitchInterval,
        neighbours: Neighbours,
        native_ids: NativeIds,
        loop_thread_id: Callable[[], int | None],
        warn_once: Callable[..., None],
    ) -> None:
        super().__init__("accounting")
        self._warn_once = warn_once
        self._switch_interval = switch_interval
        self._neighbours = neighbours
        self._native_ids = native_ids
        self._loop_thread_id = loop_thread_id
        self._calls, self._lines = Calls(), ThreadCalls()
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
            self._switch_interval.want(self, _SWITCH_INTERVAL_S)
            self._sample_all()
        except GUARDED as error:
            self._warn_once("accounting", error, "A sample of an account was lost.")
            time.sleep(_PAUSE_S)
        finally:
            self._switch_interval.want(self, None)
            if not self.accounts:
                self._neighbours.forget()

    def _sample_all(self) -> None:
        """Samples until no account is left."""
        uniform = random.Random().uniform  # noqa: S311 - no secret depends on it.
        clock = time.perf_counter
        threads_at, took_s = -1.0, 0.0
        while self.is_wanted:
            interval_s = max(INTERVAL_S, took_s / min(_LOOKS_SHARE * len(self.accounts) or 1.0, _MOST_SHARE))
            time.sleep(interval_s * uniform(0.5, 1.5))
            began_s, began_cpu_s = clock(), time.thread_time()
            self._sample(began_s)
            if began_s > threads_at + _THREADS_S:  # After the sample: it may give up the GIL.
                threads_at = began_s
                self._native_ids.refresh()
                self._lines.keep_only(set(self._native_ids().values()))
            took_s = 0.9 * took_s + 0.1 * min(time.thread_time() - began_cpu_s, _LONGEST_S)

    def _sample(self, now_s: float) -> None:
        native_ids = self._native_ids()
        accounts = [account for account in self.accounts if account.started() < now_s]
        lines = {account.native_id: self._lines.line(account.native_id) for account in accounts}
        loop_id = self._loop_thread_id() if any(account.coroutine for account in accounts) else None
        loop_native_id = native_ids.get(loop_id or 0, 0)
        if loop_id is not None:
            lines[loop_native_id] = self._lines.line(loop_native_id)
        looks = look_at_all(accounts, loop_id or 0)
        self._look_at_clocks({*native_ids.values(), *lines})
        threads = {account.native_id: account.thread_id for account in accounts} | {loop_native_id: loop_id or 0}
        keys = {native_id: self._calls.key(line, threads[native_id]) for native_id, line in lines.items()}
        waiting = self._waiting_for_gil(keys)
        for account in accounts:
            if account.coroutine is None:
                self._add(account, account.elapse(now_s), account.thread_id, account.native_id, lines, keys, waiting)
        for account, look in looks:
            spent_s = account.elapse(now_s)
            if look.is_running:
                self._add(account, spent_s, loop_id or 0, loop_native_id, lines, keys, waiting)
            elif look.is_known:
                account.add(look.key, spent_s, look.name)
        self._neighbours.look()

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
        if key == RUNNING:
            account.add(key, spent_s, lambda: None)
        elif key == GIL:
            account.add(key, spent_s * waiting[native_id], lambda: ("gil_wait", None))
        elif key == UNKNOWN:
            account.add(key, spent_s, lambda: ("unknown", None))
        else:

            def name() -> Where | None:
                on = self._calls.name(lines[native_id], key, thread_id, lambda: self._lines.line(native_id))
                return None if on is None else ("blocked", on)

            account.add(key, spent_s, name)

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
        asking += [each for each in busy if self._calls.key(self._lines.line(each), 0) == GIL]
        if len(asking) == 1:  # Either it had the GIL, or it waits for this thread; or the one that had it blocks now.
            return {asking[0]: float(self._used[asking[0]] <= least_s and bool(busy))}
        whole_s = sum(self._used.get(native_id, 0.0) for native_id in asking)
        return {each: 1.0 - self._used.get(each, 0.0) / whole_s if whole_s > 0 else 1.0 for each in asking}


def look_at_all(accounts: Iterable[Account], loop_thread_id: int) -> list[tuple[Account, CoroutineLook]]:
    """Returns: The accounts of coroutines, each with what one look has seen."""
    pairs = [(account, account.coroutine()) for account in accounts if account.coroutine is not None]
    if not pairs:
        return []
    look = LoopLook(loop_thread_id)
    asked = [(account, CoroutineLook(coroutine, look)) for account, coroutine in pairs if coroutine is not None]
    look.take()
    for _, found in asked:
        found.read()
    return asked
