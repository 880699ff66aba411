"""`accounting`: where the wall time of real tasks went. No figure depends on how busy the machine is."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from typing import Any

import pytest

from dramatiq_diag.collectors.accounting.account import Account
from dramatiq_diag.collectors.accounting.collector import _AccountingRecording
from dramatiq_diag.collectors.accounting.sampler import AccountSampler
from dramatiq_diag.runtime.kept_file import KeptFile
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import PATIENCE_S, eventually
from support.collectors import spin

LONG_S = 0.6


def account_of(reader: Any, task_id: str) -> dict[str, Any]:
    """Returns: The account, of which the parts add up."""
    account: dict[str, Any] = json.loads(reader.data(task_id, "time_accounting"))
    assert set(account) == {"wall_ms", "samples", "parts", "neighbours"}
    assert sum(round(part["ms"] * 1000) for part in account["parts"]) == round(account["wall_ms"] * 1000)
    return account


def shares(account: dict[str, Any], part: str) -> dict[str | None, float]:
    return {each["on"]: each["ms"] / account["wall_ms"] for each in account["parts"] if each["part"] == part}


def largest(account: dict[str, Any]) -> tuple[str, str | None]:
    """Returns: The largest part, but for the time in which the machine had no processor for the task."""
    most = max((part for part in account["parts"] if part["part"] != "run_queue"), key=lambda part: part["ms"])
    return most["part"], most["on"]


@pytest.fixture
def given(settings):
    return settings(task_diagnostics=["accounting"], task_diagnostics_on_request=["memory"])


@pytest.fixture
def is_seen(monkeypatch):
    """Returns: What tells a task whether it was seen for most of its time.

    Until then it goes on with what it does. A busy machine may let the sampler wait for a processor, and what it has
    not seen is unknown, rightly.
    """
    accounts: list[Account] = []
    add = AccountSampler.add

    def add_noted(sampler: AccountSampler, account: Account) -> None:
        accounts.append(account)
        add(sampler, account)

    monkeypatch.setattr(AccountSampler, "add", add_noted)

    def is_seen() -> bool:
        (account,) = accounts
        seen_s = sum(seconds for (part, _), seconds in account.seen(None).items() if part != "unknown")
        return seen_s > 0.7 * (time.perf_counter() - account.started())

    return is_seen


def test_a_task_that_sleeps_is_blocked_on_sleep(bench, given, stored, is_seen):
    def sleep() -> None:
        while not is_seen():
            time.sleep(LONG_S)

    with bench(given) as tasks:
        task_id = tasks.run(sleep)

    artifact = stored(given).artifacts(task_id)["time_accounting"]
    assert (artifact.status, artifact.filename, artifact.media_type) == (
        "stored",
        "accounting.json",
        "application/json",
    )
    account = account_of(stored(given), task_id)
    assert account["wall_ms"] == pytest.approx(stored(given).runs(task_id)[0].duration_ms, abs=0.01)
    assert account["samples"] > 0
    assert largest(account) == ("blocked", "sleep")


def test_a_task_that_waits_for_a_silent_server_names_its_address(bench, given, stored, is_seen):
    with socket.create_server(("127.0.0.1", 0)) as server, bench(given) as tasks:
        port = server.getsockname()[1]

        def ask() -> None:
            while not is_seen():
                with socket.create_connection(("127.0.0.1", port)) as connection:
                    threading.Timer(LONG_S, connection.shutdown, (socket.SHUT_RDWR,)).start()
                    connection.recv(1)

        task_id = tasks.run(ask)

    assert largest(account_of(stored(given), task_id)) == ("blocked", f"127.0.0.1:{port}")


def test_a_task_that_waits_for_a_lock_says_where(bench, given, stored, is_seen):
    def wait_for_lock() -> None:
        lock = threading.Lock()
        lock.acquire()
        while not is_seen():
            lock.acquire(timeout=LONG_S)

    with bench(given) as tasks:
        task_id = tasks.run(wait_for_lock)

    part, on = largest(account_of(stored(given), task_id))
    assert part == "blocked"
    assert on.startswith("a lock, in ")
    assert "wait_for_lock (test_collector.py:" in on


def test_cpu_time_is_that_of_the_thread_without_the_garbage_collector(bench, given, stored):
    held: list[Any] = [[number] for number in range(100_000)]

    def compute() -> int:
        spin(0.2)
        for _ in range(10):
            gc.collect()
        return len(held)

    with bench(given) as tasks:
        task_id = tasks.run(compute)

    (run,) = stored(given).runs(task_id)
    account = account_of(stored(given), task_id)
    counted = {part: sum(shares(account, part).values()) * account["wall_ms"] for part in ("cpu", "gc", "run_queue")}
    assert run.gc_ms > 0
    assert counted["gc"] == pytest.approx(run.gc_ms, abs=0.01)
    assert counted["cpu"] == pytest.approx(run.cpu_ms - run.gc_ms, abs=0.01)
    assert counted["run_queue"] == pytest.approx(run.run_queue_ms, abs=0.01)


def test_a_neighbour_is_named_with_its_cpu_time(bench, given, stored):
    both, done = threading.Barrier(2), threading.Event()

    def wait() -> None:
        both.wait(PATIENCE_S)
        done.wait(PATIENCE_S)

    def work() -> None:
        both.wait(PATIENCE_S)
        spin(0.3)
        done.set()

    with bench(given, threads=2) as tasks:
        waiting = tasks.actor(wait).send()
        # The neighbour itself is not diagnosed
        working = tasks.actor(work, diagnostics=[]).send()
        tasks.finish()

    account = account_of(stored(given), waiting.message_id)
    (neighbour,) = account["neighbours"]
    assert (neighbour["task_id"], neighbour["actor_name"]) == (working.message_id, "work")
    assert neighbour["cpu_ms"] >= 250


@pytest.mark.parametrize("before_s", [0.0, 0.05])
def test_a_coroutine_that_computes_in_its_last_step_is_a_neighbour(bench, given, stored, before_s):
    computed = threading.Event()

    def wait() -> None:
        computed.wait(PATIENCE_S)
        time.sleep(0.1)

    async def compute() -> None:
        if before_s:
            await asyncio.sleep(before_s)
        spin(0.3)
        computed.set()

    with bench(given, threads=2) as tasks:
        waiting = tasks.actor(wait).send()
        computing = tasks.actor(compute).send()
        tasks.finish()

    (neighbour,) = account_of(stored(given), waiting.message_id)["neighbours"]
    assert neighbour["task_id"] == computing.message_id
    cpu_ms = stored(given).runs(computing.message_id)[0].cpu_ms
    assert neighbour["cpu_ms"] == pytest.approx(cpu_ms, abs=1.0)
    assert cpu_ms >= 300


def test_a_coroutine_awaits_a_sleep_or_waits_for_a_loop_that_is_busy(bench, given, stored):
    asleep = threading.Event()

    async def sleep() -> None:
        await asyncio.sleep(2 * LONG_S)

    async def nap() -> None:
        asleep.set()
        await asyncio.sleep(0.001)

    async def keep_loop() -> None:
        while not asleep.is_set():
            await asyncio.sleep(0.001)
        time.sleep(2 * LONG_S)

    with bench(given, threads=2) as tasks:
        alone = tasks.run(sleep)
        keeping = tasks.actor(keep_loop).send()
        napping = tasks.actor(nap).send()
        tasks.finish()

    assert largest(account_of(stored(given), alone)) == ("awaiting", "sleep")
    account = account_of(stored(given), napping.message_id)
    assert largest(account) == ("loop_wait", None)
    # It is found among the others, though it used no CPU.
    other = account["neighbours"][0]
    loop_wait_ms = shares(account, "loop_wait")[None] * account["wall_ms"]
    assert other["task_id"] == keeping.message_id
    assert 0.8 * loop_wait_ms <= other["loop_ms"] <= loop_wait_ms + 0.001
    assert largest(account_of(stored(given), keeping.message_id)) == ("blocked", "sleep")


def test_a_coroutine_that_has_not_begun_or_lets_others_go_first_waits_for_the_loop(bench, given, stored):
    yielding, keeping, sent = threading.Event(), threading.Event(), threading.Event()

    async def give_way() -> None:
        yielding.set()
        while not keeping.is_set():
            await asyncio.sleep(0)

    async def keep_loop() -> None:
        while not yielding.is_set():
            await asyncio.sleep(0.001)
        keeping.set()
        sent.wait(PATIENCE_S)
        time.sleep(2 * LONG_S)

    async def begin_late() -> None:
        pass

    with bench(given, threads=3) as tasks:
        tasks.actor(keep_loop).send()
        giving = tasks.actor(give_way).send()
        assert keeping.wait(PATIENCE_S)
        late = tasks.actor(begin_late).send()
        sent.set()
        tasks.finish()

    assert largest(account_of(stored(given), giving.message_id)) == ("loop_wait", None)
    assert largest(account_of(stored(given), late.message_id)) == ("loop_wait", None)


@pytest.mark.parametrize("sleep_s", [0.0, 0.2])
def test_a_coroutine_that_has_ended_waits_for_the_loop(bench, given, stored, sleep_s):
    truth: list[float] = []

    async def end() -> None:
        began_s = time.perf_counter()
        if sleep_s:
            await asyncio.sleep(sleep_s)
        # The loop comes to this before it hands over the result.
        asyncio.get_running_loop().call_soon(time.sleep, 2 * LONG_S)
        truth.append(time.perf_counter() - began_s)

    with bench(given) as tasks:
        task_id = tasks.run(end)

    account = account_of(stored(given), task_id)
    (own_s,) = truth
    assert largest(account) == ("loop_wait", None)
    assert sum(shares(account, "loop_wait").values()) >= 2 * LONG_S * 1000 / account["wall_ms"]
    rest_s = account["wall_ms"] / 1000 * (1 - shares(account, "loop_wait")[None])
    assert rest_s == pytest.approx(own_s, abs=0.05)


def test_the_account_of_a_coroutine_has_nothing_of_the_next_one_on_its_thread(bench, given, stored, monkeypatch):
    has_begun, may_end = threading.Event(), threading.Event()
    save = _AccountingRecording.save

    def save_late(recording: _AccountingRecording) -> None:
        assert has_begun.wait(PATIENCE_S)
        save(recording)
        may_end.set()

    monkeypatch.setattr(_AccountingRecording, "save", save_late)

    async def compute() -> None:
        spin(0.1)

    async def follow() -> None:
        has_begun.set()
        while not may_end.is_set():
            await asyncio.sleep(0.001)

    with bench(given) as tasks:
        computing = tasks.actor(compute).send()
        tasks.actor(follow).send()
        tasks.finish()

    (cpu,) = (part["ms"] for part in account_of(stored(given), computing.message_id)["parts"] if part["part"] == "cpu")
    assert cpu == pytest.approx(stored(given).runs(computing.message_id)[0].cpu_ms, abs=0.01)


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "coroutine"])
def test_one_that_begins_late_is_about_the_time_from_then_on(bench, settings, stored, is_async):
    given = settings(task_diagnostics_on_request=["accounting"], triggers="after 0.2s: accounting")

    async def await_sleep() -> None:
        await asyncio.sleep(4 * LONG_S)

    def sleep() -> None:
        time.sleep(4 * LONG_S)

    with bench(given) as tasks:
        task_id = tasks.run(await_sleep if is_async else sleep)

    account = account_of(stored(given), task_id)
    assert account["wall_ms"] < stored(given).runs(task_id)[0].duration_ms - 150
    assert largest(account) == (("awaiting" if is_async else "blocked"), "sleep")


def test_where_proc_cannot_be_read_the_waits_are_not_known(bench, given, stored, monkeypatch):
    monkeypatch.setattr(KeptFile, "opened", lambda *_: None)

    with bench(given) as tasks:
        task_id = tasks.run(time.sleep, LONG_S)

    account = account_of(stored(given), task_id)
    assert {part["part"] for part in account["parts"]} <= {"cpu", "gc", "unknown"}
    assert largest(account) == ("unknown", None)


def test_a_short_run_is_accounted_for_too(bench, given, stored):
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="nothing")

    account_of(stored(given), task_id)


_KILLED = """
import sys, threading, time
from dramatiq import Worker, actor
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(
    task_diagnostics=["accounting"], data_dir=sys.argv[1], cleanup_interval=0)))

@actor(broker=broker)
def hang():
    time.sleep(300)

message = hang.send()
print(message.message_id, flush=True)
Worker(broker, worker_threads=1).start()
threading.Event().wait()
"""


def test_of_a_killed_run_the_account_up_to_the_last_checkpoint_is_left(given, stored, python, bench):
    process = python(_KILLED, str(given.data_dir))
    task_id = process.stdout.readline().strip()
    eventually(lambda: list(given.spool.rglob("*.time_accounting.part")), "there is a checkpoint")
    process.kill()
    process.wait(PATIENCE_S)

    with bench(given):
        pass

    assert stored(given).runs(task_id)[0].status == RunStatus.INTERRUPTED
    artifact = stored(given).artifacts(task_id)["time_accounting"]
    assert artifact.status == ArtifactStatus.PARTIAL
    assert "died" in artifact.reason
    account = account_of(stored(given), task_id)
    assert account["wall_ms"] >= 400
    assert largest(account) == ("blocked", "sleep")
