"""Asks for attachments to running tasks, and reads how far each is."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from ..errors import DiagnosticsError
from ..policy.options import DiagnosticsRequest
from ..statuses import RunStatus
from .allowed import reason_against
from .attempts import find_attempt
from .clock import Clock
from .columns import NAME_LENGTH
from .models import Artifact, Question, Worker
from .questions import NotExecutedError, QuestionKind, QuestionState, ask
from .store import Store
from .values import clean_text, task_key
from .workers import WorkerState, executed_tasks, list_workers

#: The bounds of the time for which something is attached, and the usual time, in seconds.
MIN_FOR_S, MAX_FOR_S, USUAL_FOR_S = 1.0, 86400.0, 30.0

#: Seconds within which the worker process has to take the question up. It looks every 2.5 s, and renews it from then.
_TAKEN_UP_WITHIN_S = 60.0

#: The most attachments of a run that are listed, the newest.
_MAX_LISTED = 50

#: The most running tasks of an actor that something is attached to at once.
MAX_TASKS = 50


class AttachmentRequestError(DiagnosticsError, ValueError):
    """A request for an attachment is not valid; the message says why."""


class NothingRunsError(DiagnosticsError):
    """There is no such running task; the message says more."""


class AttachmentState(enum.StrEnum):
    """The state of an attachment."""

    PENDING = "pending"
    "The worker process has not seen it."
    ACTIVE = "active"
    "It collects, or its artifacts are on their way."
    DONE = "done"
    "Its artifacts can be downloaded."
    REFUSED = "refused"
    "The reason says why."
    LOST = "lost"
    "The worker process died, or does not answer. What it had is salvaged later, where its disk still is."


@dataclass(frozen=True, kw_only=True)
class AttachmentStanding:
    """An attachment, its state and its artifacts."""

    question: Question
    state: AttachmentState
    artifacts: Sequence[Artifact] = field(default=())
    "By name."

    @property
    def attachment_id(self) -> uuid.UUID:
        return self.question.question_id

    @property
    def diagnostics(self) -> Mapping[str, Mapping[str, Any]]:
        """Name of each diagnostic -> its options."""
        found: Mapping[str, Mapping[str, Any]] = self.question.parameters["request"]
        return found

    @property
    def for_s(self) -> float:
        """Seconds for which it collects at most."""
        return float(self.question.parameters["for_s"])

    @property
    def reason(self) -> str | None:
        """Why it was refused, or is lost; None otherwise."""
        if self.state is AttachmentState.LOST:
            return "The worker process died or does not answer; what was collected is salvaged when its disk is back."
        return self.question.reason if self.state is AttachmentState.REFUSED else None

    @property
    def is_over(self) -> bool:
        """Whether its state is its last one, unless something is salvaged."""
        return self.state not in (AttachmentState.PENDING, AttachmentState.ACTIVE)


def attach(store: Store, task_id: str, diagnostics: DiagnosticsRequest, for_s: float) -> uuid.UUID:
    """Asks for more to be collected of a running task.

    Parameters:
      store: The store.
      task_id: The task.
      diagnostics: Name of each collector -> its options.
      for_s: Seconds after which it ends, if the run does not end before.

    Returns:
      The id of the attachment.

    Raises:
      AttachmentRequestError: When the request is not valid.
      NothingRunsError: When no live worker process executes the task.
      TooManyQuestionsError: When the process has too many open questions.
      StoreError: When the store cannot be used.
    """
    check_request(store, diagnostics, for_s)
    parameters = {"request": {name: dict(options) for name, options in diagnostics.items()}, "for_s": for_s}
    try:
        return ask(store, QuestionKind.ATTACH, task_id, parameters, expires_after_s=_TAKEN_UP_WITHIN_S)
    except NotExecutedError as error:
        with store.session() as session:
            last = find_attempt(session, task_id, None)
        if last is not None and last.status != RunStatus.RUNNING:
            raise NothingRunsError(f"{error} Its last stored run has ended: {last.status}.") from error
        raise NothingRunsError(str(error)) from error


def attach_to_actor(store: Store, actor_name: str, diagnostics: DiagnosticsRequest, for_s: float) -> list[uuid.UUID]:
    """Asks for more to be collected of the running tasks of an actor, at most 50. Raises: As `attach`.

    A task that ends before it is asked for is left out.
    """
    check_request(store, diagnostics, for_s)
    reported_name = clean_text(actor_name, NAME_LENGTH)
    with store.session() as session:
        tasks = [task for task in executed_tasks(session) if task["actor_name"] == reported_name]
    task_ids = [task["task_id"] for task in tasks if task_key(task["task_id"]) == task["task_key"]]
    if tasks and not task_ids:
        raise NothingRunsError("The ids of the running tasks are too long to be reported whole; name the task itself.")
    made = []
    for task_id in dict.fromkeys(task_ids[:MAX_TASKS]):
        try:
            made.append(attach(store, task_id, diagnostics, for_s))
        except NothingRunsError:
            continue
    if not made:
        raise NothingRunsError(
            f"No live worker process reports that it executes a task of {actor_name!r:.100}. "
            "One that has just begun is known after 5 s."
        )
    return made


def check_request(store: Store, diagnostics: DiagnosticsRequest, for_s: float) -> None:
    """Raises: AttachmentRequestError when a request is not valid."""
    reason = reason_against(diagnostics, store.settings)
    if reason is not None:
        raise AttachmentRequestError(reason)
    if not MIN_FOR_S <= for_s <= MAX_FOR_S:
        raise AttachmentRequestError(f"An attachment lasts 1 s to 1 day ({MAX_FOR_S:.0f} s), not {for_s:g} s.")


def find_attachment(session: Session, attachment_id: uuid.UUID) -> AttachmentStanding | None:
    """Returns: An attachment; None for one that is not there, or not there any more."""
    return next(iter(_standings(session, select(Question).where(Question.question_id == attachment_id))), None)


def find_attachments(session: Session, attachment_ids: Collection[uuid.UUID]) -> list[AttachmentStanding]:
    """Returns: Those of the attachments that are there, the oldest first."""
    query = select(Question).where(Question.question_id.in_(attachment_ids)).order_by(Question.created_at)
    return _standings(session, query)


def attachments_of(session: Session, run_id: uuid.UUID) -> list[AttachmentStanding]:
    """Returns: The attachments of a run, the newest first; at most 50."""
    if session.connection().execute(_any_of_run(), {"run": run_id}).first() is None:  # As for most runs.
        return []
    query = select(Question).where(Question.run_id == run_id).order_by(Question.created_at.desc(), Question.question_id)
    return _standings(session, query.limit(_MAX_LISTED))


@cache
def _any_of_run() -> Select[uuid.UUID]:
    of_run = Question.run_id == bindparam("run"), Question.kind == QuestionKind.ATTACH
    return select(Question.question_id).where(*of_run).limit(1)


def _standings(session: Session, query: Select[Question]) -> list[AttachmentStanding]:
    of_attachments = query.where(Question.kind == QuestionKind.ATTACH).add_columns(Clock(session).now)
    rows = session.execute(of_attachments.execution_options(populate_existing=True)).all()
    if not rows:
        return []
    live = _live_workers(session, {question.worker_id for question, _ in rows})
    artifacts = _artifacts_of(session, [question for question, _ in rows])
    return [
        AttachmentStanding(
            question=question,
            state=_state(question, now, is_live=question.worker_id in live, is_there=question.question_id in artifacts),
            artifacts=artifacts.get(question.question_id, ()),
        )
        for question, now in rows
    ]


def _live_workers(session: Session, worker_ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
    found = list_workers(session, Worker.worker_id.in_(worker_ids))
    return {standing.worker.worker_id for standing in found if standing.state is WorkerState.LIVE}


def _artifacts_of(session: Session, questions: Sequence[Question]) -> dict[uuid.UUID, list[Artifact]]:
    """Returns: Attachment id -> artifacts by name. All of an attachment are published together."""
    run_ids = {question.run_id for question in questions if question.run_id is not None}
    wanted = {question.question_id for question in questions}
    # By the run: only that has an index. A run has few attachments.
    query = select(Artifact).where(Artifact.run_id.in_(run_ids), Artifact.attachment_id.in_(wanted))
    found: dict[uuid.UUID, list[Artifact]] = {}
    for artifact in session.execute(query.order_by(Artifact.name)).scalars():
        if artifact.attachment_id is not None:
            found.setdefault(artifact.attachment_id, []).append(artifact)
    return found


def _state(question: Question, now: datetime, *, is_live: bool, is_there: bool) -> AttachmentState:
    if is_there or question.state == QuestionState.DONE:
        return AttachmentState.DONE
    if question.state == QuestionState.REFUSED:
        return AttachmentState.REFUSED
    if not is_live or question.expires_at <= now:
        return AttachmentState.LOST
    return AttachmentState(question.state)
