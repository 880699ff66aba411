"""Executes tasks under one collector on a worker of their own, and reads the outcome from the store."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq import Actor
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO

from ..collectors.base import Collector, Recording, UnavailableCollector
from ..collectors.names import COLLECTOR_NAMES, GROUP
from ..middleware import Diagnostics
from ..settings import Settings
from ..spool.entry import ENTRY_SUFFIX
from ..spool.owner_lock import LOCK_FILE
from ..spool.owner_state import STATE_FILE
from ..store.attempts import list_attempts
from ..store.runs import artifacts_of
from ..store.store import Store

#: The longest wait for another thread, in seconds; a correct collector never takes that long.
PATIENCE_S = 180.0

Change = Callable[[Recording], object]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The stored result of a task under the collector."""

    run_status: str
    status: str
    "The status of the artifact."
    reason: str | None
    filename: str
    media_type: str
    data: bytes | None
    "The stored bytes; None where nothing was stored."


@contextmanager
def installed(collector_class: type[Collector], directory: Path) -> Iterator[None]:
    """Gives a class an entry point, as if its package were installed in a directory."""
    if collector_class.name in COLLECTOR_NAMES:
        yield
        return
    metadata = directory / "collector_under_test-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: collector_under_test\nVersion: 0\n")
    value = f"{collector_class.__module__}:{collector_class.__qualname__}"
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{collector_class.name} = {value}\n")
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))


def execute(
    settings: Settings,
    name: str,
    task: Callable[[], None],
    *,
    count: int,
    threads: int,
    change: Change | None = None,
    after: Callable[[], object] | None = None,
) -> list[str]:
    """Executes a task *count* times.

    Parameters:
      settings: The settings, with the collector chosen.
      name: The name of the collector.
      task: The function to execute.
      count: How many times.
      threads: The threads of the worker; with one, each task ends before the next is sent.
      change: Changes each recording before it starts.
      after: Called when all runs are published, while the worker still runs.

    Returns:
      The ids of the tasks.
    """
    diagnostics = Diagnostics(settings)
    broker = StubBroker(middleware=[AsyncIO(), diagnostics], fail_fast_default=False)
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=10)
    worker.start()
    try:
        assert diagnostics.process is not None, "nothing is collected on this platform"
        _prepare(diagnostics.process.collectors[name], change)
        actor: Actor[[], None] = dramatiq.actor(broker=broker, actor_name="task")(task)
        ids = []
        for _ in range(count):
            ids.append(actor.send().message_id)
            if threads == 1:
                broker.join("default", timeout=int(PATIENCE_S * 1000))
                worker.join()
        broker.join("default", timeout=int(PATIENCE_S * 1000))
        worker.join()
        assert diagnostics.flush(PATIENCE_S), "the runs were not published in time"
        if after is not None:
            after()
    finally:
        worker.stop()
        broker.close()
    return ids


def _prepare(collector: Collector, change: Change | None) -> None:
    if isinstance(collector, UnavailableCollector):
        import pytest

        pytest.skip(f"It is unavailable here: {collector.reason}")
    if change is not None:
        change_recordings(collector, change)


def change_recordings(collector: Collector, change: Change) -> None:
    """Changes each recording of a collector when it is made, so that a step of it fails, hangs or is noted."""
    record = collector.record

    def record_and_change(run: Any) -> Recording:
        recording = record(run)
        change(recording)
        return recording

    collector.record = record_and_change  # type: ignore[method-assign]


def outcome_of(settings: Settings, task_id: str, artifact_name: str) -> Outcome:
    """Returns: The stored result of a task."""
    store = Store(settings)
    with closing(store), store.session() as session:
        ((run,), _) = list_attempts(session, task_id, 2)
        found = {artifact.name: artifact for artifact in artifacts_of(session, [run.run_id])[run.run_id]}
        assert set(found) == {artifact_name}, f"the artifacts are {sorted(found)}: {[a.reason for a in found.values()]}"
        artifact = found[artifact_name]
        data = None
        if artifact.blob_name is not None:
            with store.blobs.open(artifact.blob_name) as file:
                data = file.read()
            assert artifact.sha256 == hashlib.sha256(data).hexdigest(), "what is stored has another hash"
        return Outcome(
            run_status=run.status,
            status=artifact.status,
            reason=artifact.reason,
            filename=artifact.filename,
            media_type=artifact.media_type,
            data=data,
        )


def files_in_spool(settings: Settings) -> list[str]:
    """Returns: The names of the files in the spool, apart from the entries of runs and the worker's own files."""
    found = (path.name for path in settings.spool.glob("*/*"))
    own = (LOCK_FILE, STATE_FILE)
    return sorted(name for name in found if name not in own and not name.endswith(f".{ENTRY_SUFFIX}"))


def traces(directory: Path) -> dict[str, Any]:
    """Returns: The state of everything that a collector could leave behind in a process."""
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "profile functions": (sys.getprofile(), threading.getprofile()),
        "trace functions": (sys.gettrace(), threading.gettrace()),
        "switch interval": sys.getswitchinterval(),
        "open files": _open_files(directory),
        "log handlers": list(logging.root.handlers),
        "log level": logging.root.level,
        "logging": {
            name: vars(logging.Logger).get(name) for name in ("callHandlers", "handle", "isEnabledFor", "_log")
        },
        "exception hooks": (sys.excepthook, threading.excepthook),
    }


def _open_files(directory: Path) -> list[str]:
    if not os.path.isdir("/proc/self/fd"):
        return []
    found = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sorted(
        target
        for path in found
        if os.path.lexists(path) and (target := os.path.realpath(path)).startswith(f"{directory}/")
    )
