"""Makes a finished run of a spool entry. It trusts nothing that the entry says."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from ..collectors.base import checkpoint_name
from ..errors import SpoolError
from ..runtime.bounded_reading import PIECE_BYTES, PiecesFile
from ..runtime.counters import run_queue_s
from ..runtime.cpu_limit import throttled_s
from ..runtime.memory_state import MemoryState
from ..statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from ..store.records import ArtifactRecord, FinishedRun, RunRecord
from .death import Death, death_of
from .entry import EMPTY_BYTES, ENTRY_SUFFIX, Entry
from .owner_state import read_left
from .schema import MAX_ARTIFACTS, MAX_OVERLAPPED, Call, Declared, End, Record, RunIdentity, Start

#: The texts of a run that are held until it is published, in characters; longer ones are read again then.
_MAX_HELD_LENGTH = 64 * 1024

#: Seconds by which the clock of the spool's file system may be behind that of its host.
_BEHIND_S = 1.0

_RECORD = TypeAdapter(Record)


class _Contents:
    """The valid records of an entry, put together. Its memory does not grow with the entry."""

    def __init__(self, entry: Entry) -> None:
        self.start: Start | None = None
        self.called: Call | None = None
        self.end: End | None = None
        self.declared: dict[str, Declared] = {}
        "Name of an artifact that was declared after the start -> what was said of it."
        self.outcomes: dict[str, tuple[ArtifactStatus, str]] = {}
        "Name of an artifact -> its status, and the reason."
        self.texts: dict[str, list[str]] = {}
        "Name of an artifact -> its pieces; no pieces once `are_held` is False."
        self.are_held = True
        self.held_bytes = 0
        self.peak_rss_bytes: int | None = None
        self.last_state: MemoryState | None = None
        self.overlapped: list[str] = []
        self.traceback: str | None = None
        self.unmet_rules: list[str] | None = None
        self.is_attached = False
        self.stopped: str | None = None
        "Why its worker, which lived on, saw no end of the run."
        self.cut: str | None = None
        "The reason why texts are not whole."
        self.is_empty = True
        for record in entry.records():
            self.is_empty = False
            try:
                self._add(_RECORD.validate_python(record))
            except (ValidationError, KeyError):  # A line that is not ours counts as one that a full disk tore.
                continue

    def _add(self, record: Record) -> None:
        """Raises: KeyError for a record of which a part is missing."""
        if "to" in record:
            self._add_text(record["to"], record["text"])
            self.note_peak(record.get("peak_rss_bytes"))
        elif "artifact" in record:
            if len(self.outcomes) < MAX_ARTIFACTS or record["artifact"] in self.outcomes:
                self.outcomes[record["artifact"]] = record["status"], record["reason"]
        elif "declared" in record:
            if len(self.declared) < MAX_ARTIFACTS:
                self.declared[record["declared"]["name"]] = record["declared"]
        elif "vitals" in record:
            self._add_overlapped(record["overlapped_task_ids"])
            self.last_state = record["vitals"]
            self.note_peak(self.last_state.rss_bytes)
        elif "beside" in record:
            self._add_overlapped(record["beside"])
        elif "end" in record:
            self.end = record["end"]
            self.note_peak(self.end.get("peak_rss_bytes"))
        self.note_peak(record.get("peak"))
        self.start = record.get("run", self.start)
        self.called = record.get("called", self.called)
        self.traceback = record.get("traceback", self.traceback)
        self.unmet_rules = record.get("dropped", self.unmet_rules)
        self.cut = record.get("cut", self.cut)
        self.stopped = record.get("stopped", self.stopped)
        self.is_attached = record.get("attached", self.is_attached)

    def note_peak(self, rss_bytes: int | None) -> None:
        if rss_bytes is not None:
            self.peak_rss_bytes = max(self.peak_rss_bytes or 0, rss_bytes)

    def _add_text(self, name: str, text: str) -> None:
        if name not in self.texts and len(self.texts) >= MAX_ARTIFACTS:
            return
        pieces = self.texts.setdefault(name, [])
        if not self.are_held:
            return
        self.held_bytes += len(text)
        if self.held_bytes <= _MAX_HELD_LENGTH:
            pieces.append(text)
            return
        self.are_held, self.held_bytes = False, 0
        self.texts = {name: [] for name in self.texts}

    def _add_overlapped(self, task_ids: list[str]) -> None:
        self.overlapped = list(dict.fromkeys((*self.overlapped, *task_ids)))[:MAX_OVERLAPPED]


def read_finished_run(entry: Entry, *, is_left: bool = False) -> FinishedRun | None:
    """Reads an entry; one without an end is that of a run whose worker died.

    Parameters:
      entry: The entry.
      is_left: Whether a dead worker left it, which may have died before the files of an ended run were saved.

    Returns:
      What is to be published, or None for an entry whose worker died before it had written anything.

    Raises:
      SpoolError: When the entry says nothing that can be published.
      OSError: When it cannot be read.
    """
    contents = _Contents(entry)
    start = contents.start
    attachment_id = None if start is None else start.get("attachment_id")
    if start is None or (attachment_id or start["run_id"]) != entry.run_id:
        if contents.is_empty and entry.size_bytes(ENTRY_SUFFIX) <= EMPTY_BYTES:
            return None
        raise SpoolError(f"{entry.path(ENTRY_SUFFIX)} does not say which run it is of.")
    end = _cut_short(entry, contents, start) if contents.end is None else _ended(contents.end)
    if attachment_id is not None:
        artifacts = [_artifact(entry, contents, declared, is_left=is_left) for declared in start["artifacts"]]
        return _attachment(start, attachment_id, artifacts, contents)
    known: dict[str, Any] = {
        **{name: start.get(name) for name in RunIdentity.__annotations__},
        **end,
        "started_at": end.get("started_at") or start["started_at"],
        "peak_rss_bytes": contents.peak_rss_bytes,
    }
    run = RunRecord(**known, exception_traceback=contents.traceback, is_attached=contents.is_attached)
    declared = {**contents.declared, **{artifact["name"]: artifact for artifact in start["artifacts"]}}
    artifacts = [_artifact(entry, contents, artifact, is_left=is_left) for artifact in declared.values()]
    held_bytes = _characters(run) + contents.held_bytes
    return FinishedRun(run=run, artifacts=artifacts, held_bytes=held_bytes, is_cut_short=contents.end is None)


def _attachment(
    start: Start, attachment_id: UUID, artifacts: Sequence[ArtifactRecord], contents: _Contents
) -> FinishedRun:
    """Returns: The artifacts of an attachment. What is known of their run is that it has begun."""
    known: dict[str, Any] = {name: start.get(name) for name in RunIdentity.__annotations__}
    # The run itself claims the slot of its capture.
    known |= {"capture_id": None, "without_capture": None, "started_at": start["started_at"]}
    run = RunRecord(**known, status=RunStatus.RUNNING)
    return FinishedRun(
        run=run,
        artifacts=artifacts,
        held_bytes=contents.held_bytes,
        attachment_id=attachment_id,
        is_cut_short=contents.end is None,
    )


def _characters(run: RunRecord) -> int:
    texts = (run.task_id, run.exception_message or "", run.exception_traceback or "", *run.overlapped_task_ids)
    return sum(map(len, texts))


def _ended(end: End) -> Mapping[str, Any]:
    """Returns: The fields of the record, with the counters that are read from the kernel's texts."""
    fields: dict[str, Any] = {**end}
    if "schedstat" in end:
        fields["run_queue_ms"] = _between(run_queue_s, *fields.pop("schedstat"))
    if "cpu_stat" in end:
        fields["throttled_ms"] = _between(throttled_s, *fields.pop("cpu_stat"))
    for name in ("cpu_ms", "gc_ms"):
        if fields.get(name) is not None:
            fields[name] = round(fields[name], 3)
    return fields


