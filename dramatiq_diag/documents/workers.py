"""Makes the JSON document of the worker processes, for HTTP and the command line."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..statuses import RunStatus
from ..store.actor_stats import median_durations
from ..store.attempts import Attempt
from ..store.runs import find_runs
from ..store.values import task_key
from ..store.workers import ExecutedTask, WorkerStanding, WorkerState, list_workers, processes_of_now
from .fields import HrefText, Timestamp, UuidText, described, document_of, task_href


@described
class ExecutedRunDocument(TypedDict):
    """A task that a process executes: the fields of RUN that are known of it, whether it is diagnosed or not."""

    run_id: UuidText | None
    "Null for a task that is not diagnosed."
    task_id: str
    actor_name: str
    queue_name: str
    attempt: int | None
    "Null where no row of the run is stored yet."
    status: RunStatus
    "Always `running`."
    started_at: Timestamp
    "By the clock of the host."
    peak_rss_bytes: int | None
    hostname: str
    pid: int
    is_stuck: bool
    "Whether it runs for much longer than its actor usually does."
    age_s: float
    "For how long it has been running, in seconds, when this was asked."
    usual_duration_ms: float | None
    "The median of the actor's latest 100 ended runs; null where none is stored."
    href: HrefText | None
    "The path of the task; null where its id was cut and no row of the run is stored."


@described
class WorkerDocument(TypedDict):
    """A worker process, as it last reported itself. What is null was not reported: its version is older."""

    worker_id: UuidText
    hostname: str
    pid: int
    started_at: Timestamp
    seen_at: Timestamp
    "When it was last heard of, by the database's clock; it reports itself every 5 s."
    heard_s_ago: float
    "The same in seconds before this was asked."
    state: WorkerState
    "`live`; `lost` when it was not heard of for 30 s; `gone` when it said goodbye."
    version: str
    "Of this package."
    queues: list[str] | None
    "The queues that it listens to."
    threads: int | None
    "How many tasks it may execute at once."
    threads_busy: int | None
    "How many it executes; at most 256 are counted."
    rss_bytes: int | None
    cpu_s: float | None
    "The CPU time of all its threads since its start, in seconds."
    diagnostics_cpu_s: float | None
    "The CPU time of the threads of this package among them, in seconds; null under gevent and on macOS."
    spool_bytes: int
    "The files of runs in its spool directory, which the processes of a host may share."
    runs: list[ExecutedRunDocument]
    """What it executes, the oldest first; empty for a process that is gone. Of one that is lost, what it executed when
    it was last heard of, without the runs that have been published since."""


@described
class WorkersDocument(TypedDict):
    """The worker processes, those that began last at the front."""

    workers: list[WorkerDocument]


def workers_document(session: Session, *, every_state: bool = False, limit: int = 1000) -> WorkersDocument:
    """Returns: The processes that live or are lost.

    Parameters:
      every_state: Whether those that said goodbye within a day are listed too, and those that are lost for an hour.
      limit: The most processes.
    """
    standings = list_workers(session, *(() if every_state else processes_of_now(session)), limit=limit)
    tasks = [task for standing in standings for task in standing.worker.tasks or ()]
    run_ids = [uuid.UUID(run_id) for task in tasks if (run_id := task["run_id"]) is not None]
    runs = {str(run.run_id): run for run in find_runs(session, run_ids)}
    usual_ms = median_durations(session, sorted({task["actor_name"] for task in tasks}))
    return {"workers": [_worker_document(standing, runs, usual_ms) for standing in standings]}


def _worker_document(
    standing: WorkerStanding, runs: Mapping[str, Attempt], usual_ms: Mapping[str, float]
) -> WorkerDocument:
    worker = standing.worker
    tasks = cast(Sequence[ExecutedTask] | None, worker.tasks)
    document = document_of(
        WorkerDocument,
        worker,
        heard_s_ago=round(max(standing.heard_s_ago, 0.0), 3),
        state=standing.state,
        threads_busy=None,
        runs=[],
    )
    executed = [(task, runs.get(task["run_id"] or "")) for task in tasks or ()]
    # A run that has a row with an end has ended since the report; of a killed process another one has published it.
    going_on = [(task, run) for task, run in executed if run is None or run.status == RunStatus.RUNNING]
    document["runs"] = [_run_document(standing, task, run, usual_ms) for task, run in going_on]
    document["threads_busy"] = None if tasks is None else len(going_on)
    return document


def _run_document(
    standing: WorkerStanding, task: ExecutedTask, run: Attempt | None, usual_ms: Mapping[str, float]
) -> ExecutedRunDocument:
    task_id = task["task_id"] if run is None else run.task_id
    return document_of(
        ExecutedRunDocument,
        standing.worker,
        **{name: task[name] for name in ("run_id", "actor_name", "queue_name")},
        task_id=task_id,
        started_at=datetime.fromisoformat(task["started_at"]),
        attempt=None if run is None else run.attempt,
        status=RunStatus.RUNNING,
        peak_rss_bytes=None if run is None else run.peak_rss_bytes,
        is_stuck=run is not None and bool(run.is_stuck),
        age_s=round(task["age_s"] + max(standing.heard_s_ago, 0.0), 3),
        usual_duration_ms=usual_ms.get(task["actor_name"]),
        href=task_href(task_id) if task_key(task_id) == task["task_key"] else None,
    )
