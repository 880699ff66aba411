"""Ways of being stuck: each is told by a look from inside the process, and named right."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, closing, contextmanager

import psutil
import psycopg
import pytest

from dramatiq_diag.runtime.thread_state import ThreadStateReader
from support import PATIENCE_S, eventually, planted
from support.planted import state_in_call, state_of, stuck

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells what its threads wait for")

_POLLS = ("poll", "ppoll")
_SLEEPS = ("clock_nanosleep", "nanosleep")


def text_of(address):
    host, port, *more = address
    return f"[{host}]:{port}" if more else f"{host}:{port}"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize(("timeout_s", "calls"), [(None, ("recvfrom",)), (50, _POLLS)])
def test_an_answer_of_a_silent_server(timeout_s, calls, family):
    with stuck(planted.receiving(timeout_s, family)) as (thread, address):
        state = state_in_call(thread, *calls)

    assert (state.state, state.wait.kind, state.wait.peer) == ("blocked", "socket", text_of(address))
    limit = "" if timeout_s else ", without a time limit"
    assert state.wait.detail == f"waits for an answer of {text_of(address)}{limit}"


@pytest.mark.parametrize(("timeout_s", "calls"), [(None, ("connect",)), (50, _POLLS)])
def test_a_connection_that_is_not_made(timeout_s, calls):
    with stuck(planted.connecting(timeout_s)) as (thread, address):
        state = state_in_call(thread, *calls)

    assert (state.wait.kind, state.wait.peer) == ("socket", text_of(address))
    assert state.wait.detail.startswith(f"waits for a connection to {text_of(address)}")


def test_a_tls_handshake():
    with stuck(planted.shaking_hands()) as (thread, address):
        state = state_in_call(thread, "read", "recvfrom", "poll")

    assert (state.wait.kind, state.wait.peer) == ("socket", text_of(address))
    assert state.wait.detail.startswith(f"waits for the TLS handshake with {text_of(address)}")


def test_a_name_that_is_not_resolved():
    with stuck(planted.resolving()) as (thread, address):
        state = state_in_call(thread, *_POLLS)

    assert (state.wait.kind, state.wait.peer) == ("socket", text_of(address))
    assert state.wait.detail.startswith(f"resolves a host name: waits for an answer of {text_of(address)}")


@pytest.mark.parametrize(
    ("plant", "kind", "detail"),
    [
        (planted.locking, "lock", "waits for a lock, or for another thread in C code, without a time limit"),
        (planted.putting, "lock", "waits for a free place in a full queue (Queue.put), without a time limit"),
        (planted.getting, "lock", "waits for an item of an empty queue (Queue.get), without a time limit"),
        (
            planted.waiting_for_condition,
            "lock",
            "waits until another thread notifies a condition (Condition.wait), without a time limit",
        ),
        (planted.joining, "lock", "waits until another thread has ended (Thread.join), without a time limit"),
        (
            planted.waiting_for_pool,
            "future",
            "waits for a result of a thread pool or an event loop (Future.result), without a time limit",
        ),
    ],
)
def test_other_threads(plant, kind, detail):
    with stuck(plant()) as (thread, _):
        state = state_in_call(thread, "futex")

    assert (state.state, state.wait.kind, state.wait.detail, state.wait.peer) == ("blocked", kind, detail, None)


@contextmanager
def locking_what_another_holds(lock):
    """Asks for a lock that another thread holds. Yields the function, and the line at which that thread is."""
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with open(os.devnull), lock:
            try:
                with open(os.devnull):
                    entered.set()
                    leave.wait(PATIENCE_S)  # It holds the lock here.
            finally:
                entered.clear()

    holder = threading.Thread(target=hold, name="holder", daemon=True)
    holder.start()
    assert entered.wait(PATIENCE_S)

    def work():
        with lock:
            pass

    yield work, hold.__code__.co_firstlineno + 5
    leave.set()
    holder.join()


@pytest.mark.parametrize("make_lock", [threading.Lock, threading.RLock])
def test_who_holds_a_lock(make_lock):
    with stuck(locking_what_another_holds(make_lock())) as (thread, line):
        state = state_in_call(thread, "futex")

    where = f"locking_what_another_holds.<locals>.hold ({__file__[-200:]}:{line})"
    assert state.wait.detail == f"waits for a lock that the thread 'holder' holds, in {where}"


def test_an_exhausted_pool_of_sqlalchemy(tmp_path):
    with stuck(planted.waiting_for_connection(tmp_path / "file.db")) as (thread, _):
        state = state_in_call(thread, "futex")

    assert state.wait.kind == "lock"
    assert state.wait.detail == "waits for a free connection of SQLAlchemy's pool, which is exhausted (QueuePool)"


@pytest.mark.parametrize(("function", "call"), [("flock", "flock"), ("lockf", "fcntl")])
def test_the_lock_of_a_file(tmp_path, function, call):
    path = tmp_path / "file.lock"
    with stuck(planted.locking_file(path, function)) as (thread, holder):
        state = state_in_call(thread, call)

    assert (state.wait.kind, state.wait.peer) == ("file", None)
    assert state.wait.detail.startswith(
        f"waits for the lock ({call}) of the file {path}, which is held by process {holder} ("
    )


def test_a_pipe_of_a_child():
    with stuck(planted.reading_pipe()) as (thread, child):
        state = state_in_call(thread, "read")

    assert state.wait.kind == "pipe"
    assert state.wait.detail == f"waits for data from a pipe, whose other end process {child} (sleep 600) may have"


def test_the_end_of_a_child():
    with stuck(planted.waiting_for_child(None)) as (thread, child):
        state = state_in_call(thread, "wait4", "waitid")

    assert (state.wait.kind, state.wait.detail) == ("child", f"waits until process {child} (sleep 600) has ended")


def test_the_end_of_a_child_with_a_time_limit():
    with stuck(planted.waiting_for_child(50)) as (thread, _):
        state = state_in_call(thread, *_SLEEPS)

    assert (state.wait.kind, state.wait.detail) == ("child", "waits until a child process has ended (subprocess)")


def test_the_other_end_of_a_fifo(tmp_path):
    with stuck(planted.opening_fifo(tmp_path / "fifo")) as (thread, _):
        state = state_in_call(thread, "openat", "open")

    assert (state.wait.kind, state.wait.detail) == (
        "pipe",
        f"waits until another process opens the other end of the FIFO {tmp_path / 'fifo'}",
    )


def test_the_data_of_a_fifo(tmp_path):
    with stuck(planted.reading_fifo(tmp_path / "fifo")) as (thread, _):
        state = state_in_call(thread, "read")

    assert (state.wait.kind, state.wait.detail) == ("pipe", f"waits for data from the FIFO {tmp_path / 'fifo'}")


def test_a_sleep():
    with stuck(planted.sleeping()) as (thread, _):
        state = state_in_call(thread, *_SLEEPS)

    assert (state.state, state.wait.kind) == ("blocked", "sleep")
    assert state.wait.detail.startswith("sleeps for ")
    assert 0 < float(state.wait.detail.split()[2]) <= 3


@pytest.mark.parametrize("plant", [planted.computing, planted.matching])
def test_a_busy_loop_runs(plant):
    """A look needs the GIL: where C code keeps it, the look comes when it is released."""
    with stuck(plant()) as (thread, _):
        states = [state_of(thread) for _ in range(5)]

    assert [state.state for state in states] == ["running"] * 5


def test_threads_that_compete_for_the_gil():
    with ExitStack() as stack:
        threads = [stack.enter_context(stuck(planted.computing()))[0] for _ in range(4)]
        ids = [thread.native_id for thread in threads]
        waiting = eventually(
            lambda: [state for state in ThreadStateReader().read(ids).values() if state.state == "gil_wait"],
            "a thread waits for the GIL",
        )

    assert {(state.wait.kind, state.wait.call) for state in waiting} == {("gil", "futex")}
    assert all(state.wait.detail.startswith("waits for the GIL: ") for state in waiting)


@contextmanager
def updating_locked_row(url):
    """Updates a row that another transaction has updated. Yields the function, and the process of the server."""
    plain = url.replace("postgresql+psycopg://", "postgresql://")
    second = psycopg.connect(plain, autocommit=True)

    def update() -> None:
        with closing(second):
            second.execute("UPDATE counted SET number = 3")

    with psycopg.connect(plain) as first:
        first.execute("CREATE TABLE counted AS SELECT 1 AS number")
        first.commit()
        first.execute("UPDATE counted SET number = 2")
        yield update, second.info.host
        first.rollback()


def test_a_locked_row_in_postgresql(postgres):
    with (
        postgres.database("template1") as name,
        stuck(updating_locked_row(postgres.url(name))) as (thread, host),
    ):
        state = state_in_call(thread, "poll", "epoll_wait", "select", "pselect6", "ppoll")

    assert (state.wait.kind, state.wait.peer) == ("socket", f"{host}/.s.PGSQL.5432")
    assert "where PostgreSQL commonly listens" in state.wait.detail
    assert "a statement by psycopg is under way, which may wait for a lock of a row" in state.wait.detail


_STOPPED = """
import json, socket, sys, threading, time
from dataclasses import asdict
from dramatiq_diag.runtime.thread_state import ThreadStateReader

