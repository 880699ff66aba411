"""Defines the records of an entry: a worker writes them, and `reader` validates each line against them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NotRequired
from uuid import UUID

from dramatiq.middleware import Interrupt
from pydantic import AfterValidator, AwareDatetime, Field, FiniteFloat
from typing_extensions import TypedDict

from ..collectors.base import ARTIFACT_NAME_PATTERN, FILENAME_PATTERN, MEDIA_TYPE_PATTERN, Collector
from ..runtime.memory_state import MemoryState
from ..runtime.tracebacks import MAX_LENGTH
from ..settings.readers import MAX_RELEASE_LENGTH
from ..statuses import ArtifactStatus, RunStatus

#: How many ids of overlapping tasks a run keeps, and where each is cut off, in characters.
MAX_OVERLAPPED = 100
MAX_ID_LENGTH = 200

#: An entry has records of so many artifacts at most.
MAX_ARTIFACTS = 100

#: A longer text is written in pieces of this length, in characters.
_MAX_TEXT_LENGTH = 64 * 1024


def cut_id(task_id: str) -> str:
    """Returns: The id of a task as overlapping runs keep it: a long one ends with an ellipsis."""
    return task_id if len(task_id) <= MAX_ID_LENGTH else f"{task_id[: MAX_ID_LENGTH - 1]}…"


Name = Annotated[str, Field(pattern=f"^{ARTIFACT_NAME_PATTERN}$")]
Filename = Annotated[str, Field(pattern=f"^{FILENAME_PATTERN}$")]
MediaType = Annotated[str, Field(pattern=f"^{MEDIA_TYPE_PATTERN}$")]
Count = Annotated[int, Field(ge=0, le=2**62)]
Milliseconds = Annotated[FiniteFloat, Field(ge=0)]

TraceId = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
SpanId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]

#: The ids of overlapping tasks; older versions wrote them in full.
TaskIds = Annotated[list[Annotated[str, AfterValidator(cut_id)]], AfterValidator(lambda ids: ids[:MAX_OVERLAPPED])]


class RunIdentity(TypedDict):
    """The fields of a run that are known from its start; its row has them as well."""

    run_id: UUID
    task_id: str
    actor_name: str
    queue_name: str
    hostname: str
    pid: Count
    worker_id: NotRequired[UUID | None]
    queue_wait_ms: NotRequired[FiniteFloat | None]
    parent_run_id: NotRequired[UUID | None]
    capture_id: NotRequired[UUID | None]
    without_capture: NotRequired[Annotated[list[Name], Field(max_length=MAX_ARTIFACTS)] | None]
    "The artifacts that the run has even if its capture has no slot for it; None for a run that needs no slot."
    trace_id: NotRequired[TraceId | None]
    span_id: NotRequired[SpanId | None]
    release: NotRequired[Annotated[str, Field(max_length=MAX_RELEASE_LENGTH)] | None]


class Declared(TypedDict):
    """An artifact that the run is to have."""

    name: Name
    filename: Filename
    media_type: MediaType
    stored_as: NotRequired[Filename | None]


class Start(RunIdentity):
    """The first record of a run, or of an attachment to one."""

    started_at: AwareDatetime
    attachment_id: NotRequired[UUID | None]
    "The attachment that the entry is of, which names its files; None where it is of the run itself."
    artifacts: Annotated[list[Declared], Field(max_length=MAX_ARTIFACTS)]


class Call(TypedDict):
    """The call of the actor's function, after the collectors have started."""

    started_at: AwareDatetime
    collection_ms: FiniteFloat


KernelText = Annotated[str, Field(max_length=2000)]


class Counted(TypedDict):
    """What was counted for the thread of a run; see the columns of `TaskRun`."""

    schedstat: NotRequired[tuple[KernelText, KernelText]]
    "The file of the kernel at the start and at the end; `run_queue_ms` is read from it."
    cpu_stat: NotRequired[tuple[KernelText, KernelText]]
    "The same of the control group that has a limit of CPU time, for `throttled_ms`; absent where none has."

    cpu_ms: NotRequired[Milliseconds | None]
    run_queue_ms: NotRequired[Milliseconds | None]
    gc_ms: NotRequired[Milliseconds | None]
    throttled_ms: NotRequired[Milliseconds | None]
    touched_bytes: NotRequired[Count | None]
    major_faults: NotRequired[Count | None]


