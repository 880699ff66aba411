"""Defines the records of an entry: a worker writes them, and `reader` validates each line against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, NotRequired, Protocol
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, Field, FiniteFloat
from typing_extensions import TypedDict

from ..collectors.base import ARTIFACT_NAME_PATTERN, FILENAME_PATTERN, MEDIA_TYPE_PATTERN, Collector
from ..errors import GUARDED
from ..runtime.memory_state import MemoryState
from ..runtime.tracebacks import MAX_LENGTH
from ..statuses import ArtifactStatus, RunStatus

#: How many ids of overlapping tasks a run keeps, and where each is cut off, in characters.
MAX_OVERLAPPED = 100
MAX_ID_LENGTH = 200

#: An entry has records of so many artifacts at most.
MAX_ARTIFACTS = 100


def cut_id(task_id: str) -> str:
    """Returns: The id of a task as overlapping runs keep it: a long one ends with an ellipsis."""
    return task_id if len(task_id) <= MAX_ID_LENGTH else f"{task_id[: MAX_ID_LENGTH - 1]}…"


Name = Annotated[str, Field(pattern=f"^{ARTIFACT_NAME_PATTERN}$")]
Filename = Annotated[str, Field(pattern=f"^{FILENAME_PATTERN}$")]
MediaType = Annotated[str, Field(pattern=f"^{MEDIA_TYPE_PATTERN}$")]
Count = Annotated[int, Field(ge=0, le=2**62)]

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
    parent_run_id: NotRequired[UUID | None]
    capture_id: NotRequired[UUID | None]
    without_capture: NotRequired[Annotated[list[Name], Field(max_length=MAX_ARTIFACTS)] | None]
    "The artifacts that the run has even if its capture has no slot for it; None for a run that needs no slot."


class Declared(TypedDict):
    """An artifact that the run is to have."""

    name: Name
    filename: Filename
    media_type: MediaType
    stored_as: NotRequired[Filename | None]


class Start(RunIdentity):
    """The first record of a run."""

    started_at: AwareDatetime
    artifacts: Annotated[list[Declared], Field(max_length=MAX_ARTIFACTS)]


class Call(TypedDict):
    """The call of the actor's function, after the collectors have started."""

    started_at: AwareDatetime
    collection_ms: FiniteFloat


class End(TypedDict):
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

    end: End


class EndedRun(Protocol):
    """A run that has ended."""

    clock: Callable[[], float]
    made: float
    "When it was taken up, by its clock."
    started_at_s: float

    @property
    def elapsed_s(self) -> float: ...
    @property
    def peak_rss_bytes(self) -> int | None: ...
    @property
    def overlapped(self) -> Iterable[str]: ...


if TYPE_CHECKING:

    def moment(seconds: float) -> datetime:
        """Returns: What stands in a record for a moment that is given in seconds since the epoch."""

else:
    # The number itself, which the reader makes a moment of: a task's thread writes it in half the time.
    moment = float


def start_record(identity: RunIdentity, started_at_s: float, declared: Iterable[Collector]) -> Record:
    """Returns: The first record of a run; *declared* are the collectors whose artifacts it is to have."""
    artifacts: list[Declared] = [
        {
            "name": collector.artifact_name,
            "filename": collector.filename,
            "media_type": collector.media_type,
            "stored_as": collector.stored_as,
        }
        for collector in declared
    ]
    return {"run": {**identity, "started_at": moment(started_at_s), "artifacts": artifacts}}


def end_record(run: EndedRun, status: RunStatus, exception: BaseException | None) -> Record:
    """Returns: The last record of a run."""
    elapsed_s = run.elapsed_s
    return {
        "end": {
            "status": status,
            "started_at": moment(run.started_at_s),
            "finished_at": moment(run.started_at_s + elapsed_s),
            "duration_ms": round(elapsed_s * 1000, 3),
            "collection_ms": round((run.clock() - run.made - elapsed_s) * 1000, 3),
            "peak_rss_bytes": run.peak_rss_bytes,
            "exception_type": None if exception is None else type(exception).__qualname__,
            "exception_message": None if exception is None else text_of(exception),
            "overlapped_task_ids": list(run.overlapped),
        }
    }


def text_of(error: BaseException) -> str:
    """Returns: The text of an exception, whose `__str__` may itself raise."""
    try:
        return str(error)[:2000]
    except GUARDED as broken:
        return f"<its text could not be made: {type(broken).__name__}>"
