"""Asks worker processes about running tasks, and keeps the answers for a while."""

from __future__ import annotations

import enum
import time
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, exists, insert, or_, select, update
from sqlalchemy.orm import Session, undefer

from ..errors import DiagnosticsError
from .clock import Clock
from .last_reports import SILENT_S, last_report
from .models import Question, TaskRun, Worker
from .store import Store
from .workers import ExecutedTask, WorkerState, call_attention, find_execution, has_workers, list_workers

#: The most questions that one process may have at once; each is a row and some of the process's time.
MAX_OPEN = 100

#: Seconds between looks for an answer.
_POLL_S = 0.1


class NotExecutedError(DiagnosticsError):
    """No live worker process reports that it executes this task. One that has just begun is known after 5 s."""


class NoWorkerError(NotExecutedError):
    """No worker process has reported to this database for a day; is it the database of the workers?"""


class TooManyQuestionsError(DiagnosticsError):
    """The worker process has too many unanswered questions; wait until they are answered or expire."""


class QuestionKind(enum.StrEnum):
    """What a worker process is asked for."""

    STACK = "stack"
    "The stacks of its threads, once."
    LIVE = "live"
    "All that has been collected of a run so far, again and again until it expires."
    ATTACH = "attach"
    "To collect more of a run that goes on."


class QuestionState(enum.StrEnum):
    """How far a question is."""

    PENDING = "pending"
    "The process has not seen it."
    ACTIVE = "active"
    "The process works on it; there may be an answer for now."
    DONE = "done"
    REFUSED = "refused"
    "The reason says why."


#: So many silent processes are named.
_NAMED = 5

#: The states of a question that the process still has to look at.
_OPEN = (QuestionState.PENDING, QuestionState.ACTIVE)


def ask(
    store: Store, kind: QuestionKind, task_id: str, parameters: Mapping[str, Any], *, expires_after_s: float
) -> uuid.UUID:
    """Asks the process that executes a task.

    Parameters:
      store: The store.
      kind: What is asked for.
      task_id: The task.
      parameters: What the kind needs besides.
      expires_after_s: Seconds after which the question is void.

    Returns:
      The id of the question.

    Raises:
      NotExecutedError: When no live process reports the task, or there is none.
      TooManyQuestionsError: When the process has too many open questions.
      StoreError: When the store cannot be used.
    """
    with store.session() as session:
        found = find_execution(session, task_id)
        if found is None:
            raise NotExecutedError(_why_not_executed(session, task_id)) if has_workers(session) else NoWorkerError
        check_room(session, found[0].worker_id)
    question_id = uuid.uuid4()
    # A transaction of its own: one of SQLite that has read before may fail when it begins to write.
    with store.session() as session:
        row = new_question(session, question_id, kind, task_id, found, parameters, expires_after_s)
        session.execute(insert(Question).values(row))
        call_attention(session, Worker.worker_id == row["worker_id"])
    return question_id


def new_question(
    session: Session,
    question_id: uuid.UUID,
    kind: QuestionKind,
    task_id: str,
    execution: tuple[Worker, ExecutedTask],
    parameters: Mapping[str, Any],
    expires_after_s: float,
) -> dict[str, Any]:
    """Returns: The row of a question about an execution; see `ask`."""
    worker, task = execution
    clock = Clock(session)
    return {
        "question_id": question_id,
        "kind": kind,
        "worker_id": worker.worker_id,
        "task_id": task_id,
        "run_id": None if task["run_id"] is None else uuid.UUID(task["run_id"]),
        "parameters": dict(parameters),
        "created_at": clock.now,
        "expires_at": clock.after(expires_after_s),
        "state": QuestionState.PENDING,
    }


def check_room(session: Session, worker_id: uuid.UUID) -> None:
    """Raises: TooManyQuestionsError when a process can be asked nothing more."""
    if len(open_questions(session, worker_id)) >= MAX_OPEN:
        raise TooManyQuestionsError


def _why_not_executed(session: Session, task_id: str) -> str | None:
    """Returns: What is known of the process that was lost with the task, or of silent ones, which may execute it."""
    lost = last_report(session, task_id)
    if lost is not None:
        return f"No live worker process reports that it executes this task. {lost.text}"
    live = [standing for standing in list_workers(session) if standing.state is WorkerState.LIVE]
    silent = [standing for standing in live if standing.heard_s_ago > SILENT_S]
    if not silent:
        return None
    named = ", ".join(
        f"{each.worker.hostname} {each.worker.pid} ({each.heard_s_ago:.0f} s)" for each in silent[:_NAMED]
    )
    return f"{NotExecutedError()} It may be one of those that are silent, as while C code keeps the GIL: {named}."


def find_question(session: Session, question_id: uuid.UUID) -> Question | None:
    """Returns: The question with its answer; None for one that is not there, or not there any more."""
    query = select(Question).where(Question.question_id == question_id).options(undefer(Question.answer))
    return session.execute(query.execution_options(populate_existing=True)).scalar()


def wait_for_answer(store: Store, question_id: uuid.UUID, timeout_s: float) -> Question | None:
    """Waits until the worker process has answered.

    Returns:
      The question with its answer or refusal; None if it did not answer within *timeout_s* seconds.

    Raises:
      StoreError: When the store cannot be used.
    """
    until = time.monotonic() + timeout_s
    while True:
        with store.session() as session:
            question = find_question(session, question_id)
        if question is not None and question.state != QuestionState.PENDING:
            return question
        if question is None or time.monotonic() >= until:
            return None
        time.sleep(_POLL_S)


def open_questions(session: Session, worker_id: uuid.UUID) -> list[Question]:
    """Returns: The questions that a process has to look at, the oldest first."""
    open_ones = select(Question).where(
        Question.worker_id == worker_id, Question.state.in_(_OPEN), Question.expires_at > Clock(session).now
    )
    return list(
        session.execute(open_ones.order_by(Question.created_at, Question.question_id).limit(MAX_OPEN)).scalars()
    )


def answer(
    session: Session,
    question_id: uuid.UUID,
    state: QuestionState,
    document: Mapping[str, Any] | None = None,
    reason: str | None = None,
    *,
    run_id: uuid.UUID | None = None,
) -> None:
    """Writes the answer to a question, in place of an earlier one; nothing if the question is not there any more."""
    session.execute(
        update(Question)
        .where(Question.question_id == question_id)
        .values(
            state=state,
            reason=reason,
            answered_at=Clock(session).now,
            **({} if document is None else {"answer": dict(document)}),
            **({} if run_id is None else {"run_id": run_id}),
        )
    )


def renew(session: Session, question_id: uuid.UUID, expires_after_s: float) -> datetime | None:
    """Moves the end of a question to so many seconds from now. Returns: The end; None if it is not there any more."""
    moved = update(Question).where(Question.question_id == question_id)
    moved = moved.values(expires_at=Clock(session).after(expires_after_s))
    return session.execute(moved.returning(Question.expires_at)).scalar()


def delete_questions(session: Session, kept_s: float = 3600.0) -> int:
    """Deletes questions that expired long ago. Those that attached something to a run stay as long as its row.

    Returns:
      The number of deleted questions.
    """
    is_stored = exists().where(TaskRun.run_id == Question.run_id)
    old = delete(Question).where(
        Question.expires_at < Clock(session).after(-kept_s),
        or_(Question.kind != QuestionKind.ATTACH, ~is_stored),
    )
    return session.connection().execute(old).rowcount
