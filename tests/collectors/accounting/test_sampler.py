"""What a run is seen in, by planned moments and by looks of the sampler itself."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import pytest

from dramatiq_diag.collectors.accounting.account import Account
from dramatiq_diag.collectors.accounting.calls import Calls, on_of
from dramatiq_diag.collectors.accounting.neighbours import NativeIds, Neighbours
from dramatiq_diag.collectors.accounting.sampler import AccountSampler
from dramatiq_diag.runtime.switch_interval import SwitchInterval
from dramatiq_diag.runtime.thread_calls import ThreadCalls
from dramatiq_diag.runtime.timed_calls import Moment, TimedCalls
from dramatiq_diag.runtime.waits.wait import Wait
from support import PATIENCE_S, eventually

ENOUGH = 20


@contextmanager
def sampled(function, *, open_calls):
    """Yields the account of a thread that executes a function until the end of the block, and the sampler."""
    native_ids, warnings = NativeIds(), []
    sampler = AccountSampler(
        SwitchInterval(),
        Neighbours({}, {}, native_ids),
        native_ids,
        lambda: None,
        lambda *args: warnings.append(args),
        open_calls,
    )
    ended, begun = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: (begun.set(), function(ended)))
    sampler.start()
    thread.start()
    begun.wait()
    account = Account(thread.ident, thread.native_id, lambda: 0.0)
    sampler.add(account)
    try:
        yield account, sampler
    finally:
        ended.set()
        thread.join()
        sampler.remove(account)
        sampler.stop()
    assert warnings == []


ways = pytest.mark.parametrize("open_calls", [TimedCalls.opened, lambda _: None], ids=["planned", "looks"])


def largest_of(account):
    """Returns: The name of what it was seen in most, once it was seen often enough."""
    eventually(lambda: account.sample_count >= ENOUGH, "it was seen often")
    seen = account.seen(0.0)
    return max(seen, key=seen.get)


@ways
def test_a_sleep(open_calls):
    def sleep(ended):
        while not ended.is_set():
            time.sleep(0.05)

    with sampled(sleep, open_calls=open_calls) as (account, _):
        assert largest_of(account) == ("blocked", "sleep")


@ways
def test_a_sleep_of_who_waits_for_a_child_is_for_the_child(open_calls):
    def wait(ended):
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            while not ended.is_set():
                with suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
            child.communicate(b"\n")

    with sampled(wait, open_calls=open_calls) as (account, _):
        assert largest_of(account) == ("blocked", "a child process (subprocess)")


def test_the_thread_of_a_coroutine_is_not_looked_at_that_begins_during_planned_samples():
    begins = threading.Event()

    class Slow:
        """Planned samples that take until a coroutine has begun."""

        def __init__(self, count):
            self._calls = TimedCalls.opened(count)
            self.plan, self.close = self._calls.plan, self._calls.close

        @property
        def free(self):
            return self._calls.free

        def take(self, count):
            found = self._calls.take(count)
            begins.set()
            eventually(lambda: len(added) == 1, "a coroutine has begun")
            return found

    def sleep(ended):
        while not ended.is_set():
            time.sleep(0.05)

    added = []
    with sampled(sleep, open_calls=Slow) as (account, sampler):
        assert begins.wait(PATIENCE_S)
        own = Account(account.thread_id, account.native_id, lambda: 0.0, lambda: None)
        sampler.add(own)
        added.append(own)
        eventually(lambda: account.sample_count >= ENOUGH, "it is looked at")
        sampler.remove(own)
        assert own.seen(0.0) == {}


def test_a_lock_has_the_time_of_its_samples_however_many_turns_took_them():
    locks, turns, thread_ids = (threading.Lock(), threading.Lock()), iter([1, 3]), []
    acquired, is_seen, is_over = [], threading.Event(), threading.Event()

    def wait(_):
        thread_ids.append((threading.get_ident(), threading.get_native_id()))
        with locks[0]:
            acquired.append(0)
        with locks[1]:
            acquired.append(1)

    read, key_of = ThreadCalls().line, Calls().key

    def line_of_wait():
        thread_id, native_id = thread_ids[0]
        line = read(native_id)
        is_in_wait = sys._current_frames()[thread_id].f_code is wait.__code__
        return {native_id: line} if is_in_wait and key_of(line) == ("futex", None) else None

    class Turns:
        """Samples of 0.1 s each: one is taken while the thread waits for its first lock, then three at once."""

        free = 0

        def __init__(self, count):
            self.at_s = time.perf_counter()

        def take(self, count):
            samples = next(turns, 0)
            if not samples:
                is_seen.set()
                is_over.wait(PATIENCE_S)
                return []
            if samples == 3:
                locks[0].release()
                eventually(lambda: acquired, "it has its first lock")
            lines = eventually(line_of_wait, "it waits for a lock")
            ends_s = [self.at_s + 0.1 * number for number in range(1, samples + 1)]
            self.at_s = ends_s[-1]
            return [Moment(end_s, end_s, lines) for end_s in ends_s]

        def close(self):
            pass

    for lock in locks:
        lock.acquire()
    with sampled(wait, open_calls=Turns) as (account, _):
        assert is_seen.wait(PATIENCE_S)
        seen = account.seen(0.0)
        locks[1].release()
        is_over.set()
    assert sorted(seen.values()) == [pytest.approx(0.1, 0.01), pytest.approx(0.3, 0.01)]


@pytest.mark.parametrize(
    ("wait", "expected"),
    [
        (Wait("socket", None, "waits for an answer of 127.0.0.1:80", "127.0.0.1:80"), "127.0.0.1:80"),
        (Wait("sleep", None, "sleeps (gevent)"), "sleep"),
        (Wait("child", None, "waits until the child process 7 has ended"), "the child process 7"),
        (Wait("loop", None, "is an event loop that has nothing to do"), "an event loop that has nothing to do"),
        (Wait("lock", None, "is a thread of a pool that has no work"), "a thread of a pool that has no work"),
        (Wait("unknown", None, "waits in the call foo of the kernel"), "the call foo of the kernel"),
        (
            Wait("socket", None, "resolves a host name: waits for an answer of a server, without a time limit"),
            "the resolution of a host name: waits for an answer of a server",
        ),
        (Wait("file", None, "reads from /tmp/is a file"), "/tmp/is a file"),
    ],
)
def test_what_is_waited_for_is_a_noun(wait, expected):
    assert on_of(wait) == expected


@ways
def test_a_lock_is_named_by_its_place(open_calls):
    lock = threading.Lock()
    lock.acquire()

    def wait_for_lock(ended):
        while not ended.is_set():
            lock.acquire(timeout=0.05)

    with sampled(wait_for_lock, open_calls=open_calls) as (account, _):
        part, on = largest_of(account)
    assert part == "blocked"
    assert on.startswith("a lock, in ")
    assert "wait_for_lock (test_sampler.py:" in on


@ways
def test_a_thread_that_computes_alone_does_not_wait_for_the_gil(open_calls):
    def compute(ended):
        while not ended.is_set():
            sum(range(1000))

    with sampled(compute, open_calls=open_calls) as (account, _):
        eventually(lambda: account.sample_count >= ENOUGH, "it was seen often")
        seen = account.seen(0.0)
    # The sampler itself has the GIL now and then, and a page may have to be read.
    assert not [on for part, on in seen if part == "blocked" and on and ("lock" in on or "sleep" in on)]


def test_planned_moments_leave_the_switch_interval_alone():
    with sampled(lambda ended: ended.wait(), open_calls=TimedCalls.opened) as (account, _):
        eventually(lambda: account.sample_count >= ENOUGH, "it was seen often")
        assert sys.getswitchinterval() == pytest.approx(0.005)


def test_a_run_that_comes_later_is_seen_beside_others():
    with sampled(lambda ended: ended.wait(), open_calls=TimedCalls.opened) as (first, sampler):
        eventually(lambda: first.sample_count >= ENOUGH, "it was seen often")
        second = Account(threading.get_ident(), threading.get_native_id(), lambda: 0.0)
        sampler.add(second)
        eventually(lambda: second.sample_count >= ENOUGH, "it was seen often as well")
        sampler.remove(second)
        assert ("blocked", "sleep") in second.seen(0.0)


def test_the_moments_stay_open_between_runs_and_no_descriptor_after_the_end():
    opened = []

    def open_calls(places):
        opened.append(TimedCalls.opened(places))
        return opened[-1]

    def sample_again_and_again():
        with sampled(lambda ended: ended.wait(), open_calls=open_calls) as (account, sampler):
            for _ in range(3):
                eventually(lambda: account.sample_count >= ENOUGH, "it was seen often")
                sampler.remove(account)
                eventually(lambda: sampler.is_idle, "it is idle")
                account.sample_count = 0
                sampler.add(account)

    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    sample_again_and_again()
    (calls,) = opened
    assert (calls.planned, calls.free) == (0, 0)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_time_before_the_start_and_after_the_end_is_not_charged():
    started_s = time.perf_counter() + 1e6
    with sampled(lambda ended: ended.wait(), open_calls=TimedCalls.opened) as (first, sampler):
        later = Account(threading.get_ident(), threading.get_native_id(), lambda: started_s)
        sampler.add(later)
        eventually(lambda: first.sample_count >= ENOUGH, "others are seen often")
        assert later.seen(0.0) == {}
        sampler.remove(later)
        sampler.remove(first)
        eventually(lambda: not sampler.accounts, "no account is left")
        before = first.sample_count
        time.sleep(0.1)
        assert first.sample_count == before
