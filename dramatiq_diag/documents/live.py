"""Makes the JSON document of a task that is being executed, for HTTP and the command line."""

from __future__ import annotations

import enum
import uuid
from typing import Any

from sqlalchemy.orm import Session
from typing_extensions import TypedDict

from ..statuses import RunStatus
from ..store.attempts import Attempt, find_attempt, newest_attempt
from ..store.models import Question
from ..store.questions import QuestionState
from ..store.runs import find_run
from ..store.store import Store
from ..store.watches import Watch, watch
from .fields import Href, HrefText, Timestamp, UuidText, described, task_href, timestamp
from .runs import RunDocument, run_document
from .stacks import StacksDocument

#: A worker process that has not answered for so long, in seconds, is said to be silent.
SILENT_AFTER_S = 10.0

_UNREPORTED = (
    "No live worker process reports that it executes this run. It has just begun, which is known after 5 s; or its "
    "worker was lost, or has a version of this package that does not report."
)


class LiveState(enum.StrEnum):
    """How far the view of a task is."""

    PENDING = "pending"
    "Its worker process was asked and has not answered yet; it looks every 2.5 s."
    ACTIVE = "active"
    "Its worker process answers about every second."
    REFUSED = "refused"
    "Its worker process cannot tell; the note says why."
    UNREPORTED = "unreported"
    "No live worker process says that it executes it."
    ENDING = "ending"
    "It has ended, and what was collected of it is being published."
    ENDED = "ended"


@described
class CurveDocument(TypedDict):
    """The memory of the process over the time of the run."""

    curve: list[tuple[float, int]]
    "Seconds since the start of the task, and the RSS in bytes; at most 500 points."


@described
class ResourcesDocument(TypedDict):
    """The resources of the process over the time of the run."""

    columns: list[str]
    "As in resources.csv."
    rows: list[list[float | None]]
    "At most 200; null where the platform does not tell."


@described
class LogDocument(TypedDict):
    """The log of the task so far."""

    text: str
    "Its end, at most 16 KiB."
    is_cut: bool
    "Whether there is more before it."


@described
class LiveFunctionDocument(TypedDict):
    """A function of the time profile."""

    function: str
    file: str
    line: int
    "Where it is defined."
    self_s: float
    "Seconds in the function itself."
    total_s: float
    "With what it calls."
    share: float
    "Of `self_s` in all seconds, from 0 to 1."


@described
class ProfileDocument(TypedDict):
    """The time profile so far."""

    seconds: float
    samples: int
    functions: list[LiveFunctionDocument]
    "The 20 with the most time of their own."
    tree: list[dict[str, Any]]
    "The outermost calls: `function`, `file`, `line`, `self_s`, `total_s`, and the calls below as `children`."


@described
class CollectedDocument(TypedDict):
    """What a collector collects of the run."""

    name: str
    "The name that the artifact will have."
    collector: str
    so_far: dict[str, Any] | None
    "What the collector tells of it, where the document has no other place for that."


@described
class LiveDocument(TypedDict):
    """A task that is being executed: what it does now, and what was collected of it so far."""

    task_id: str
    state: LiveState
    note: str | None
    "What is missing, and why."
    run_id: UuidText | None
    "Null for a task that is not diagnosed."
    actor_name: str | None
    hostname: str | None
    pid: int | None
    taken_at: Timestamp | None
    "When the worker process last answered, by the database's clock; null before that. The next fields are of then."
    age_s: float | None
    "How many seconds ago that was."
    elapsed_s: float | None
    "For how many seconds the task had been executed."
    rss_bytes: int | None
    "The RSS of the process."
    stack: StacksDocument | None
    memory: CurveDocument | None
    "Null where `memory` is not collected; so for the other three."
    resources: ResourcesDocument | None
    log: LogDocument | None
    profile: ProfileDocument | None
    "Null as well where the engine is `profiler`, which tells nothing before its end."
    artifacts: list[CollectedDocument]
    run: RunDocument | None
    "The run, once its row is there."
    href: HrefText
    "The path of the task."


