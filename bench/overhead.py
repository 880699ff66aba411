"""How much longer a task takes: with diagnostics, without, and the way of the reference."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dramatiq
import memray
import pyinstrument

from .result import Result, interleaved, median_ratio, ratio
from .worker import worker

_ROUNDS = 15


def call_heavy() -> int:
    """About half a second of tiny Python calls."""
    return sum(_call(number) for number in range(2_500_000))


def _call(number: int) -> int:
    return number + 1


def varied() -> int:
    """About half a second of dictionaries, strings, JSON and hashing."""
    size = 0
    for number in range(25_000):
        text = json.dumps({str(key): key * number for key in range(10)})
        size += len(hashlib.sha256(text.encode()).hexdigest())
    return size


def allocating() -> int:
    """About a third of a second of allocations, large and small."""
    held = []
    for number in range(60_000):
        held.append(bytearray(600 + number % 1000))
        if len(held) > 5000:
            held.clear()
    return len(held)


def run() -> Iterator[Result]:
    """Yields the rows of the time profile and of memray."""
    for work, budget in ((call_heavy, 1.03), (varied, None)):
        bare, ours, reference = interleaved(_ROUNDS, _bare(work), _diagnosed(work), _profiled(work))
        yield Result(
            what=f"{work.__name__} task, `memory,pyinstrument`",
            budget="" if budget is None else f"{budget:g} times bare",
            measured=ratio(ours, bare),
            reference=f"pyinstrument.Profiler(0.002) and output_html(): {ratio(reference, bare)}",
            met=budget is None or median_ratio(ours, bare) <= budget,
        )
    tracked, ours = interleaved(_ROUNDS, _tracked(allocating), _diagnosed(allocating, "memray"))
    yield Result(
        what="allocating task, `memray`",
        budget="1.02 times a bare Tracker",
        measured=ratio(ours, tracked),
        met=median_ratio(ours, tracked) <= 1.02,
    )


def _bare(work: Callable[[], object]) -> Callable[[], float]:
    return lambda: _under_worker(work)


def _diagnosed(work: Callable[[], object], *names: str) -> Callable[[], float]:
    return lambda: _under_worker(work, *(names or ("memory", "pyinstrument")))


def _profiled(work: Callable[[], object]) -> Callable[[], float]:
    def profiled() -> None:
        profiler = pyinstrument.Profiler(interval=0.002)
        with profiler:
            work()
        profiler.output_html()

    return lambda: _under_worker(profiled)


def _tracked(work: Callable[[], object]) -> Callable[[], float]:
    def tracked() -> None:
        with tempfile.TemporaryDirectory() as directory:
            destination = memray.FileDestination(Path(directory) / "bin", compress_on_exit=False)
            with memray.Tracker(destination=destination):
                work()

    return lambda: _under_worker(tracked)


def _under_worker(work: Callable[[], object], *names: str) -> float:
    """Returns: Seconds from the send to the acknowledgement of one task."""

    def task() -> None:
        work()

    with worker(task_diagnostics=list(names)) as (broker, _):
        actor = dramatiq.actor(task, broker=broker)
        started = time.perf_counter()
        actor.send()
        broker.join(actor.queue_name)
        return time.perf_counter() - started
