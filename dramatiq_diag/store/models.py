"""Defines the tables; has no queries."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Uuid,
    and_,
    case,
    false,
    literal_column,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from ..runtime.tracebacks import MAX_LENGTH
from ..settings.readers import MAX_RELEASE_LENGTH
from ..statuses import DOWNLOADABLE_STATUSES, RunStatus
from .columns import CleanText, Name, UtcDateTime
from .memory_curves import LENGTH


def is_live(status: Any) -> ColumnElement[bool]:
    """Returns: Whether a status is that of an artifact with a blob, as the index of the live artifacts has it.

    The statuses stand in the statement itself: SQLite does not use a partial index where they are parameters.
    """
    condition: ColumnElement[bool] = status.in_([literal_column(f"'{live}'") for live in DOWNLOADABLE_STATUSES])
    return condition


def checked_per_row(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Returns: The conditions as an expression that no index serves, for rows that are found by their ids.

    While PostgreSQL has no statistics of a table it expects a handful of rows for each condition. For the 200 ids of a
    batch it would then read the whole index of the live artifacts.
    """
    return case((and_(*conditions), true()), else_=false())


def _only(condition: str) -> dict[str, Any]:
    """Returns: The arguments of an index that has only the rows which meet a condition in SQL."""
    return {"postgresql_where": text(condition), "sqlite_where": text(condition)}


#: The counters of a run that lists are sorted by.
SORTED_COUNTERS = ("queue_wait_ms", "cpu_ms", "run_queue_ms", "gc_ms", "touched_bytes")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",  # PostgreSQL's names have 63 characters at most.
            "pk": "pk_%(table_name)s",
        }
    )


