"""Defines the tables; has no queries."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    Uuid,
    and_,
    case,
    false,
    literal_column,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator

from ..runtime.tracebacks import MAX_LENGTH
from ..statuses import DOWNLOADABLE_STATUSES
from .values import clean_text


def is_live(status: Any) -> ColumnElement[bool]:
    """Returns: Whether a status is that of an artifact with a blob, as the index of the live artifacts has it.

    The statuses stand in the statement itself: SQLite does not use a partial index where they are parameters.
    """
    condition: ColumnElement[bool] = status.in_([literal_column(f"'{live}'") for live in DOWNLOADABLE_STATUSES])
    return condition


def checked_per_row(*conditions: ColumnElement[bool]) -> ColumnElement[bool]:
    """Returns: The conditions in a form that no index serves, for rows that are found by their ids.

    While PostgreSQL has no statistics of a table it expects a handful of rows for each condition. For the 200 ids of a
    batch it would then read the whole index of the live artifacts.
    """
    return case((and_(*conditions), true()), else_=false())


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes in UTC, on databases with and without time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class CleanText(TypeDecorator[str]):
    """Text that `clean_text` makes fit for every database, also in a comparison.

    It is cut at *cut* characters; the column has a *length* or none.
    """

    impl: Any = Text
    cache_ok = True

    def __init__(self, cut: int | None = None, length: int | None = None) -> None:
        super().__init__()
        self.cut = cut
        self.length = length
        self.impl = Text() if length is None else String(length)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else clean_text(value, self.cut)


#: A name, as of an actor; the length of its column.
NAME_LENGTH = 255
Name = CleanText(NAME_LENGTH, NAME_LENGTH)


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
    peak_rss_bytes: Mapped[int | None] = mapped_column(BigInteger)
    hostname: Mapped[str] = mapped_column(Name)
    pid: Mapped[int] = mapped_column(BigInteger)
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

    artifacts: Mapped[list[Artifact]] = relationship(order_by="Artifact.name", viewonly=True)

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
        ),
        Index(None, "queue_name", "started_at", "run_id"),
        Index(None, "status", "started_at", "run_id"),
        Index(None, "duration_ms", "run_id"),
        Index(None, "peak_rss_bytes", "run_id"),
        *(
            Index(None, name, postgresql_where=text(f"{name} IS NOT NULL"), sqlite_where=text(f"{name} IS NOT NULL"))
            for name in ("parent_run_id", "capture_id")
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


class Artifact(Base):
    """What one collector left of one run: a blob, or the reason why there is none."""

    __tablename__ = "dramatiq_diag_artifacts"

    artifact_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    "Made from the run's id and the name, so that publishing twice gives one row."
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("dramatiq_diag_task_runs.run_id", ondelete="CASCADE"))
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
        Index(None, "run_id", "name", unique=True),
        Index(
            None,
            "expires_at",
            postgresql_where=text("status IN ('stored', 'partial')"),
            sqlite_where=text("status IN ('stored', 'partial')"),
        ),
    )


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
