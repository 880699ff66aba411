"""A worker of which one task eats memory: `python -m bench.eaters DIR CGROUP EATER NEIGHBOURS SECONDS`.

The task begins after these seconds, beside seven innocent ones. The worker prints its id, and lives until the kernel
kills it.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import dramatiq
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.text import MIB

THREADS = 8

#: The kinds of eaters, and of neighbours.
EATERS = ("bytearrays", "objects", "large bytes", "one buffer", "slow")
NEIGHBOURS = ("sleep", "churn")


def eat_bytearrays() -> None:
    held = []
    while True:
        held.append(bytearray(MIB))


def eat_objects() -> None:
    held: list[object] = []
    while True:
        held.append({"number": len(held), "text": f"row {len(held)}"})


def eat_large_bytes() -> None:
    held = []
    while True:
        held.append(b"x" * (16 * MIB))


def eat_one_buffer() -> None:
    buffer, piece = bytearray(), b"x" * MIB
    while True:
        buffer += piece


def eat_slow() -> None:
    held = []
    while True:
        held.append(bytearray(MIB))
        time.sleep(1 / 20)


def sleep(seed: int) -> None:
    while True:
        time.sleep(0.01 + seed % 3)


def churn(seed: int) -> None:
    """Fills large buffers, and frees each."""
    chance = Random(seed)  # noqa: S311
    while True:
        buffer = bytearray(chance.randrange(2 * MIB, 40 * MIB))
        time.sleep(chance.uniform(0.0, 0.1))
        del buffer
        time.sleep(chance.uniform(0.0, 0.1))


def main(data_dir: str, cgroup: str, eater: str, neighbours: str, after_s: str) -> None:
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    broker = StubBroker()
    broker.add_middleware(Diagnostics(Settings(data_dir=data_dir, task_diagnostics=["memory"], cleanup_interval=0)))
    functions: Iterator[Callable[..., None]] = iter(
        (globals()[f"eat_{eater.replace(' ', '_')}"], globals()[neighbours])
    )
    eating, innocent = (dramatiq.actor(function, broker=broker, max_retries=0) for function in functions)
    for number in range(THREADS - 1):
        innocent.send(os.getpid() + number)
    dramatiq.Worker(broker, worker_threads=THREADS).start()
    time.sleep(float(after_s))
    sys.stdout.write(f"{eating.send().message_id}\n")
    sys.stdout.flush()
    threading.Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