def _between(seconds_of: Callable[[str], float | None], before: str, after: str) -> float | None:
    """Returns: What was counted between two readings, in milliseconds; None where one of them does not tell."""
    before_s, after_s = seconds_of(before), seconds_of(after)
    return None if before_s is None or after_s is None else round(max(after_s - before_s, 0.0) * 1000, 3)


def _cut_short(entry: Entry, contents: _Contents, start: Start) -> Mapping[str, Any]:
    """Returns: The end of a run whose worker died, as far as it is known: fields of its record."""
    call = contents.called
    started_at = start["started_at"] if call is None else call["started_at"]
    ended_at = datetime.fromtimestamp(entry.path(ENTRY_SUFFIX).stat().st_mtime, UTC)
    left = read_left(entry.owner)
    for at, state in left.states():
        if at >= start["started_at"].timestamp():
            contents.last_state = state
            contents.note_peak(state.rss_bytes)  # It may be later than the last sample.
            ended_at = max(ended_at, datetime.fromtimestamp(at, UTC))
    death = death_of(start["run_id"], start["started_at"].timestamp(), left)
    if contents.stopped is not None:
        death = Death(reason=contents.stopped, touched_bytes=death.touched_bytes)
    return {
        "status": RunStatus.INTERRUPTED,
        "started_at": started_at,
        "finished_at": max(ended_at, started_at),  # The clock of the file system may be a little behind.
        "duration_ms": _length_ms(started_at, ended_at),
        "collection_ms": None if call is None else call["collection_ms"],
        "overlapped_task_ids": contents.overlapped,
        "touched_bytes": death.touched_bytes,
        "memory_role": death.role,
        "death_reason": death.reason,
    }