class End(Counted):
    """The end of a run. Versions before 0.1.0 wrote only some of the fields."""

    status: RunStatus
    finished_at: AwareDatetime
    duration_ms: FiniteFloat
    started_at: NotRequired[AwareDatetime | None]
    "The call of the function, which is later than the first record."
    collection_ms: NotRequired[FiniteFloat | None]
    peak_rss_bytes: NotRequired[Count | None]
    exception_type: NotRequired[str | None]
    exception_message: NotRequired[str | None]
    overlapped_task_ids: NotRequired[TaskIds]


class Record(TypedDict, total=False):
    """One line of an entry. It has the fields of one of these groups, or of the first two."""

    run: Start

    called: Call

    declared: Declared
    "An artifact that the run has besides those of its start. A version that does not know it leaves it out."

    attached: bool
    "An attachment was made to the run, whose row stays even if its capture has no slot for it."

    to: Name
    "A piece of an artifact that is text by the line."
    text: str
    peak_rss_bytes: Count | None

    artifact: Name
    "The outcome of an artifact that is not simply stored."
    status: ArtifactStatus
    reason: str

    peak: Count
    "The peak of the RSS so far."

    beside: TaskIds
    "The overlapping tasks since the last such record."

    vitals: MemoryState
    "The state of the process, once a second: versions before `owner.state` wrote it."
    overlapped_task_ids: TaskIds

    traceback: Annotated[str, Field(max_length=MAX_LENGTH)]

    dropped: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=100)]
    "The keep rules none of which held."

    cut: Annotated[str, Field(max_length=500)]
    "The reason why texts are not whole."

    stopped: Annotated[str, Field(max_length=500)]
    "Why its worker, which lived on, saw no end of the run."

    end: End


if TYPE_CHECKING:

    def moment(seconds: float) -> datetime:
        """Returns: A moment as a record has it. It is given in seconds since the epoch."""

else:
    # It stays a number, and the reader makes a moment of it: a task's thread writes a number in half the time.
    moment = float


def declaration(collector: Collector) -> Declared:
    """Returns: What a record says of the artifact of a collector."""
    return {
        "name": collector.artifact_name,
        "filename": collector.filename,
        "media_type": collector.media_type,
        "stored_as": collector.stored_as,
    }


def start_record(
    identity: RunIdentity, started_at_s: float, declared: Iterable[Collector], attachment_id: UUID | None = None
) -> Record:
    """Returns: The first record of a run, or of an attachment; *declared* are the collectors of its artifacts."""
    artifacts = [declaration(collector) for collector in declared]
    started_at = moment(started_at_s)
    if attachment_id is None:
        return {"run": {**identity, "started_at": started_at, "artifacts": artifacts}}  # type: ignore[typeddict-item]
    return {"run": {**identity, "attachment_id": attachment_id, "started_at": started_at, "artifacts": artifacts}}


def text_records(name: str, text: str) -> list[Record]:
    """Returns: The records of a piece of an artifact that is text: an entry is read line by line."""
    if len(text) <= _MAX_TEXT_LENGTH:
        return [{"to": name, "text": text}]
    places = range(0, len(text), _MAX_TEXT_LENGTH)
    return [{"to": name, "text": text[place : place + _MAX_TEXT_LENGTH]} for place in places]


def text_of(error: BaseException) -> str:
    """Returns: The text of an exception, whose `__str__` may itself raise."""
    try:
        return str(error)[:2000]
    except BaseException as broken:  # Any error of the application's code here would end the thread of the worker.
        if isinstance(broken, Interrupt):
            raise
        return f"<its text could not be made: {type(broken).__name__}>"
