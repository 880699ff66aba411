"""Reports of a coroutine: what it awaits, or which other one keeps it from its event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, contextmanager, suppress

import psycopg
import pytest
from dramatiq.asyncio import EventLoopThread

from dramatiq_diag.runtime.waits.python import purpose_of_coroutine
from support import PATIENCE_S, eventually
from support.reports import Reports, functions


@pytest.fixture
def loop_thread():
    thread = EventLoopThread(logging.getLogger("loop"))
    thread.start(timeout=PATIENCE_S)
    yield thread
    thread.stop()
    thread.join()


@pytest.fixture
def start(loop_thread):
    """Starts a coroutine as an async actor does; it is cancelled after the test. Returns: Its reports."""
    with ExitStack() as stack:

        def make(coroutine):
            tasks = []

            async def run():
                tasks.append(asyncio.current_task())
                await coroutine

            def work():
                with suppress(CancelledError):
                    loop_thread.run_coroutine(own)

            own = run()
            worker = threading.Thread(target=work, name="worker", daemon=True)
            worker.start()
            eventually(lambda: tasks, "the coroutine runs")
            stack.callback(worker.join)
            stack.callback(loop_thread.loop.call_soon_threadsafe, tasks[0].cancel)
            return Reports(worker.ident, own, loop_thread)

        yield make


async def outer(awaitable):
    await awaitable


@pytest.mark.parametrize(
    ("make", "kind", "detail"),
    [
        (lambda: asyncio.sleep(600), "sleep", "sleeps (asyncio.sleep)"),
        (lambda: asyncio.Event().wait(), "lock", "awaits an event that nobody has set (asyncio.Event)"),
        (lambda: asyncio.Queue().get(), "lock", "awaits an item of an empty queue (asyncio.Queue.get)"),
        (lambda: asyncio.Semaphore(0).acquire(), "lock", "awaits a semaphore that others hold (asyncio.Semaphore)"),
    ],
)
def test_what_a_coroutine_awaits(start, make, kind, detail):
    reports = start(outer(make()))
    report, *_ = reports.until(lambda report: len(report.frames) > 2)

    assert (report.is_task, report.state, report.wait.kind, report.wait.detail) == (True, "awaiting", kind, detail)
    assert functions(report)[-2:] == ["outer", "run"]


def test_the_thread_of_an_async_actor_waits_for_its_coroutine(start):
    reports = start(outer(asyncio.sleep(600)))

    def worker_in_wait():
        worker = next(report for report in reports.take() if report.name == "worker")
        return worker if worker.wait and worker.wait.kind == "future" else None

    worker = eventually(worker_in_wait, "the worker waits")  # It wakes up every 100 ms.
    assert (worker.is_task, worker.wait.detail) == (False, "waits until the coroutine of its actor is done")


async def await_future():
    await asyncio.get_running_loop().create_future()


def test_a_future_that_nobody_completes(start):
    taken = start(outer(await_future()))
    taken.until(lambda report: functions(report)[0] == "await_future")
    report, *others = taken.until(lambda report: report.same_for_s > 0)

    assert (report.wait.kind, report.wait.detail) == ("future", "awaits a future that nobody has completed yet")
    (loop,) = [other for other in others if other.wait and other.wait.kind == "loop"]
    assert loop.wait.detail.startswith("is an event loop that has nothing to do")


def test_the_branches_of_a_coroutine(start):
    async def gather():
        await asyncio.gather(asyncio.sleep(600), await_future())

    reports = start(gather()).until(lambda report: report.name.endswith("branch 1") and "sleep" in functions(report))

    assert [report.wait.kind for report in reports[:2]] == ["sleep", "future"]
    assert all(report.is_task and "gather" in functions(report) for report in reports[:2])


@pytest.mark.parametrize(
    ("function", "detail"),
    [
        (asyncio.to_thread, "awaits the result of a function in a thread (asyncio.to_thread)"),
        (
            lambda function: asyncio.get_running_loop().run_in_executor(None, function),
            "awaits the result of a function in a thread or process of a pool",
        ),
    ],
)
def test_a_function_in_another_thread(start, function, detail):
    release = threading.Event()

    async def work():
        await function(release.wait)

    report, *_ = start(work()).until(lambda report: report.wait and report.wait.kind == "future")
    release.set()

    assert (report.wait.kind, report.wait.detail) == ("future", detail)


def test_a_child_process_of_a_coroutine(start):
    children = []

    async def work():
        children.append(await asyncio.create_subprocess_exec("sleep", "600"))
        await children[0].wait()

    reports = start(work())
    # While the child is being made it is said that it waits until that has begun.
    report, *_ = reports.until(lambda report: report.wait and "has ended" in report.wait.detail)
    children[0].kill()
    eventually(lambda: children[0].returncode is not None, "the child has ended, and was waited for")

    assert (functions(report)[-1], report.wait.kind) == ("run", "child")
    assert report.wait.detail == "waits until a child process has ended (asyncio)"


@pytest.mark.parametrize(
    ("file", "calls", "detail"),
    [
        (
            "/site-packages/asyncpg/pool.py",
            ("Pool._acquire.<locals>._acquire_impl", "Pool._acquire"),
            "waits for a free connection of asyncpg's pool, which is exhausted",
        ),
        ("/site-packages/unknown/pool.py", ("Pool._acquire",), "awaits an item of an empty queue (asyncio.Queue.get)"),
    ],
)
def test_the_functions_of_a_library_tell_what_its_queue_is_for(file, calls, detail):
    def place(name, file):
        return place.__code__.replace(co_qualname=name, co_filename=file), 1

    places = [place("Queue.get", "/lib/asyncio/queues.py"), *(place(name, file) for name in calls)]
    assert purpose_of_coroutine(places).detail == detail


def test_a_stream_of_a_silent_server(start):
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()

        async def read():
            reader, writer = await asyncio.open_connection(host, port)
            with closing(writer), suppress(OSError):
                await reader.readline()

        # A look may come before the event loop has come to its own wait.
        reads = start(read())
        report, *_ = reads.until(
            lambda report: "readline" in functions(report) and report.wait and report.wait.kind == "socket"
        )

    assert (report.wait.kind, report.wait.peer) == ("socket", f"{host}:{port}")
    assert report.wait.detail == f"waits for an answer of {host}:{port}"


@contextmanager
def blocking(loop_thread, function):
    """Blocks the event loop by a coroutine that calls a function."""
    entered = threading.Event()

    async def block():
        entered.set()
        function()

    future = asyncio.run_coroutine_threadsafe(block(), loop_thread.loop)
    entered.wait(PATIENCE_S)
    yield
    future.result(PATIENCE_S)


def test_a_coroutine_that_another_one_starves(start, loop_thread):
    release = threading.Event()
    reports = start(outer(asyncio.sleep(600)))
    with blocking(loop_thread, lambda: release.wait(PATIENCE_S)):
        report, *others = reports.until(lambda report: report.wait and "Event.wait" in report.wait.detail)
        (loop,) = [other for other in others if "block" in functions(other)]
        release.set()

    assert (report.state, report.wait.kind) == ("awaiting", "loop")
    assert report.wait.detail.startswith("waits for the event loop, which is blocked by blocking.<locals>.block (")
    assert report.wait.detail.endswith(", which waits until another thread sets an event (Event.wait)")
    assert (loop.state, loop.wait.kind) == ("blocked", "lock")


def test_a_coroutine_that_computes_starves_others(start, loop_thread):
    release = threading.Event()

    def compute():
        while not release.is_set():
            sum(range(100))

    reports = start(await_future())
    with blocking(loop_thread, compute):
        report, *others = reports.until(lambda report: report.wait and report.wait.kind == "loop")
        release.set()

    assert "which is blocked by blocking.<locals>.block (" in report.wait.detail
    assert [other.state for other in others if "block" in functions(other)] == ["running"]


def test_a_busy_event_loop_that_goes_on_starves_nobody(start, loop_thread):
    release = threading.Event()

    async def spin():
        while not release.is_set():
            await asyncio.sleep(0)

    reports = start(await_future())
    future = asyncio.run_coroutine_threadsafe(spin(), loop_thread.loop)
    kinds = [reports.take()[0].wait.kind for _ in range(10)]
    release.set()
    future.result(PATIENCE_S)

    assert kinds == ["future"] * 10


def test_a_coroutine_that_blocks_shows_what_its_thread_waits_for(start):
    release = threading.Event()

    async def block():
        release.wait(PATIENCE_S)

    report, *_ = start(outer(block())).until(lambda report: report.wait and report.wait.kind == "lock")
    release.set()

    assert (report.is_task, report.state) == (True, "blocked")
    assert functions(report)[:3] == ["wait", "wait", "block"]


def test_a_locked_row_that_a_coroutine_waits_for(start, postgres):
    with postgres.database("template1") as name:
        url = postgres.url(name).replace("postgresql+psycopg://", "postgresql://")
        with psycopg.connect(url) as first:
            first.execute("CREATE TABLE counted AS SELECT 1 AS number")
            first.commit()
            first.execute("UPDATE counted SET number = 2")
            is_done = threading.Event()

            async def update():
                async with await psycopg.AsyncConnection.connect(url) as second:
                    await second.execute("UPDATE counted SET number = 3")
                is_done.set()

            report, *_ = start(update()).until(lambda report: report.wait and "statement" in report.wait.detail)
            first.rollback()
            assert is_done.wait(PATIENCE_S)

    assert report.wait.peer.endswith("/.s.PGSQL.5432")
    assert report.wait.detail == (
        f"waits for {report.wait.peer}, where PostgreSQL commonly listens, the only connection that its event loop "
        "watches: a statement by psycopg is under way, which may wait for a lock of a row"
    )