server = socket.create_server(("127.0.0.1", 0))
connection = socket.create_connection(server.getsockname(), 600)
lock = threading.Lock()
lock.acquire()
functions = [lambda: connection.recv(1), lambda: lock.acquire(timeout=600), lambda: time.sleep(600)]
threads = [threading.Thread(target=function, daemon=True) for function in functions]
for thread in threads:
    thread.start()
reader = ThreadStateReader()
for _ in range(2):
    calls = []
    while calls != ["poll", "futex", "clock_nanosleep"]:
        states = [reader.read([thread.native_id])[thread.native_id] for thread in threads]
        calls = [state.wait and state.wait.call for state in states]
    print(json.dumps([asdict(state) for state in states]), flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_was_stopped_and_goes_on(python):
    """The kernel calls what such a thread is in `restart_syscall`."""
    process = python(_STOPPED)
    before = json.loads(process.stdout.readline())
    process.send_signal(signal.SIGSTOP)
    eventually(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it is stopped")
    process.send_signal(signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    after = json.loads(process.stdout.readline())

    assert after[:2] == before[:2]
    assert after[2]["wait"]["detail"].startswith("sleeps for ")


def test_threads_that_have_ended_are_left_out():
    thread = threading.Thread(target=int)
    thread.start()
    native_id = thread.native_id
    thread.join()
    reader = ThreadStateReader()

    eventually(lambda: reader.read([native_id]) == {}, "the kernel has ended the thread")
    assert reader.missing is None
