"""Keeps what each worker process says of itself every few seconds, and finds the process that executes a task."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, not_, or_, select, update
from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from .clock import Clock
from .database import dialect_of, upserting_insert
from .models import Worker
from .values import task_key

#: A process that was not heard of for this long, in seconds, is lost.
LOST_AFTER_S = 30.0

#: For so many seconds a lost process counts among the present ones.
_NOW_S = 3600.0

#: The row of a process that was last heard of so long ago, in seconds, is deleted, and its runs are given up.
KEPT_S = 86400.0

#: The most tasks that a process reports, the oldest ones.
MAX_REPORTED = 256

#: A run that has ended is published within seconds, unless the store is out of reach.
_PROMPTLY_S = 60.0


class WorkerState(enum.StrEnum):
    """Whether a worker process lives."""

    LIVE = "live"
    LOST = "lost"
    "It was not heard of for 30 s: it was killed, hangs, or cannot reach the database."
    GONE = "gone"
    "It said goodbye."


class ExecutedTask(TypedDict):
    """A task that a process executes, as its row has it."""

    task_key: str
    "See `values.task_key`."
    task_id: str
    "Fit for display: cut where it is long."
    run_id: str | None
    "None for a task that is not diagnosed."
    actor_name: str
    queue_name: str
    started_at: str
    "RFC 3339, by the clock of the host."
    age_s: float
    "Seconds from its start to the report."


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """What a worker process says of itself."""

    worker_id: uuid.UUID
    hostname: str
    pid: int
    version: str
    "Of this package."
    spool_bytes: int
    "The files of runs in the spool directory, which the processes of a host may share."
    unpublished_s: float | None
    "Seconds for which the oldest run that waits to be published has waited; None where none waits."
    queues: list[str]
    "The queues that it listens to."
    threads: int
    "How many tasks it may execute at once."
    rss_bytes: int | None
    cpu_s: float
    "The CPU time of all its threads since its start."
    diagnostics_cpu_s: float | None
    "The CPU time of the threads of this package; see `runtime.own_threads`."
    tasks: list[ExecutedTask]
    age_s: float
    "Seconds since it began."


def note_worker(session: Session, report: WorkerReport) -> int:
    """Writes the row of a process. Returns: Its `attention`; see `has_attention`."""
    clock = Clock(session)
    values = asdict(report)
    # The row may be a new one of an old process, whose database was removed.
    started_at = clock.after(-values.pop("age_s"))
    unpublished_s = values.pop("unpublished_s")
    values["unpublished_since"] = None if unpublished_s is None else clock.after(-unpublished_s)
    row = upserting_insert(dialect_of(session), Worker)
    row = row.values(**values, started_at=started_at, seen_at=clock.now)
    fixed = ("worker_id", "hostname", "pid", "version")
    changing = {name: row.excluded[name] for name in (*values, "seen_at") if name not in fixed}
    upsert = row.on_conflict_do_update(index_elements=[Worker.worker_id], set_=changing)
    attention: int = session.execute(upsert.returning(Worker.attention)).scalar_one()
    return attention


def attention_of(session: Session, worker_id: uuid.UUID) -> int | None:
    """Returns: The number that grows with each question to a process; None where it has no row."""
    return session.execute(select(Worker.attention).where(Worker.worker_id == worker_id)).scalar()


def call_attention(session: Session, *of: ColumnElement[bool]) -> None:
    """Lets the processes that meet the conditions look soon at what is asked of them; without one, all that live."""
    # PostgreSQL locks the rows in one order: two transactions that do this at once would deadlock otherwise.
    chosen = select(Worker.worker_id).where(*_living(Clock(session)), *of).order_by(Worker.worker_id).with_for_update()
    worker_ids = session.execute(chosen).scalars().all()
    if worker_ids:
        session.execute(update(Worker).where(Worker.worker_id.in_(worker_ids)).values(attention=Worker.attention + 1))


def note_goodbye(session: Session, worker_id: uuid.UUID) -> None:
    """Notes that a process has ended as it should."""
    session.execute(update(Worker).where(Worker.worker_id == worker_id).values(gone_at=Clock(session).now, tasks=[]))


@dataclass(frozen=True, kw_only=True)
class WorkerStanding:
    """A process, whether it lives, and when it was last heard of."""

    worker: Worker
    state: WorkerState
    heard_s_ago: float
    "By the database's clock, which is that of `seen_at` as well."


def list_workers(session: Session, *of: ColumnElement[bool], limit: int = 1000) -> list[WorkerStanding]:
    """Returns: The processes of the last day that meet the conditions, those that began last at the front."""
    clock = Clock(session)
    query = select(Worker, clock.now).where(Worker.seen_at > clock.after(-KEPT_S), *of)
    rows = session.execute(query.order_by(Worker.started_at.desc(), Worker.worker_id).limit(limit))
    return [_standing(worker, (now - worker.seen_at).total_seconds()) for worker, now in rows]


def processes_of_now(session: Session) -> tuple[ColumnElement[bool], ...]:
    """Returns: The conditions of the processes that live, or have been lost for an hour at most."""
    return Worker.gone_at.is_(None), Worker.seen_at > Clock(session).after(-_NOW_S)


@dataclass(frozen=True, kw_only=True)
class HostWorkers:
    """The worker processes of a host."""

    hostname: str
    live: int
    lost: int
    "Within the last hour."
    threads: int | None
    "Of the live ones, as the next: how many tasks they may execute at once. None where none of them reports it."
    threads_busy: int | None
    "How many they execute."


def count_workers(session: Session) -> list[HostWorkers]:
    """Returns: The hosts with processes that live or were lost within the last hour, by name."""
    is_live = Worker.seen_at > Clock(session).after(-LOST_AFTER_S)
    counts = func.count().filter(is_live).label("live"), func.count().filter(not_(is_live)).label("lost")
    threads = func.sum(Worker.threads).filter(is_live).label("threads")
    busy = func.sum(func.json_array_length(Worker.tasks)).filter(is_live).label("threads_busy")
    query = select(Worker.hostname, *counts, threads, busy).where(*processes_of_now(session))
    rows = session.execute(query.group_by(Worker.hostname).order_by(Worker.hostname))
    return [HostWorkers(**row) for row in rows.mappings()]


def find_execution(session: Session, task_id: str) -> tuple[Worker, ExecutedTask] | None:
    """Finds the live process that executes a task; of several, the one that began last.

    Returns:
      The process and the task as it reports it, at most 5 s ago; None where none does, or its version is too old.
    """
    return _latest_execution(_executing(session), task_id)


def last_execution(session: Session, task_id: str) -> tuple[Worker, ExecutedTask] | None:
    """Does the same among the processes that live, or have been lost for an hour at most."""
    query = select(Worker).where(*processes_of_now(session), Worker.tasks.is_not(None))
    return _latest_execution(session.execute(query).scalars(), task_id)


def _latest_execution(workers: Iterable[Worker], task_id: str) -> tuple[Worker, ExecutedTask] | None:
    key = task_key(task_id)
    found = [(worker, task) for worker in workers for task in reported_by(worker) if task["task_key"] == key]
    return max(found, key=lambda pair: pair[1]["started_at"], default=None)


def reported_by(worker: Worker) -> Sequence[ExecutedTask]:
    """Returns: The tasks that a process has reported last; none if its version is too old."""
    tasks: Any = worker.tasks or ()
    return tasks  # type: ignore[no-any-return]


def has_workers(session: Session) -> bool:
    """Returns: Whether a process has reported itself within a day."""
    return session.execute(select(Worker.worker_id).limit(1)).first() is not None


def executed_tasks(session: Session) -> list[ExecutedTask]:
    """Returns: The tasks that live processes report, at most 5 s ago, the oldest first."""
    tasks = [task for worker in _executing(session) for task in reported_by(worker)]
    return sorted(tasks, key=lambda task: str(task["started_at"]))


def fully_reported(session: Session, worker_ids: Collection[uuid.UUID]) -> dict[uuid.UUID, Sequence[ExecutedTask]]:
    """Returns: Those of the processes that live, and that have reported all of their tasks -> the tasks.

    A process with a run that has waited long to be published is left out: more of its ended runs may wait, and their
    rows still say that they run.
    """
    before = Clock(session).read() - timedelta(seconds=_PROMPTLY_S)
    return {
        worker.worker_id: reported_by(worker)
        for worker in _executing(session)
        if worker.worker_id in worker_ids
        and (worker.unpublished_since is None or worker.unpublished_since > before)
        and len(reported_by(worker)) < MAX_REPORTED
    }


def _executing(session: Session) -> Iterable[Worker]:
    # Some thousand rows at most; a condition on a JSON column would differ between the databases.
    return session.execute(select(Worker).where(*_living(Clock(session)), Worker.tasks.is_not(None))).scalars()


def reported_spools(session: Session) -> Sequence[Row[str, int, datetime | None, datetime]]:
    """Reads the spools of the processes that are alive.

    Of a host on which none is alive, those of its lost processes count for a day: what they left waits there.

    Returns:
      The host name, the bytes, `unpublished_since` and the database's time, one row for each process.
    """
    clock = Clock(session)
    living = Worker.seen_at > clock.after(-LOST_AFTER_S)
    hosts_alive = select(Worker.hostname).where(*_living(clock))
    query = select(Worker.hostname, Worker.spool_bytes, Worker.unpublished_since, clock.now)
    kept = Worker.seen_at > clock.after(-KEPT_S)  # The next cleanup, which may be hours away, deletes the others.
    query = query.where(Worker.gone_at.is_(None), kept, or_(living, Worker.hostname.not_in(hosts_alive)))
    return session.execute(query).all()


def delete_old_workers(session: Session) -> int:
    """Deletes the rows of processes that were not heard of for a day. Returns: Their number."""
    old = delete(Worker).where(Worker.seen_at < Clock(session).after(-KEPT_S)).returning(Worker.worker_id)
    return len(session.execute(old).all())


def _living(clock: Clock) -> tuple[ColumnElement[bool], ...]:
    return Worker.gone_at.is_(None), Worker.seen_at > clock.after(-LOST_AFTER_S)


def _standing(worker: Worker, heard_s_ago: float) -> WorkerStanding:
    if worker.gone_at is not None:
        state = WorkerState.GONE
    else:
        state = WorkerState.LIVE if heard_s_ago < LOST_AFTER_S else WorkerState.LOST
    return WorkerStanding(worker=worker, state=state, heard_s_ago=heard_s_ago)
