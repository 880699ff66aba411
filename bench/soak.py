"""An hour of mixed tasks with all diagnostics in one process: what it takes must not grow."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dramatiq
import psutil
from dramatiq.middleware import AsyncIO

from dramatiq_diag.text import MIB

from .result import Result
from .worker import worker

_SECONDS = float(os.environ.get("BENCH_SOAK_SECONDS", "3600"))
_SAMPLES = 120
_TASKS_PER_SECOND = 10.0
_THREADS = 4

#: Seconds until an artifact may go, so that within the hour the cleanup has as much to do as the publisher.
_PROTECTION_S = 120

_NAMES = ("RSS in MB", "threads", "descriptors", "spool in KB", "files in the spool")


def run() -> Iterator[Result]:
    """Yields one row a figure; the curve goes to stderr, a line a sample."""
    logging.getLogger("dramatiq.worker").setLevel(logging.CRITICAL)  # One kind of the tasks fails.
    with worker(
        _THREADS,
        task_diagnostics=["memory", "pyinstrument", "memray"],
        orphan_protection_time=_PROTECTION_S,
        run_retention=_PROTECTION_S,
        cleanup_interval=60,
        middleware=[AsyncIO()],
    ) as (broker, diagnostics):
        actors = [dramatiq.actor(fn, broker=broker) for fn in (parse, hold, fetch, fail, wait)]
        chance = random.Random(7)  # noqa: S311
        started, samples = time.monotonic(), list[tuple[float, ...]]()
        _say("minutes", *_NAMES)
        while (elapsed_s := time.monotonic() - started) < _SECONDS:
            chance.choice(actors).send(chance.randrange(100))
            if elapsed_s >= len(samples) * _SECONDS / _SAMPLES:
                broker.dead_letters_by_queue.clear()  # It keeps each task that failed, with its traceback.
                samples.append(_look(diagnostics.settings.spool))
                _say(f"{elapsed_s / 60:.1f}", *(f"{figure:.1f}" for figure in samples[-1]))
            time.sleep(chance.expovariate(_TASKS_PER_SECOND))
    early, late = samples[_SAMPLES // 4 : _SAMPLES // 2], samples[-_SAMPLES // 4 :]
    for name, before, after in zip(_NAMES, zip(*early, strict=True), zip(*late, strict=True), strict=True):
        first, last = statistics.median(before), statistics.median(after)
        yield Result(
            what=f"soak of {_SECONDS / 60:g} minutes, {name}: median of its second quarter, of its last",
            budget="flat: no more than a tenth above",
            measured=f"{first:.1f}, {last:.1f}",
            met=last <= first * 1.1,
        )


def _say(*columns: str) -> None:
    sys.stderr.write("\t".join(columns) + "\n")


def _look(spool: Path) -> tuple[float, ...]:
    process = psutil.Process()
    sizes = []
    for path in spool.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # It was published meanwhile.
            continue
    return (
        process.memory_info().rss / MIB,
        float(process.num_threads()),
        float(process.num_fds()),
        sum(sizes) / 1024,
        float(len(sizes)),
    )


def parse(number: int) -> None:
    for _ in range(10):
        json.loads(json.dumps([{"number": row, "name": "x" * row} for row in range(number)]))


def hold(number: int) -> None:
    pages = [b"x" * 100_000 for _ in range(number)]
    time.sleep(0.1)
    assert len(pages) == number


async def fetch(number: int) -> None:
    await asyncio.sleep(number / 200)


def fail(number: int) -> None:
    raise ValueError(number)


def wait(number: int) -> None:
    time.sleep(number / 50)
