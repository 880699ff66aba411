"""From a spool entry to what is published; it trusts nothing that the entry says."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, BinaryIO

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, FiniteFloat, ValidationError

from ..collectors.base import ARTIFACT_NAME_PATTERN, FILENAME_PATTERN, MEDIA_TYPE_PATTERN, checkpoint_name
from ..errors import SpoolError
from ..runtime.bounded_reading import PIECE_BYTES, PiecesFile
from ..runtime.memory_state import MemoryState
from ..runtime.tracebacks import MAX_LENGTH
from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from ..store.records import ArtifactRecord, FinishedRun, RunRecord
from .entry import EMPTY_BYTES, ENTRY_SUFFIX, Entry, Record
from .owner_state import read_state
from .schema import MAX_OVERLAPPED, cut_id

_Name = Annotated[str, Field(pattern=f"^{ARTIFACT_NAME_PATTERN}$")]
_Filename = Annotated[str, Field(pattern=f"^{FILENAME_PATTERN}$")]
_Count = Annotated[int, Field(ge=0, le=2**62)]

#: The ids of the tasks that ran beside; older versions wrote them in full.
_Beside = Annotated[list[Annotated[str, AfterValidator(cut_id)]], AfterValidator(lambda ids: ids[:MAX_OVERLAPPED])]

#: The texts of a run that are held until it is published, in characters; longer ones are read again then.
_MAX_HELD_LENGTH = 64 * 1024

#: An entry has records of so many artifacts at most, as its start may declare as many.
_MAX_ARTIFACTS = 100


class _Declared(BaseModel):
    name: _Name
    filename: _Filename
    media_type: Annotated[str, Field(pattern=f"^{MEDIA_TYPE_PATTERN}$")]
    stored_as: _Filename | None = None


class _Start(BaseModel):
    run_id: uuid.UUID
    task_id: str
    actor_name: str
    queue_name: str
    started_at: AwareDatetime
    hostname: str
    pid: _Count
    parent_run_id: uuid.UUID | None = None
    capture_id: uuid.UUID | None = None
    artifacts: Annotated[list[_Declared], Field(max_length=_MAX_ARTIFACTS)]


class _Called(BaseModel):
    started_at: AwareDatetime
    collection_ms: FiniteFloat


class _End(BaseModel):
    status: RunStatus
    started_at: AwareDatetime | None = None
    finished_at: AwareDatetime
    duration_ms: FiniteFloat
    collection_ms: FiniteFloat | None = None
    peak_rss_bytes: _Count | None = None
    exception_type: str | None = None
    exception_message: str | None = None
    overlapped_task_ids: _Beside = []


class _Outcome(BaseModel):
    artifact: _Name
    status: ArtifactStatus
    reason: str


class _Text(BaseModel):
    to: _Name
    text: str
    peak_rss_bytes: _Count | None = None


class _Neighbours(BaseModel):
    beside: _Beside


class _Peak(BaseModel):
    peak: _Count


class _Look(BaseModel):
    """What versions before `owner.state` wrote once a second."""

    vitals: MemoryState
    overlapped_task_ids: _Beside


class _Cut(BaseModel):
    cut: Annotated[str, Field(max_length=500)]


class _Verdict(BaseModel):
    dropped: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=100)]


class _Traceback(BaseModel):
    traceback: Annotated[str, Field(max_length=MAX_LENGTH)]


class _Contents:
    """What the records of an entry say, put together; its memory does not grow with the entry."""

    def __init__(self, entry: Entry) -> None:
        self.start: _Start | None = None
        self.called: _Called | None = None
        self.end: _End | None = None
        self.outcomes: dict[str, _Outcome] = {}
        self.texts: dict[str, list[str]] = {}
        "Name of an artifact -> its pieces; none of them where `are_held` is not so."
        self.are_held = True
        self.held_bytes = 0
        self.peak_rss_bytes: int | None = None
        self.last_look: MemoryState | None = None
        self.beside: list[str] = []
        self.traceback: str | None = None
        self.verdict: _Verdict | None = None
        self.cut: str | None = None
        "Why texts are not whole."
        self.is_empty = True
        for record in entry.records():
            self.is_empty = False
            self._add(record)

    def _add(self, record: Record) -> None:
        try:
            if "to" in record:
                self._add_text(_Text.model_validate(record))
            elif "artifact" in record:
                outcome = _Outcome.model_validate(record)
                if len(self.outcomes) < _MAX_ARTIFACTS or outcome.artifact in self.outcomes:
                    self.outcomes[outcome.artifact] = outcome
            elif "run" in record:
                self.start = _Start.model_validate(record["run"])
            elif "called" in record:
                self.called = _Called.model_validate(record["called"])
            elif "peak" in record:
                self.note_peak(_Peak.model_validate(record).peak)
            elif "beside" in record:
                self._add_neighbours(_Neighbours.model_validate(record).beside)
            elif "vitals" in record:
                look = _Look.model_validate(record)
                self.last_look = look.vitals
                self.note_peak(look.vitals.rss_bytes)
                self._add_neighbours(look.overlapped_task_ids)
            elif "traceback" in record:
                self.traceback = _Traceback.model_validate(record).traceback
            elif "dropped" in record:
                self.verdict = _Verdict.model_validate(record)
            elif "cut" in record:
                self.cut = _Cut.model_validate(record).cut
            elif "end" in record:
                self.end = _End.model_validate(record["end"])
                self.note_peak(self.end.peak_rss_bytes)
        except ValidationError:  # A line that is not ours counts as one that a full disk tore.
            return

    def note_peak(self, rss_bytes: int | None) -> None:
        if rss_bytes is not None:
            self.peak_rss_bytes = max(self.peak_rss_bytes or 0, rss_bytes)

    def _add_text(self, piece: _Text) -> None:
        if piece.to not in self.texts and len(self.texts) >= _MAX_ARTIFACTS:
            return
        pieces = self.texts.setdefault(piece.to, [])
        self.note_peak(piece.peak_rss_bytes)
        if not self.are_held:
            return
        self.held_bytes += len(piece.text)
        if self.held_bytes <= _MAX_HELD_LENGTH:
            pieces.append(piece.text)
            return
        self.are_held, self.held_bytes = False, 0
        self.texts = {name: [] for name in self.texts}

    def _add_neighbours(self, task_ids: list[str]) -> None:
        self.beside = list(dict.fromkeys((*self.beside, *task_ids)))[:MAX_OVERLAPPED]


def read_finished_run(entry: Entry) -> FinishedRun | None:
    """Reads an entry; one without an end is that of a run whose worker died.

    Returns:
      What is to be published, or None for an entry that its worker died too early to begin.

    Raises:
      SpoolError: When the entry says nothing that can be published.
      OSError: When it cannot be read.
    """
    contents = _Contents(entry)
    start = contents.start
    if start is None or start.run_id != entry.run_id:
        if contents.is_empty and entry.size_bytes(ENTRY_SUFFIX) <= EMPTY_BYTES:
            return None
        raise SpoolError(f"{entry.path(ENTRY_SUFFIX)} does not say which run it is of.")
    end = _cut_short(entry, contents) if contents.end is None else contents.end
    ended = {**dict(end), "started_at": end.started_at or start.started_at, "peak_rss_bytes": contents.peak_rss_bytes}
    run = RunRecord(
        run_id=start.run_id,
        task_id=start.task_id,
        actor_name=start.actor_name,
        queue_name=start.queue_name,
        hostname=start.hostname,
        pid=start.pid,
        parent_run_id=start.parent_run_id,
        capture_id=start.capture_id,
        exception_traceback=contents.traceback,
        **ended,
    )
    artifacts = [_artifact(entry, contents, declared) for declared in start.artifacts]
    return FinishedRun(run=run, artifacts=artifacts, held_bytes=_characters(run) + contents.held_bytes)


def _characters(run: RunRecord) -> int:
    texts = (run.task_id, run.exception_message or "", run.exception_traceback or "", *run.overlapped_task_ids)
    return sum(map(len, texts))


def _cut_short(entry: Entry, contents: _Contents) -> _End:
    """Returns: What is known of the end of a run whose worker died."""
    assert contents.start is not None
    ended_at = _last_sign_of_life(entry)
    state = read_state(entry.owner)
    if state is not None and state.at >= contents.start.started_at.timestamp():
        contents.last_look = state.vitals
        contents.note_peak(state.vitals.rss_bytes)  # Later than the last sample, maybe.
        ended_at = max(ended_at, datetime.fromtimestamp(state.at, UTC))
    called = contents.called
    started_at = contents.start.started_at if called is None else called.started_at
    return _End(
        status=RunStatus.INTERRUPTED,
        started_at=started_at,
        finished_at=max(ended_at, started_at),  # The clock of the file system may be a little behind.
        duration_ms=max((ended_at - started_at).total_seconds() * 1000, 0.0),
        collection_ms=None if called is None else called.collection_ms,
        overlapped_task_ids=contents.beside,
    )


def artifact_kinds(bundle: FinishedRun) -> list[str]:
    """Returns: The kinds of files that the entry of this bundle may have."""
    return [kind for artifact in bundle.artifacts for kind in (artifact.name, checkpoint_name(artifact.name))]


def _artifact(entry: Entry, contents: _Contents, declared: _Declared) -> ArtifactRecord:
    status, reason = _status(contents, declared.name)
    if status in DOWNLOADABLE_STATUSES and contents.cut is not None and declared.name in contents.texts:
        status, reason = ArtifactStatus.PARTIAL, f"{reason or ''} {contents.cut}".lstrip()
    opener = _content(entry, contents, declared.name) if status in DOWNLOADABLE_STATUSES else None
    if status in DOWNLOADABLE_STATUSES and opener is None and entry.size_bytes(checkpoint_name(declared.name)):
        status, reason = ArtifactStatus.PARTIAL, reason or "The worker process died before it was saved."
        opener = partial(entry.open, checkpoint_name(declared.name))
    if status in DOWNLOADABLE_STATUSES and opener is None:
        status = ArtifactStatus.FAILED
        nothing = "The worker process died before there was anything of this."
        reason = reason or "The collector left no file." if contents.end else f"{nothing}{_last_look(contents)}"
    return ArtifactRecord(**dict(declared), status=status, reason=reason, open=opener)


def _status(contents: _Contents, name: str) -> tuple[ArtifactStatus, str | None]:
    outcome = contents.outcomes.get(name)
    if outcome is not None and outcome.status not in DOWNLOADABLE_STATUSES:
        return outcome.status, outcome.reason
    if contents.end is None:
        text = f"The worker process died while the task ran; this is what it left.{_last_look(contents)}"
        return ArtifactStatus.PARTIAL, text
    if contents.verdict is not None:
        rules = ", ".join(contents.verdict.dropped)
        return ArtifactStatus.DROPPED, f"Dropped: none of its keep rules held ({rules})."
    return (ArtifactStatus.STORED, None) if outcome is None else (outcome.status, outcome.reason)


def _last_look(contents: _Contents) -> str:
    return "" if contents.last_look is None else f" {contents.last_look.describe()}"


def _content(entry: Entry, contents: _Contents, name: str) -> Callable[[], BinaryIO] | None:
    if entry.size_bytes(name):
        return partial(entry.open, name)
    if name not in contents.texts:
        return None
    if contents.are_held:
        return partial(io.BytesIO, "".join(contents.texts[name]).encode("utf-8", "replace"))
    return partial(_open_text, entry, name)


def _open_text(entry: Entry, name: str) -> BinaryIO:
    """Opens the text of an artifact, which is read from the entry piece by piece."""
    return io.BufferedReader(PiecesFile(_pieces(entry, name)), PIECE_BYTES)


def _pieces(entry: Entry, name: str) -> Iterator[bytes]:
    gathered, length = list[str](), 0
    for record in entry.records():
        if record.get("to") != name or not isinstance(text := record.get("text"), str):
            continue
        gathered.append(text)
        length += len(text)
        if length >= PIECE_BYTES:
            yield "".join(gathered).encode("utf-8", "replace")
            gathered, length = [], 0
    yield "".join(gathered).encode("utf-8", "replace")


def _last_sign_of_life(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.path(ENTRY_SUFFIX).stat().st_mtime, UTC)
