"""How much longer a task takes: with diagnostics, without, and the way of the reference."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import dramatiq
import memray
import pyinstrument

from .result import Result, interleaved, median_ratio, ratio
from .worker import worker

_ROUNDS = 21


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
        with _Way(work) as bare, _Way(work, "memory", "pyinstrument") as ours, _Way(_profiled(work)) as reference:
            bare_s, ours_s, reference_s = interleaved(_ROUNDS, bare.time, ours.time, reference.time)
        yield Result(
            what=f"{work.__name__} task, `memory,pyinstrument`",
            budget="" if budget is None else f"{budget:g} times bare",
            measured=ratio(ours_s, bare_s),
            reference=f"pyinstrument.Profiler(0.002) and output_html(): {ratio(reference_s, bare_s)}",
            met=budget is None or median_ratio(ours_s, bare_s) <= budget,
        )
    with (
        _Way(call_heavy, threads=8) as bare,
        _Way(call_heavy, "memory", "pyinstrument", threads=8) as ours,
    ):
        bare_s, ours_s = interleaved(_ROUNDS // 3, bare.time, ours.time)
    yield Result(
        what="eight call_heavy tasks at once, `memory,pyinstrument`",
        budget="",
        measured=ratio(ours_s, bare_s),
        met=True,
    )
    with _Way(call_heavy) as bare, _Way(call_heavy, "accounting") as ours:
        bare_s, ours_s = interleaved(_ROUNDS, bare.time, ours.time)
    yield Result(
        what="call_heavy task, `accounting` alone",
        budget="1.02 times bare",
        measured=ratio(ours_s, bare_s),
        met=median_ratio(ours_s, bare_s) <= 1.02,
    )
    with _Way(_tracked(allocating)) as tracker, _Way(allocating, "memray") as ours:
        tracker_s, ours_s = interleaved(_ROUNDS, tracker.time, ours.time)
    yield Result(
        what="allocating task, `memray`",
        budget="1.02 times a bare Tracker",
        measured=ratio(ours_s, tracker_s),
        met=median_ratio(ours_s, tracker_s) <= 1.02,
    )


class _Way:
    """A worker that executes one kind of task in one way, as many at once as it has threads."""

    def __init__(self, work: Callable[[], object], *names: str, threads: int = 1) -> None:
        self._work = work
        self._threads = threads
        self._opened = worker(threads, task_diagnostics=list(names))

    def __enter__(self) -> Self:
        self._broker, self._diagnostics = self._opened.__enter__()
        self._actor = dramatiq.actor(self._execute, actor_name="task", broker=self._broker)
        self.time()  # The first one opens the store.
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.__exit__(None, None, None)

    def _execute(self) -> None:
        self._work()

    def time(self) -> float:
        """Returns: Seconds from the send to the acknowledgement; publishing is waited for after."""
        started = time.perf_counter()
        for _ in range(self._threads):
            self._actor.send()
        self._broker.join(self._actor.queue_name)
        spent_s = time.perf_counter() - started
        assert self._diagnostics.flush(60)
        return spent_s


def _profiled(work: Callable[[], object]) -> Callable[[], object]:
    def profiled() -> None:
        profiler = pyinstrument.Profiler(interval=0.002)
        with profiler:
            work()
        profiler.output_html()

    return profiled


def _tracked(work: Callable[[], object]) -> Callable[[], object]:
    def tracked() -> None:
        with tempfile.TemporaryDirectory() as directory:
            destination = memray.FileDestination(Path(directory) / "bin", compress_on_exit=False)
            with memray.Tracker(destination=destination):
                work()

    return tracked
