"""The error of `accounting` against tasks that measure themselves, at 1, 4 and 8 threads and as coroutines."""

from __future__ import annotations

import gc
import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

from dramatiq.middleware import AsyncIO

from .accounted_work import AsyncWork, Truth, Work, answering, compute, crowd
from .result import Result
from .worker import stored_documents, worker

_SECONDS = float(os.environ.get("BENCH_ACCOUNTING_SECONDS", "5"))

#: Only these columns of the table are measured, such as `ten coroutines`; without a name, all.
_ONLY = os.environ.get("BENCH_ACCOUNTING_ONLY", "")

MIXES: dict[str, tuple[str, ...]] = {
    "CPU": ("compute",),
    "CPU, sleep": ("compute", "sleep"),
    "CPU, lock": ("compute", "lock"),
    "CPU, server": ("compute", "server"),
    "GIL-bound neighbours": ("compute", "sleep"),
    "CPU, gc.collect": ("compute", "collect", "sleep"),
    "everything": ("compute", "sleep", "lock", "server", "collect"),
}

ASYNC_MIXES: dict[str, tuple[str, ...]] = {
    "CPU, sleep": ("sleep",),
    "CPU, server": ("server",),
    "everything": ("sleep", "server"),
}


def run() -> Iterator[Result]:
    """Yields a row for each mix and number of threads, on the machine as it is and with a busy process a core."""
    cores = os.cpu_count() or 1
    with answering() as port:
        for busy, budget in ((0, 3.0), (cores, 5.0)):
            for mix, kinds in MIXES.items():
                for threads in (1, 4, 8):
                    how = f"{threads} thread{'s' if threads > 1 else ''}"
                    if _ONLY in ("", how):
                        yield _row(mix, how, busy, budget, _threads(kinds, threads, port, busy, mix))
            for mix, kinds in ASYNC_MIXES.items():
                if _ONLY in ("", "ten coroutines"):
                    yield _row(mix, "ten coroutines", busy, budget, _coroutines(kinds, port, busy))


#: For each task its truth, and its account.
_Measured = list[tuple[Truth, dict[str, Any]]]


def _row(mix: str, how: str, busy: int, budget_points: float, measured: _Measured) -> Result:
    errors: dict[str, list[float]] = {}
    wall_errors = []
    for truth, account in measured:
        whole_s, seen = sum(truth.values()), _seen(account)
        for part in {*truth, *seen}:
            error = 100 * (seen.get(part, 0.0) / account["wall_ms"] * 1000 - truth.get(part, 0.0) / whole_s)
            errors.setdefault(part, []).append(error)
        total_ms = sum(part["ms"] for part in account["parts"])
        wall_errors.append(max(abs(total_ms / account["wall_ms"] - 1), abs(account["wall_ms"] / 1000 / whole_s - 1)))
    worst = max((abs(error), part) for part, found in errors.items() for error in found)
    bias = max((statistics.mean(found) for found in errors.values()), key=abs)
    samples = statistics.median(account["samples"] for _, account in measured)
    crowded = f", {busy} busy processes beside" if busy else ""
    return Result(
        what=f"largest error of a share, {mix}, {how}{crowded}",
        budget=f"{budget_points:g} points, sums 2 %",
        measured=f"{worst[0]:.1f} points ({worst[1]}), mean {bias:+.1f}, sums {100 * max(wall_errors):.1f} %, "
        f"{samples:.0f} samples, load {os.getloadavg()[0]:.0f}",
        met=worst[0] <= budget_points and max(wall_errors) <= 0.02,
    )


def _seen(account: dict[str, Any]) -> Truth:
    """Returns: The parts of an account in seconds, as the truth names them."""
    found: Truth = {}
    for part in account["parts"]:
        on, name = part["on"] or "", part["part"]
        if name in ("blocked", "awaiting"):
            prefix = "awaiting" if name == "awaiting" else "blocked on"
            kind = "server" if "127.0.0.1:" in on else "sleep" if "sleep" in on else "lock" if "lock" in on else on
            name = f"{prefix} {kind}"
        elif account["is_async"] and name in ("gil_wait", "run_queue"):
            name = "off the CPU in steps"
        elif account["is_async"] and name == "gc":
            name = "cpu"
        found[name] = found.get(name, 0.0) + part["ms"] / 1000
    return found


def _threads(kinds: tuple[str, ...], threads: int, port: int, busy: int, mix: str) -> _Measured:
    gc.collect()
    gc.freeze()  # Otherwise each collection of a task would look at all modules.
    works = [Work(seed, port) for seed in range(threads)]
    ended = threading.Event()

    def neighbour() -> None:
        while not ended.is_set():
            compute(0.01)

    with crowd(busy, _SECONDS + 20) if busy else nullcontext():
        if mix == "GIL-bound neighbours":
            threading.Thread(target=neighbour, daemon=True).start()
        try:
            found = accounts([lambda work=work: work.run(kinds, _SECONDS) for work in works])  # type: ignore[misc]
        finally:
            ended.set()
    return [(work.truth, account | {"is_async": False}) for work, account in zip(works, found, strict=True)]


def _coroutines(kinds: tuple[str, ...], port: int, busy: int) -> _Measured:
    works = [AsyncWork(seed, port) for seed in range(10)]

    async def task(number: int) -> None:
        await works[number].run(kinds, _SECONDS, 0.002)

    with crowd(busy, _SECONDS + 20) if busy else nullcontext():
        found = _stored(task, len(works))
    return [(work.truth, account | {"is_async": True}) for work, account in zip(works, found, strict=True)]


def accounts(tasks: Sequence[Callable[[], object]]) -> list[dict[str, Any]]:
    """Runs tasks side by side, a thread each. Returns: The account of each."""
    return _stored(lambda number: tasks[number](), len(tasks))


def _stored(function: Callable[[int], Any], count: int) -> list[dict[str, Any]]:
    with worker(count, [AsyncIO()], task_diagnostics=["accounting"]) as (broker, diagnostics):
        return stored_documents(broker, diagnostics, function, count, "time_accounting")
