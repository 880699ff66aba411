"""Work under a real worker, with and without diagnostics."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Middleware
from sqlalchemy import select

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.store import Store
from dramatiq_diag.worker.tuning import TUNING, Tuning

#: All files of all workers. Removed at the end: a disk may be slow for minutes where thousands of files were removed.
_DATA_DIRS = tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_")


@contextmanager
def worker(
    threads: int = 1, middleware: Sequence[Middleware] = (), tuning: Tuning = TUNING, **settings: Any
) -> Iterator[tuple[StubBroker, Diagnostics]]:
    """A worker on an in-memory broker; without settings nothing is collected."""
    broker = StubBroker(middleware=[*middleware])
    own = {"data_dir": tempfile.mkdtemp(dir=_DATA_DIRS.name), "cleanup_interval": 0}
    diagnostics = Diagnostics(Settings(**own | settings), tuning=tuning)
    broker.add_middleware(diagnostics)
    running = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)
    running.start()
    try:
        yield broker, diagnostics
    finally:
        running.stop()


def profiled_sessions(
    tasks: Sequence[Callable[[], object]], *, names: Sequence[str] = ("memory", "pyinstrument"), **settings: Any
) -> list[dict[str, Any]]:
    """Runs tasks side by side, a thread each. Returns: The stored session of each."""
    with worker(len(tasks), task_diagnostics=list(names), **settings) as (broker, diagnostics):
        return stored_documents(broker, diagnostics, lambda number: tasks[number](), len(tasks), "pyinstrument_profile")


def stored_documents(
    broker: StubBroker, diagnostics: Diagnostics, function: Callable[[int], Any], count: int, artifact_name: str
) -> list[dict[str, Any]]:
    """Executes a function as so many tasks. Returns: The stored artifact of each, which is JSON."""
    with closing(Store(diagnostics.settings)) as store:
        task = dramatiq.actor(function, actor_name="task", broker=broker)
        messages = [task.send(number) for number in range(count)]
        broker.join(task.queue_name)
        assert diagnostics.flush(60)
        with store.session() as session:
            query = select(TaskRun.task_id, Artifact.blob_name).join(Artifact, Artifact.run_id == TaskRun.run_id)
            found = session.execute(query.where(Artifact.name == artifact_name)).all()
        blobs = {task_id: blob_name for task_id, blob_name in found}  # noqa: C416 - rows are not pairs to mypy.
        return [_load(store, blobs[message.message_id]) for message in messages]


def _load(store: Store, blob_name: str) -> dict[str, Any]:
    with store.blobs.open(blob_name) as file:
        document: dict[str, Any] = json.load(file)
    return document