def live_document(store: Store, task_id: str, attempt: int | None = None) -> LiveDocument | None:
    """Asks for what a task does, and answers at once with what its worker process has told last.

    Parameters:
      store: The store.
      task_id: The task.
      attempt: Which attempt; without it the one that is executed, else the newest one.

    Returns:
      The document; None where nothing is known of the task, or of that attempt.

    Raises:
      TooManyQuestionsError: When the process has too many open questions.
      StoreError: When the store cannot be used.
    """
    watched = watch(store, task_id)
    with store.session() as session:
        run = _run_of(session, watched, task_id, attempt)
        document = None if run is None else run_document(run)
    if document is None and (attempt is not None or (watched.last_report is None and watched.question is None)):
        return None
    state, note = _state(watched, document)
    is_shown = watched.question is not None and _is_of(watched, document)
    told: LiveDocument = {**_told(watched, task_id, note, is_shown=is_shown), "state": state, "run": document}  # type: ignore[typeddict-item]
    return told


def _run_of(session: Session, watched: Watch, task_id: str, attempt: int | None) -> Attempt | None:
    if attempt is not None:
        return find_attempt(session, task_id, attempt)
    run_id = _run_id(watched)
    if run_id is not None:
        return find_run(session, uuid.UUID(run_id))
    return newest_attempt(session, task_id) if watched.execution is None and watched.question is None else None


def _run_id(watched: Watch) -> str | None:
    """Returns: The id of the watched run, as the worker process tells it; None if it is not diagnosed."""
    question = watched.question
    if question is not None:
        told: str | None = (question.answer or {}).get("run_id")
        if told is not None or question.run_id is not None:
            return told or str(question.run_id)
    return None if watched.execution is None else watched.execution["run_id"]


def _is_of(watched: Watch, run: RunDocument | None) -> bool:
    """Returns: Whether what is watched is this run, and not another attempt of the task."""
    return run is None or _run_id(watched) == run["run_id"]


def _state(watched: Watch, run: RunDocument | None) -> tuple[LiveState, str | None]:
    question = watched.question
    if run is not None and run["status"] != RunStatus.RUNNING:
        return LiveState.ENDED, None
    is_watched = _is_of(watched, run)
    is_over = question is not None and question.state == QuestionState.DONE
    # A process reports the end of a task, and answers that it has ended, in any order, and before it publishes the run.
    if is_watched and (is_over or (run is None and watched.last_report is None)):
        return (LiveState.ENDED if _run_id(watched) is None else LiveState.ENDING), None
    if watched.execution is None or not is_watched:
        return LiveState.UNREPORTED, _unreported(watched, run)
    if question is None or question.state == QuestionState.PENDING:
        waits_s = 0.0 if question is None else (watched.now - question.created_at).total_seconds()
        return LiveState.PENDING, _silence(watched, waits_s)
    if question.state == QuestionState.REFUSED:
        return LiveState.REFUSED, question.reason
    return LiveState.ACTIVE, _silence(watched, _age_s(watched, question) or 0.0)


def _unreported(watched: Watch, run: RunDocument | None) -> str:
    last = watched.last_report
    if last is None or (run is not None and last.task["run_id"] != run["run_id"]):
        return _UNREPORTED
    return f"No live worker process reports that it executes this run. {last.text}"


def _silence(watched: Watch, waits_s: float) -> str | None:
    if waits_s < SILENT_AFTER_S or watched.last_report is None:
        return None
    return f"The worker process has not answered for {waits_s:.0f} s. {watched.last_report.text}"


def _age_s(watched: Watch, question: Question) -> float | None:
    if question.answered_at is None:
        return None
    return max(round((watched.now - question.answered_at).total_seconds(), 3), 0.0)


def _told(watched: Watch, task_id: str, note: str | None, *, is_shown: bool) -> dict[str, Any]:
    """Returns: The fields that are the worker's."""
    question = watched.question if is_shown else None
    told = (question.answer if question is not None else None) or {}
    answered_at = None if question is None or question.answered_at is None else timestamp(question.answered_at)
    run_id = _run_id(watched) if is_shown else None
    stack = told.get("stack")
    execution = watched.execution
    names = ("elapsed_s", "rss_bytes", "memory", "resources", "log", "profile")
    return {
        "task_id": task_id,
        "note": " ".join(text for text in (note, told.get("note")) if text) or None,
        "run_id": run_id,
        "actor_name": None if execution is None else execution["actor_name"],
        "hostname": None if watched.worker is None else watched.worker.hostname,
        "pid": None if watched.worker is None else watched.worker.pid,
        "taken_at": answered_at,
        "age_s": None if question is None else _age_s(watched, question),
        **{name: told.get(name) for name in names},
        "stack": None if stack is None else {"task_id": task_id, **stack},
        "artifacts": told.get("artifacts", []),
        "href": Href(task_href(task_id)),
    }
