"""Answers what a task does now, and what was collected of it so far, again and again while somebody watches."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from ..collectors.services import Services
from ..runtime.thread_report import ThreadReports
from ..store.values import clean_text
from .executions import Execution
from .gil_stalls import GilStalls
from .run import Run
from .run_texts import RunTexts
from .stacks import stacks_of

#: The most bytes of the stacks in an answer: 200 threads with 100 frames each would be 12 MB.
_MAX_STACKS_BYTES = 96 * 1024

#: The most bytes of what the collectors without a place of their own have measured so far.
_MAX_MORE_BYTES = 16 * 1024

_PROFILE = "pyinstrument_profile"

_NOT_DIAGNOSED = "The task is not diagnosed: only its stack and the memory of its process are known."


@dataclass
class _Watched:
    """What is kept of a watched task from one look to the next."""

    reports: ThreadReports = field(default_factory=ThreadReports)
    "Its own: it knows for how long each coroutine has not moved by name, and all tasks have the same names."
    texts: RunTexts | None = None


class LiveView:
    """Makes the answers about watched tasks. It does nothing, and keeps nothing, while nobody watches."""

    def __init__(self, services: Services, stalls: GilStalls) -> None:
        self._services = services
        self._stalls = stalls
        self._watched: dict[uuid.UUID, _Watched] = {}

    def forget_others(self, question_ids: Collection[uuid.UUID]) -> None:
        """Forgets the tasks that nobody watches any more."""
        self._watched = {key: watched for key, watched in self._watched.items() if key in question_ids}

    def document(self, question_id: uuid.UUID, execution: Execution) -> dict[str, Any]:
        """Returns: The answer to a question; see `documents.live.LiveDocument`, 256 KiB at most."""
        watched = self._watched.setdefault(question_id, _Watched())
        document = {
            **_times(execution),
            "rss_bytes": self._services.rss.rss_bytes(),
            "stack": _bounded(stacks_of(self._services, watched.reports, execution, self._stalls.note)),
            **_collected(watched, execution.run),
        }
        cleaned: dict[str, Any] = _clean(document)
        return cleaned


def _times(execution: Execution) -> dict[str, Any]:
    run = execution.run
    if run is not None and run.is_executing:
        return {"run_id": str(run.run_id), "elapsed_s": round(run.elapsed_s, 3)}
    return {"run_id": None if run is None else str(run.run_id), "elapsed_s": round(execution.age_s, 3)}


def _collected(watched: _Watched, run: Run | None) -> dict[str, Any]:
    if run is None:
        nothing = dict.fromkeys(("memory", "resources", "log", "profile"))
        return {**nothing, "artifacts": [], "note": _NOT_DIAGNOSED}
    texts = watched.texts = watched.texts or RunTexts(run.entry)
    texts.read()
    told = run.recordings.so_far()
    profile = next((so_far for collector, so_far in told if collector.artifact_name == _PROFILE), None)
    artifacts, left_bytes = [], _MAX_MORE_BYTES
    for collector, so_far in told:
        more = None if collector.artifact_name == _PROFILE else _jsonable(so_far, left_bytes)
        left_bytes -= 0 if more is None else len(json.dumps(more))
        artifacts.append({"name": collector.artifact_name, "collector": collector.name, "so_far": more})
    return {
        "memory": texts.memory,
        "resources": texts.resources,
        "log": texts.log,
        "profile": profile,
        "artifacts": artifacts,
        "note": None,
    }


def _jsonable(so_far: dict[str, Any] | None, max_bytes: int) -> dict[str, Any] | None:
    """Returns: What a collector tells as JSON has it; None where it is too large, or nothing that JSON can hold."""
    try:
        text = json.dumps(so_far)
    except (TypeError, ValueError, RecursionError):
        return None
    found = json.loads(text) if len(text) <= max_bytes else None
    return found if isinstance(found, dict) else None


def _bounded(stacks: dict[str, Any]) -> dict[str, Any]:
    """Returns: The stacks without the last threads, where they are too large."""
    threads, size_bytes = stacks["threads"], 0
    for count, thread in enumerate(threads):
        size_bytes += len(json.dumps(thread))
        if size_bytes > _MAX_STACKS_BYTES:
            note = f"{len(threads) - count} more threads are not shown."
            note = note if stacks["note"] is None else f"{stacks['note']} {note}"
            return {**stacks, "threads": threads[:count], "note": note}
    return stacks


def _clean(value: Any) -> Any:
    """Returns: A value of JSON as every database can hold it."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {clean_text(str(name)): _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list | tuple) else value