class TaskRun(Base):
    """One attempt to execute a task."""

    __tablename__ = "dramatiq_diag_task_runs"

    run_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    task_key: Mapped[str] = mapped_column(String(32))
    "A digest of the task id, since any string is one and an index has a limit; see `values.task_key`."
    task_id: Mapped[str] = mapped_column(CleanText())
    "Dramatiq's message id, fit for display."
    actor_name: Mapped[str] = mapped_column(Name)
    queue_name: Mapped[str] = mapped_column(Name)
    status: Mapped[str] = mapped_column(CleanText(16, 16))
    "A `RunStatus`."
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    duration_ms: Mapped[float | None] = mapped_column(Float)
    "The time of the actor's function alone."
    collection_ms: Mapped[float | None] = mapped_column(Float)
    "What the collectors took of the task's thread besides, before the function and after it; None where unknown."
    queue_wait_ms: Mapped[float | None] = mapped_column(Float)
    "From the moment when the message was due until a worker took it up; None where unknown."
    peak_rss_bytes: Mapped[int | None] = mapped_column(BigInteger)
    cpu_ms: Mapped[float | None] = mapped_column(Float)
    "The CPU time of its own thread, or of the steps of its coroutine. None where unknown, as in what follows."
    run_queue_ms: Mapped[float | None] = mapped_column(Float)
    "For how long its thread could run and had no processor."
    gc_ms: Mapped[float | None] = mapped_column(Float)
    "The time of Python's garbage collector on its thread; a part of `cpu_ms`."
    throttled_ms: Mapped[float | None] = mapped_column(Float)
    "For how long the kernel kept the container from its processors meanwhile."
    touched_bytes: Mapped[int | None] = mapped_column(BigInteger)
    "The memory that its thread touched first: its minor page faults times the size of a page."
    major_faults: Mapped[int | None] = mapped_column(BigInteger)
    "The page faults of its thread that had to wait for a disk."
    memory_role: Mapped[str | None] = mapped_column(String(16))
    "A `MemoryRole`, where the process was killed for its memory."
    death_reason: Mapped[str | None] = mapped_column(CleanText(4000))
    "What is known of the death of its process, in sentences."
    given_up_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the cleanup ended it, as nothing was heard of its worker; see `given_up`.

    Until it is published, if ever, `finished_at` is None. This stays, so that publishing knows that it was counted."""
    hostname: Mapped[str] = mapped_column(Name)
    pid: Mapped[int] = mapped_column(BigInteger)
    worker_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "The worker process, as `Worker` has it."
    exception_type: Mapped[str | None] = mapped_column(Name)
    exception_message: Mapped[str | None] = mapped_column(CleanText(4000))
    exception_traceback: Mapped[str | None] = mapped_column(
        CleanText(MAX_LENGTH), deferred=True, deferred_raiseload=True
    )
    "As Python prints it, cut where it is long; read by `runs.traceback_of` alone, as a list would load megabytes."
    overlapped_task_ids: Mapped[list[str]] = mapped_column(JSON)
    "Tasks that the same process ran meanwhile: RSS is the process's, so it is theirs too."
    pinned_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    "When it was pinned; the cleanup leaves a pinned run alone."

    parent_run_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "The diagnosed run that sent this task, which passed on what is collected."
    capture_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "The capture that asked for it."
    trace_id: Mapped[str | None] = mapped_column(String(32))
    "The trace that it is part of, in hexadecimal digits."
    span_id: Mapped[str | None] = mapped_column(String(16))
    "Its own span in that trace, or its sender's; likewise."
    release: Mapped[str | None] = mapped_column(CleanText(MAX_RELEASE_LENGTH, MAX_RELEASE_LENGTH))
    "The release of the application; None where unknown."

    is_stuck: Mapped[bool | None] = mapped_column(Boolean)
    "Whether it runs for much longer than its actor usually does; None where that was never found."

    memory_curve: Mapped[str | None] = mapped_column(String(LENGTH))
    "See `memory_curves`; None where there is no memory log, and of a run that an older version published."

    artifacts: Mapped[list[Artifact]] = relationship(
        primaryjoin="and_(TaskRun.run_id == Artifact.run_id, Artifact.attachment_id.is_(None))",
        order_by="Artifact.name",
        viewonly=True,
    )
    "Without those of attachments."

    __table_args__ = (
        Index(None, "task_key", "started_at", "run_id"),
        Index(None, "started_at", "run_id"),
        # All that a summary reads; a name made of all columns would be too long for PostgreSQL.
        Index(
            "ix_dramatiq_diag_task_runs_actor_summary",
            "actor_name",
            "started_at",
            "run_id",
            "status",
            "peak_rss_bytes",
            "duration_ms",
            "queue_wait_ms",
            "cpu_ms",
            "touched_bytes",
        ),
        Index(None, "queue_name", "started_at", "run_id"),
        Index(None, "status", "started_at", "run_id"),
        Index(None, "duration_ms", "run_id"),
        *(Index(None, name, "run_id") for name in ("peak_rss_bytes", *SORTED_COUNTERS)),
        Index(None, "actor_name", "peak_rss_bytes"),
        Index(None, "actor_name", "duration_ms", "run_id"),
        Index(
            "ix_dramatiq_diag_task_runs_actor_not_succeeded",
            "actor_name",
            "status",
            "started_at",
            "run_id",
            **_only(f"status <> '{RunStatus.SUCCEEDED}'"),
        ),
        *(
            Index(None, *columns, **_only(f"{columns[0]} IS NOT NULL"))
            for columns in (
                ("parent_run_id", "started_at", "run_id"),
                ("capture_id",),
                ("trace_id", "started_at", "run_id"),
            )
        ),
    )


class Capture(Base):
    """A request for the next runs of an actor; it ends by itself."""

    __tablename__ = "dramatiq_diag_captures"

    capture_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    actor_name: Mapped[str] = mapped_column(Name)
    diagnostics: Mapped[dict[str, dict[str, Any]]] = mapped_column(JSON)
    "Name of each collector -> its options."
    run_limit: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    "When it had all its runs, or was ended by hand."
    claimed: Mapped[int] = mapped_column(Integer, server_default="0")
    "The runs that have a slot; with `run_limit` of them the capture is complete."

    __table_args__ = (Index(None, "ended_at", "expires_at"),)


class WorkerActor(Base):
    """An actor that a worker process has."""

    __tablename__ = "dramatiq_diag_worker_actors"

    actor_name: Mapped[str] = mapped_column(Name, primary_key=True)
    queue_name: Mapped[str] = mapped_column(Name)
    "The queue of the actor where it was last seen."
    last_seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    "When a worker process last said that it has it."


class Worker(Base):
    """A worker process, as it last reported itself."""

    __tablename__ = "dramatiq_diag_workers"

    worker_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    hostname: Mapped[str] = mapped_column(Name)
    pid: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[str] = mapped_column(Name)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime)
    gone_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    "When it ended as it should; None while it lives, and after it was killed."
    spool_bytes: Mapped[int] = mapped_column(BigInteger)
    unpublished_since: Mapped[datetime | None] = mapped_column(UtcDateTime)
    "When the oldest run that waits to be published ended; None where none waits."
    queues: Mapped[list[str] | None] = mapped_column(JSON)
    "The queues that it listens to. None, as what follows, of a process of an older version."
    threads: Mapped[int | None] = mapped_column(Integer)
    "How many tasks it may execute at once."
    rss_bytes: Mapped[int | None] = mapped_column(BigInteger)
    cpu_s: Mapped[float | None] = mapped_column(Float)
    "The CPU time of all its threads since its start, in seconds."
    diagnostics_cpu_s: Mapped[float | None] = mapped_column(Float)
    "The CPU time of the threads of this package among them, in seconds."
    tasks: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON)
    "The tasks that it executes, diagnosed or not; see `workers.ExecutedTask`."
    attention: Mapped[int] = mapped_column(BigInteger, server_default="0")
    "Grows with each question to this process; it looks for questions when the number is another one than before."


class Question(Base):
    """A question to a worker process about a running task, and its answer. It expires."""

    __tablename__ = "dramatiq_diag_questions"

    question_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    "A `QuestionKind`."
    worker_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    task_id: Mapped[str] = mapped_column(CleanText())
    run_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "None for a task that is not diagnosed."
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    "From then on the worker ignores it, and the cleanup deletes it. A reader that still waits moves it on."
    state: Mapped[str] = mapped_column(String(16))
    "A `QuestionState`."
    reason: Mapped[str | None] = mapped_column(CleanText(4000))
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON, deferred=True)
    answered_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (Index(None, "worker_id", "state"), Index(None, "expires_at"), Index(None, "run_id"))


class Artifact(Base):
    """What one collector left of one run: a blob, or the reason why there is none."""

    __tablename__ = "dramatiq_diag_artifacts"

    artifact_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    "Made from the ids of run and attachment and the name, so that publishing twice gives one row."
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dramatiq_diag_task_runs.run_id", ondelete="CASCADE"))
    attachment_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "The attachment that it is of; None where it was collected as the run began."
    name: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16))
    "An `ArtifactStatus`."
    reason: Mapped[str | None] = mapped_column(CleanText(4000))
    filename: Mapped[str] = mapped_column(String(255))
    media_type: Mapped[str] = mapped_column(String(127))
    stored_as: Mapped[str | None] = mapped_column(String(255))
    blob_name: Mapped[str | None] = mapped_column(String(64))
    "Relative to the blob root."
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64))
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    "When the cleanup may remove it; None where there is no blob, and while the run is pinned."

    run: Mapped[TaskRun] = relationship(viewonly=True)

    __table_args__ = (
        Index(None, "run_id", "name", "attachment_id", unique=True),
        Index(None, "expires_at", **_only("status IN ('stored', 'partial')")),
    )


class Counter(Base):
    """One number that is kept beside the rows it counts; see `counters.Series`."""

    __tablename__ = "dramatiq_diag_counters"

    actor_name: Mapped[str] = mapped_column(Name, primary_key=True)
    queue_name: Mapped[str] = mapped_column(Name, primary_key=True)
    "Empty where the series is not divided by queue."
    series: Mapped[str] = mapped_column(String(32), primary_key=True)
    label: Mapped[str] = mapped_column(String(64), primary_key=True)
    "A status, the name of an artifact, the upper bound of a bucket, `sum` of a histogram, or empty."
    value: Mapped[float] = mapped_column(Float)
    "Whole numbers are exact up to 2**53."
    exemplar_run_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "A recent run of the bucket, whose row may be gone."
    exemplar_trace_id: Mapped[str | None] = mapped_column(String(32))
    exemplar_value: Mapped[float | None] = mapped_column(Float)
    exemplar_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class HeapWindow(Base):
    """The least live memory of a worker process within a window of time, and the runs that ended before it."""

    __tablename__ = "dramatiq_diag_heap_windows"

    window_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    worker_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    number: Mapped[int] = mapped_column(Integer)
    "The rank of the window among those of its process, from 0."
    started_at: Mapped[datetime] = mapped_column(UtcDateTime)
    "The moment of the least memory of the window before, or the start of the process; by its host's clock."
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    "The moment of the least memory of this window."
    runs: Mapped[dict[str, int]] = mapped_column(JSON)
    "Actor -> how many of its runs ended between these two moments, diagnosed or not."
    looks: Mapped[int] = mapped_column(Integer)
    "How often the memory was looked at in the window."
    small_bytes: Mapped[int] = mapped_column(BigInteger)
    "The bytes of live objects of at most 512 bytes each. This, as what follows, is of the moment of the least memory."
    in_use_bytes: Mapped[int] = mapped_column(BigInteger)
    "The bytes of the C library's heap that were in use; larger objects are there."
    free_bytes: Mapped[int] = mapped_column(BigInteger)
    "The bytes that this heap kept free."
    rss_bytes: Mapped[int | None] = mapped_column(BigInteger)
    "The RSS when the window was closed."

    __table_args__ = (Index(None, "ended_at"), Index(None, "worker_id", "number"))


class StoreState(Base):
    """The one row about the store itself."""

    __tablename__ = "dramatiq_diag_store_state"

    id: Mapped[int] = mapped_column(primary_key=True)
    "Always 1."
    store_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    "Kept in the blob root as well: the two halves of a store know each other."
    last_cleanup_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    "When a cleanup was last enqueued by the schedule."
    blob_root_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    "Of the one blob root that was claimed for this store; None while there is none."
