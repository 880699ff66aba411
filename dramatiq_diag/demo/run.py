"""Runs the demo: an in-memory broker, a worker in this process, SQLite in a data dir."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from dramatiq import Actor, Worker
from dramatiq.brokers.stub import StubBroker

from ..collectors.names import ALL
from ..documents.artifacts import urls
from ..documents.fields import Document
from ..documents.runs import run_document
from ..documents.signing import Signer
from ..errors import DiagnosticsError
from ..middleware import Diagnostics
from ..settings import Settings
from ..store.attempts import list_attempts
from ..store.runs import artifacts_of
from ..store.store import Store
from . import work
from .actors import declare

QUEUE_NAME = "demo"

#: The longest time of a task with its retries, in milliseconds.
_TASK_TIMEOUT_MS = 120_000
_FLUSH_TIMEOUT_S = 30.0

#: Seconds between samples of RSS and resources: less than by default, as the tasks are short.
_INTERVAL_S = 0.1


def demo_settings() -> Settings:
    """Returns: The environment's settings with every diagnostic on, and all storage in one data dir.

    The data dir is DRAMATIQ_DIAG_DATA_DIR, or a fresh temporary directory, which is kept.
    """
    given = Settings()
    chosen: dict[str, Any] = {name: getattr(given, name) for name in given.given_fields}
    # A demo writes nothing into a store that is in use.
    chosen |= {"task_diagnostics": (ALL,), "database_url": None, "blob_url": None, "spool_dir": None}
    if "data_dir" not in chosen:
        chosen["data_dir"] = Path(tempfile.mkdtemp(prefix="dramatiq_diag.demo."))
    chosen.setdefault("memory_interval", _INTERVAL_S)
    chosen.setdefault("resources_interval", _INTERVAL_S)
    chosen.setdefault("memray_wait", _TASK_TIMEOUT_MS / 1000)
    return Settings(**chosen)


class Demo:
    """The demo's broker, actors and worker.

    Parameters:
      settings: As `demo_settings` gives them.
      base_url: The beginning of the URLs of artifacts.
    """

    def __init__(self, settings: Settings, base_url: str) -> None:
        self.settings = settings
        self.base_url = base_url
        self.broker = StubBroker(fail_fast_default=False)
        self.actors: list[Actor[..., Any]] = declare(self.broker, QUEUE_NAME)
        self.diagnostics = Diagnostics(settings)
        self.broker.add_middleware(self.diagnostics)

    def run(self, on_task: Callable[[list[Document]], None]) -> list[Document]:
        """Executes one task of each actor, one after the other, so that each has the process to itself.

        Parameters:
          on_task: Called with the runs of each task when they are published.

        Returns:
          The runs, each a RUN with its `urls`.

        Raises:
          DiagnosticsError: When the runs could not be published.
        """
        runs: list[Document] = []
        with self._working():
            for actor in self.actors:
                message = actor.send()
                self.broker.join(QUEUE_NAME, timeout=_TASK_TIMEOUT_MS)
                if not self.diagnostics.flush(_FLUSH_TIMEOUT_S):
                    raise DiagnosticsError(f"The runs of task {message.message_id} were not published in time.")
                runs_of_message = self._documents(message.message_id)
                on_task(runs_of_message)
                runs += runs_of_message
        return runs

    @contextmanager
    def _working(self) -> Iterator[None]:
        worker = Worker(self.broker, worker_timeout=100, worker_threads=1)
        # Some tasks fail on purpose, and the records of the others are for their artifacts.
        with _level("dramatiq", logging.CRITICAL), _level(work.__name__, logging.INFO):
            worker.start()
            try:
                yield
            finally:
                worker.stop()
                self.broker.close()

    def _documents(self, task_id: str) -> list[Document]:
        store = Store(self.settings)
        with closing(store), store.session() as session:
            runs, _ = list_attempts(session, task_id, 100)
            artifacts = artifacts_of(session, [run.run_id for run in runs])
            signer = Signer(self.settings)
            return [{**run_document(run), "urls": urls(artifacts[run.run_id], signer, self.base_url)} for run in runs]


@contextmanager
def _level(logger_name: str, level: int) -> Iterator[None]:
    """Gives a logger a level for a while."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)
