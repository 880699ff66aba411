"""Work that knows where its own time went, for `bench/accounting.py`."""

from __future__ import annotations

import asyncio
import gc
import queue
import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: Each turn of each kind of work lasts that long on average, in seconds.
_TURN_S = 0.004

#: Part of the account -> seconds.
Truth = dict[str, float]

_SERVER = """
import socket, struct, sys, threading, time

def answer(connection):
    while data := connection.recv(8):
        time.sleep(struct.unpack("=d", data)[0])
        connection.sendall(struct.pack("=d", time.perf_counter()))

with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()
"""


class Work:
    """The kinds of work of one task, and how long each of them took.

    Parameters:
      seed: Of the lengths of the turns.
      port: Of the server that answers after a known time.
    """

    def __init__(self, seed: int, port: int) -> None:
        self.truth: Truth = {}
        self._chance = random.Random(seed)  # noqa: S311
        self._server = socket.create_connection(("127.0.0.1", port))
        self._lock = threading.Lock()
        self._asked: queue.SimpleQueue[float | None] = queue.SimpleQueue()
        self._lock.acquire()
        self._released_s = 0.0
        self._garbage = [[each] for each in range(10_000)]

    def run(self, kinds: tuple[str, ...], seconds: float) -> None:
        """Executes kinds of work in turn, and notes the truth."""
        steps: list[Callable[[float], None]] = [getattr(self, kind) for kind in kinds]
        began_s, before = time.perf_counter(), _counted()
        with self._holder("lock" in kinds):
            while time.perf_counter() < began_s + seconds:
                for step in steps:
                    step(self._turn_s())
        wall_s, after = time.perf_counter() - began_s, _counted()
        cpu_s, run_queue_s = (b - a for a, b in zip(before, after, strict=True))
        self._note("cpu", cpu_s - self.truth.get("gc", 0.0))
        self._note("run_queue", run_queue_s)
        self._note("gil_wait", max(wall_s - sum(self.truth.values()), 0.0))

    def _turn_s(self) -> float:
        return self._chance.uniform(0.2, 1.8) * _TURN_S

    def _note(self, part: str, seconds: float) -> None:
        self.truth[part] = self.truth.get(part, 0.0) + seconds

    def compute(self, seconds: float) -> None:
        compute(seconds)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
        self._note("blocked on sleep", seconds)

    def server(self, seconds: float) -> None:
        self._server.sendall(struct.pack("=d", seconds))
        began_s = time.perf_counter()  # Sending gives up the GIL: the server works while this thread waits for it.
        (answered_s,) = struct.unpack("=d", self._server.recv(8))
        self._note("blocked on server", max(answered_s - began_s, 0.0))

    def lock(self, seconds: float) -> None:
        began_s = time.perf_counter()
        self._asked.put(seconds)
        self._lock.acquire()
        self._note("blocked on lock", self._released_s - began_s)

    def collect(self, seconds: float) -> None:
        before_s = time.thread_time()
        gc.collect()
        self._note("gc", time.thread_time() - before_s)

    @contextmanager
    def _holder(self, wanted: bool) -> Iterator[None]:
        thread = threading.Thread(target=self._hold, daemon=True)
        if wanted:
            thread.start()
        try:
            yield
        finally:
            self._asked.put(None)

    def _hold(self) -> None:
        while (seconds := self._asked.get()) is not None:
            time.sleep(seconds)
            self._released_s = time.perf_counter()
            self._lock.release()


class AsyncWork:
    """The same for a coroutine."""

    def __init__(self, seed: int, port: int) -> None:
        self.truth: Truth = {"cpu": 0.0, "awaiting sleep": 0.0, "awaiting server": 0.0}
        self._chance = random.Random(seed)  # noqa: S311
        self._server = socket.create_connection(("127.0.0.1", port))

    async def run(self, kinds: tuple[str, ...], seconds: float, turn_s: float) -> None:
        began_s = time.perf_counter()
        reader, writer = await asyncio.open_connection(sock=self._server)
        steps_s = 0.0
        while time.perf_counter() < began_s + seconds:
            cpu_s, step_s = time.thread_time(), time.perf_counter()
            compute(turn_s * self._chance.uniform(0.2, 1.8))
            asked_s = 10 * turn_s * self._chance.uniform(0.2, 1.8)
            kind = self._chance.choice(kinds)
            if kind == "server":
                writer.write(struct.pack("=d", asked_s))
            self.truth["cpu"] += time.thread_time() - cpu_s
            now_s = time.perf_counter()
            steps_s += now_s - step_s
            if kind == "sleep":
                await asyncio.sleep(asked_s)
                self.truth["awaiting sleep"] += asked_s
            else:
                (answered_s,) = struct.unpack("=d", await reader.readexactly(8))
                self.truth["awaiting server"] += max(answered_s - now_s, 0.0)
        wall_s = time.perf_counter() - began_s
        writer.close()
        self.truth["off the CPU in steps"] = steps_s - self.truth["cpu"]
        self.truth["loop_wait"] = wall_s - sum(self.truth.values())


def compute(seconds: float) -> None:
    """Keeps the GIL for so much CPU time of this thread."""
    until_s = time.thread_time() + seconds
    number = 0
    while time.thread_time() < until_s:
        for _ in range(50):
            number += 1


def _counted() -> tuple[float, float]:
    words = Path("/proc/thread-self/schedstat").read_bytes().split()
    return time.thread_time(), int(words[1]) / 1e9


@contextmanager
def answering() -> Iterator[int]:
    """A process that answers after the time that it is asked for. Yields: Its port."""
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def crowd(count: int, seconds: float) -> Iterator[None]:
    """Busy processes, which end by themselves."""
    script = f"import time; end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: pass"
    processes = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(count)]  # noqa: S603
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
