"""Threads that are stuck on purpose, each in one real way, and can be freed."""

from __future__ import annotations

import ctypes
import fcntl
import os
import queue
import re
import select
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from dramatiq_diag.runtime.thread_state import ThreadStateReader
from dramatiq_diag.runtime.waits.wait import ThreadState

from . import PATIENCE_S, eventually

#: What a thread does until it is freed.
Stuck = Callable[[], object]

#: Locks a file, in a process of its own.
_HOLDER = """
import fcntl, sys, time
with open(sys.argv[1], "r+") as file:
    getattr(fcntl, sys.argv[2])(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    time.sleep(600)
"""


@contextmanager
def stuck(plant: AbstractContextManager[Any]) -> Iterator[tuple[threading.Thread, Any]]:
    """Runs the function of a plant on a thread. Yields the thread, and what else the plant gives."""

    def run() -> None:
        with suppress(OSError):  # A connection that was shut down.
            function()

    with plant as given:
        function, fact = given if isinstance(given, tuple) else (given, None)
        thread = threading.Thread(target=run, name="stuck", daemon=True)
        thread.start()
        yield thread, fact
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def state_of(thread: threading.Thread, reader: ThreadStateReader | None = None) -> ThreadState | None:
    """Returns: The state of a thread."""
    return (reader or ThreadStateReader()).read([thread.native_id or 0]).get(thread.native_id or 0)


def state_in_call(thread: threading.Thread, *calls: str) -> ThreadState:
    """Waits until a thread is in one of the calls of the kernel. Returns: Its state."""

    def look() -> ThreadState | None:
        state = state_of(thread)
        return state if state and state.wait and state.wait.call in calls else None

    found = eventually(look, f"the thread is in {calls}, and not {state_of(thread)}")
    assert isinstance(found, ThreadState)
    return found


@contextmanager
def silent_server(family: int) -> Iterator[Any]:
    """Listens, and never answers. Yields its address."""
    with socket.create_server(("127.0.0.1" if family == socket.AF_INET else "::1", 0), family=family) as server:
        yield server.getsockname()