def _length_ms(started_at: datetime, ended_at: datetime) -> float | None:
    """Returns: The time between two readings of a clock; None where it was set back in between."""
    length_s = (ended_at - started_at).total_seconds()
    return None if length_s < -_BEHIND_S else max(length_s * 1000, 0.0)


def file_suffixes(run: FinishedRun) -> list[str]:
    """Returns: The suffixes of the files that the entry of this run may have, in the order of their removal.

    The checkpoint goes first: without the file, a salvager would publish it in place of what is stored.
    """
    return [suffix for artifact in run.artifacts for suffix in (checkpoint_name(artifact.name), artifact.name)]


def _artifact(entry: Entry, contents: _Contents, declared: Declared, *, is_left: bool) -> ArtifactRecord:
    name, opener = declared["name"], None
    status, reason = _status(contents, name)
    if status in DOWNLOADABLE_STATUSES:
        opener = _content(entry, contents, name)
        if contents.cut is not None and name in contents.texts:
            status, reason = ArtifactStatus.PARTIAL, f"{reason or ''} {contents.cut}".lstrip()
        if opener is None and entry.size_bytes(checkpoint_name(name)):
            status, reason = ArtifactStatus.PARTIAL, reason or "The worker process died before it was saved."
            opener = partial(entry.open, checkpoint_name(name))
        if opener is None:
            status = ArtifactStatus.FAILED
            reason = _absence(contents, reason, is_left=is_left)
    return ArtifactRecord(
        name=name,
        filename=declared["filename"],
        media_type=declared["media_type"],
        stored_as=declared.get("stored_as"),
        status=status,
        reason=reason,
        open=opener,
    )


def _absence(contents: _Contents, reason: str | None, *, is_left: bool) -> str:
    if contents.end is None:
        died = f"The worker process died before there was anything of this.{_last_state(contents)}"
        return contents.stopped or died
    if reason is not None:
        return reason
    died = "The worker process died soon after the run had ended, most likely before this was saved."
    return died if is_left else "The collector left no file."


def _status(contents: _Contents, name: str) -> tuple[ArtifactStatus, str | None]:
    status, reason = contents.outcomes.get(name, (ArtifactStatus.STORED, None))
    if status not in DOWNLOADABLE_STATUSES:
        return status, reason
    if contents.end is None:
        died = f"The worker process died while the task ran; this is what it left.{_last_state(contents)}"
        return ArtifactStatus.PARTIAL, contents.stopped or died
    if contents.unmet_rules is not None:
        return ArtifactStatus.DROPPED, f"Dropped: none of its keep rules held ({', '.join(contents.unmet_rules)})."
    return status, reason


def _last_state(contents: _Contents) -> str:
    return "" if contents.last_state is None else f" {contents.last_state.describe()}"


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
