"""From a spool entry to what is published; it trusts nothing that the entry says."""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, BinaryIO

from pydantic import AwareDatetime, BaseModel, Field, FiniteFloat, ValidationError

from .collectors.base import ARTIFACT_NAME_PATTERN, FILENAME_PATTERN, MEDIA_TYPE_PATTERN
from .entry import EMPTY_BYTES, ENTRY_SUFFIX, Entry, Record, checkpoint_kind
from .errors import SpoolError
from .models import LIVE_STATUSES, ArtifactStatus, RunStatus
from .store import ArtifactRecord, Bundle, RunRecord
from .tracebacks import MAX_LENGTH
from .vitals import Vitals

_Name = Annotated[str, Field(pattern=f"^{ARTIFACT_NAME_PATTERN}$")]
_Filename = Annotated[str, Field(pattern=f"^{FILENAME_PATTERN}$")]
_Count = Annotated[int, Field(ge=0, le=2**62)]


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
    artifacts: Annotated[list[_Declared], Field(max_length=100)]


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
    overlapped_task_ids: list[str] = []


class _Outcome(BaseModel):
    artifact: _Name
    status: ArtifactStatus
    reason: str


class _Text(BaseModel):
    to: _Name
    text: str
    peak_rss_bytes: _Count | None = None


class _Look(BaseModel):
    vitals: Vitals
    overlapped_task_ids: list[str]
    peak_rss_bytes: _Count | None = None


class _Verdict(BaseModel):
    dropped: Annotated[list[Annotated[str, Field(max_length=200)]], Field(min_length=1, max_length=100)]


class _Traceback(BaseModel):
    traceback: Annotated[str, Field(max_length=MAX_LENGTH)]


class _Contents:
    """What the records of an entry say, put together."""

    def __init__(self, records: list[Record]) -> None:
        self.start: _Start | None = None
        self.called: _Called | None = None
        self.end: _End | None = None
        self.outcomes: dict[str, _Outcome] = {}
        self.texts: dict[str, list[str]] = {}
        self.peak_rss_bytes: int | None = None
        self.last_look: _Look | None = None
        self.traceback: str | None = None
        self.verdict: _Verdict | None = None
        for record in records:
            self._add(record)

    def _add(self, record: Record) -> None:
        try:
            if "to" in record:
                piece = _Text.model_validate(record)
                self.texts.setdefault(piece.to, []).append(piece.text)
                self._note_peak(piece.peak_rss_bytes)
            elif "artifact" in record:
                outcome = _Outcome.model_validate(record)
                self.outcomes[outcome.artifact] = outcome
            elif "run" in record:
                self.start = _Start.model_validate(record["run"])
            elif "called" in record:
                self.called = _Called.model_validate(record["called"])
            elif "vitals" in record:
                look = self.last_look = _Look.model_validate(record)
                self._note_peak(look.vitals.rss_bytes if look.peak_rss_bytes is None else look.peak_rss_bytes)
            elif "traceback" in record:
                self.traceback = _Traceback.model_validate(record).traceback
            elif "dropped" in record:
                self.verdict = _Verdict.model_validate(record)
            elif "end" in record:
                self.end = _End.model_validate(record["end"])
                self._note_peak(self.end.peak_rss_bytes)
        except ValidationError:  # A line that is not ours counts as one that a full disk tore.
            return

    def _note_peak(self, rss_bytes: int | None) -> None:
        if rss_bytes is not None:
            self.peak_rss_bytes = max(self.peak_rss_bytes or 0, rss_bytes)


def read_bundle(entry: Entry) -> Bundle | None:
    """Reads an entry; one without an end is that of a run whose worker died.

    Returns:
      What is to be published, or None for an entry that its worker died too early to begin.

    Raises:
      SpoolError: When the entry says nothing that can be published.
      OSError: When it cannot be read.
    """
    records = entry.records()
    contents = _Contents(records)
    if contents.start is None or contents.start.run_id != entry.run_id:
        if not records and entry.size_bytes(ENTRY_SUFFIX) <= EMPTY_BYTES:
            return None
        raise SpoolError(f"{entry.path(ENTRY_SUFFIX)} does not say which run it is of.")
    start = contents.start
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
    return Bundle(run=run, artifacts=[_artifact(entry, contents, declared) for declared in start.artifacts])


def _cut_short(entry: Entry, contents: _Contents) -> _End:
    """Returns: What is known of the end of a run whose worker died."""
    assert contents.start is not None
    ended_at = _last_sign_of_life(entry)
    called = contents.called
    started_at = contents.start.started_at if called is None else called.started_at
    return _End(
        status=RunStatus.INTERRUPTED,
        started_at=started_at,
        finished_at=max(ended_at, started_at),  # The clock of the file system may be a little behind.
        duration_ms=max((ended_at - started_at).total_seconds() * 1000, 0.0),
        collection_ms=None if called is None else called.collection_ms,
        overlapped_task_ids=[] if contents.last_look is None else contents.last_look.overlapped_task_ids,
    )


def artifact_kinds(bundle: Bundle) -> list[str]:
    """Returns: The kinds of files that the entry of this bundle may have."""
    return [kind for artifact in bundle.artifacts for kind in (artifact.name, checkpoint_kind(artifact.name))]


def _artifact(entry: Entry, contents: _Contents, declared: _Declared) -> ArtifactRecord:
    status, reason = _status(contents, declared.name)
    opener = _content(entry, contents, declared.name) if status in LIVE_STATUSES else None
    if status in LIVE_STATUSES and opener is None and entry.size_bytes(checkpoint_kind(declared.name)):
        status, reason = ArtifactStatus.PARTIAL, reason or "The worker process died before it was saved."
        opener = partial(entry.open, checkpoint_kind(declared.name))
    if status in LIVE_STATUSES and opener is None:
        status = ArtifactStatus.FAILED
        nothing = "The worker process died before there was anything of this."
        reason = reason or "The collector left no file." if contents.end else f"{nothing}{_last_look(contents)}"
    return ArtifactRecord(**dict(declared), status=status, reason=reason, open=opener)


def _status(contents: _Contents, name: str) -> tuple[ArtifactStatus, str | None]:
    outcome = contents.outcomes.get(name)
    if outcome is not None and outcome.status not in LIVE_STATUSES:
        return outcome.status, outcome.reason
    if contents.end is None:
        text = f"The worker process died while the task ran; this is what it left.{_last_look(contents)}"
        return ArtifactStatus.PARTIAL, text
    if contents.verdict is not None:
        rules = ", ".join(contents.verdict.dropped)
        return ArtifactStatus.DROPPED, f"Dropped: none of its keep rules held ({rules})."
    return (ArtifactStatus.STORED, None) if outcome is None else (outcome.status, outcome.reason)


def _last_look(contents: _Contents) -> str:
    return "" if contents.last_look is None else f" {contents.last_look.vitals.describe()}"


def _content(entry: Entry, contents: _Contents, name: str) -> Callable[[], BinaryIO] | None:
    if entry.size_bytes(name):
        return partial(entry.open, name)
    if name in contents.texts:
        return partial(io.BytesIO, "".join(contents.texts[name]).encode("utf-8", "replace"))
    return None


def _last_sign_of_life(entry: Entry) -> datetime:
    return datetime.fromtimestamp(entry.path(ENTRY_SUFFIX).stat().st_mtime, UTC)