@contextmanager
def receiving(timeout_s: float | None, family: int = socket.AF_INET) -> Iterator[tuple[Stuck, Any]]:
    """Receives from a silent server. Yields the function, and the server's address."""
    with silent_server(family) as address, socket.create_connection(address[:2], timeout_s) as connection:
        yield lambda: connection.recv(1), address
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def connecting(timeout_s: float | None) -> Iterator[tuple[Stuck, tuple[str, int]]]:
    """Connects to a server whose backlog is full. Yields the function, and the server's address."""
    with ExitStack() as stack:
        server = stack.enter_context(closing(socket.socket()))
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        waiting = [stack.enter_context(closing(socket.socket())) for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(server.getsockname())
        connection = stack.enter_context(closing(socket.socket()))
        connection.settimeout(timeout_s)
        yield lambda: connection.connect(server.getsockname()), server.getsockname()
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def shaking_hands() -> Iterator[tuple[Stuck, tuple[str, int]]]:
    """Begins TLS with a silent server. Yields the function, and the server's address."""
    context = ssl.create_default_context()
    with silent_server(socket.AF_INET) as address, socket.create_connection(address) as connection:
        descriptor = os.dup(connection.fileno())
        yield lambda: context.wrap_socket(connection, server_hostname="localhost"), address
        with closing(socket.socket(fileno=descriptor)) as same:
            same.shutdown(socket.SHUT_RDWR)


@contextmanager
def resolving() -> Iterator[tuple[Stuck, tuple[str, int]]]:
    """Resolves a name by a silent server. Yields the function, and the server's address."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
        server.bind(("127.0.0.9", 0))
        host, port = server.getsockname()
        is_done = threading.Event()

        def resolve() -> None:
            _set_name_server(host, port)
            try:
                socket.getaddrinfo("silent.example", 80)
            finally:
                is_done.set()

        yield resolve, (host, port)
        while not is_done.wait(0.02):
            if select.select([server], [], [], 0.02)[0]:
                query, sender = server.recvfrom(1000)
                server.sendto(query[:2] + b"\x81\x83" + query[4:], sender)  # There is no such name.


def _set_name_server(host: str, port: int) -> None:
    """Sets the one server that this thread's resolver in the C library asks: count, family, port, address."""
    libc = ctypes.CDLL(None)
    libc.__res_state.restype = ctypes.c_void_p
    libc.__res_init()
    data = struct.pack("=iH", 1, socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host)
    ctypes.memmove(libc.__res_state() + 16, data, len(data))


@contextmanager
def locking() -> Iterator[Stuck]:
    lock = threading.Lock()
    with lock:
        yield lock.acquire


@contextmanager
def putting() -> Iterator[Stuck]:
    full: queue.Queue[int] = queue.Queue(1)
    full.put(1)
    yield lambda: full.put(2)
    full.get()


@contextmanager
def getting() -> Iterator[Stuck]:
    empty: queue.Queue[int] = queue.Queue()
    yield empty.get
    empty.put(1)


@contextmanager
def waiting_for_condition() -> Iterator[Stuck]:
    condition = threading.Condition()

    def wait() -> None:
        with condition:
            condition.wait()

    yield wait
    with condition:
        condition.notify_all()


@contextmanager
def joining() -> Iterator[Stuck]:
    release = threading.Event()
    other = threading.Thread(target=release.wait, args=[PATIENCE_S], daemon=True)
    other.start()
    yield other.join
    release.set()


@contextmanager
def waiting_for_pool() -> Iterator[Stuck]:
    release = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        result: Future[bool] = pool.submit(release.wait, PATIENCE_S)
        yield result.result
        release.set()


@contextmanager
def waiting_for_connection(path: Path) -> Iterator[Stuck]:
    """Asks for a connection of SQLAlchemy's pool while all are taken."""
    engine = create_engine(f"sqlite:///{path}", poolclass=QueuePool, pool_size=1, max_overflow=0)

    is_done = threading.Event()

    def connect() -> None:
        engine.connect().close()
        is_done.set()

    with closing(engine.connect()):
        yield connect
    assert is_done.wait(PATIENCE_S)
    engine.dispose()


@contextmanager
def locking_file(path: Path, function: str) -> Iterator[tuple[Stuck, int]]:
    """Asks for a lock of a file that another process has. Yields the function, and that process's id."""
    command = [sys.executable, "-c", _HOLDER, str(path), function]
    path.touch()
    with path.open("r+") as file, subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        yield lambda: getattr(fcntl, function)(file, fcntl.LOCK_EX), holder.pid
        holder.kill()


@contextmanager
def reading_pipe() -> Iterator[tuple[Stuck, int]]:
    """Reads what a child does not write. Yields the function, and the child's id."""
    with subprocess.Popen(["sleep", "600"], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield child.stdout.read, child.pid
        child.kill()


@contextmanager
def waiting_for_child(timeout_s: float | None) -> Iterator[tuple[Stuck, int]]:
    """Waits for the end of a child. Yields the function, and the child's id."""
    with subprocess.Popen(["sleep", "600"]) as child:
        yield lambda: child.wait(timeout_s), child.pid
        child.kill()


@contextmanager
def opening_fifo(path: Path) -> Iterator[Stuck]:
    os.mkfifo(path)
    yield lambda: os.close(os.open(path, os.O_RDONLY))
    os.close(os.open(path, os.O_WRONLY))


@contextmanager
def reading_fifo(path: Path) -> Iterator[Stuck]:
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)
    yield lambda: os.read(descriptor, 1)
    os.write(descriptor, b"1")
    os.close(descriptor)


@contextmanager
def computing() -> Iterator[Stuck]:
    release = threading.Event()

    def compute() -> None:
        while not release.is_set():
            sum(range(100))

    yield compute
    release.set()


@contextmanager
def matching() -> Iterator[Stuck]:
    """Keeps the GIL in a regular expression, some 50 ms each time."""
    release = threading.Event()

    def match() -> None:
        while not release.is_set():
            re.match(r"(a+)+b", "a" * 20)

    yield match
    release.set()


@contextmanager
def sleeping() -> Iterator[Stuck]:
    """Sleeps for a few seconds: nothing can free it earlier."""
    yield lambda: time.sleep(3)
