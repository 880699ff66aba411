"""Keeps one open question for each execution of a task that is watched, however many people watch it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session, undefer

from .clock import Clock
from .database import dialect_of, upserting_insert
from .last_reports import LastReport, last_report
from .models import Question, Worker
from .questions import QuestionKind, QuestionState, check_room, find_question, new_question, renew
from .store import Store
from .workers import ExecutedTask, call_attention, find_execution

#: Seconds for which the worker process looks at a task after somebody has asked for it.
EXPIRES_AFTER_S = 10.0

#: Seconds for which the end of a watched task is remembered, for those who still watch it.
_REMEMBERED_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A watched task."""

    execution: ExecutedTask | None = None
    "As its worker process last reported it; None where no live process reports it."
    worker: Worker | None = None
    "That process."
    last_report: LastReport | None
    "Of that process, or of one that was lost with the task; None where there is none."
    question: Question | None
    "With what the process has answered so far; None where nobody has watched it within the last minute."
    now: datetime
    "By the database's clock."


def watch(store: Store, task_id: str, expires_after_s: float = EXPIRES_AFTER_S) -> Watch:
    """Asks the process that executes a task to tell of it again and again, or goes on asking; it does not wait.

    Raises:
      TooManyQuestionsError: When the process has too many open questions.
      StoreError: When the store cannot be used.
    """
    with store.session() as session:
        now = Clock(session).read()
        found = find_execution(session, task_id)
        if found is None:
            return Watch(last_report=last_report(session, task_id), question=_last(session, task_id), now=now)
        worker, task = found
        # Made from what it is about: two people who begin to watch at once share it.
        question_id = uuid.uuid5(worker.worker_id, f"{task['task_key']} {task['started_at']}")
        question = find_question(session, question_id)
        is_over = question is not None and question.expires_at <= now
        left_s = 0.0 if question is None else (question.expires_at - now).total_seconds()
        if question is None or is_over:
            check_room(session, worker.worker_id)
    # In a transaction of its own: one of SQLite that has read before may fail when it begins to write.
    if question is None or (is_over and question.state != QuestionState.DONE):
        question = _begin(store, question_id, task_id, found, expires_after_s)
    elif left_s < expires_after_s / 2 and not is_over:  # So that many who watch do not write at each look.
        with store.session() as session:
            renew(session, question_id, expires_after_s)
    known = LastReport(worker=worker, task=task, now=now)
    return Watch(execution=task, worker=worker, last_report=known, question=question, now=now)


def _begin(
    store: Store, question_id: uuid.UUID, task_id: str, execution: tuple[Worker, ExecutedTask], expires_after_s: float
) -> Question | None:
    parameters = {"started_at": execution[1]["started_at"]}
    with store.session() as session:
        new = new_question(session, question_id, QuestionKind.LIVE, task_id, execution, parameters, expires_after_s)
        row = upserting_insert(dialect_of(session), Question).values(new)
        # Nothing of an earlier watch, which has expired, is shown.
        again = {name: row.excluded[name] for name in ("created_at", "expires_at", "state")}
        again |= {"answer": None, "answered_at": None, "reason": None}
        session.execute(row.on_conflict_do_update(index_elements=[Question.question_id], set_=again))
        call_attention(session, Worker.worker_id == new["worker_id"])
    with store.session() as session:
        return find_question(session, question_id)


def _last(session: Session, task_id: str) -> Question | None:
    """Returns: The last question about a task, for those who watch while it ends."""
    query = select(Question).where(
        Question.expires_at > Clock(session).after(-_REMEMBERED_S),
        Question.kind == QuestionKind.LIVE,
        Question.task_id == task_id,
    )
    query = query.order_by(Question.created_at.desc()).limit(1).options(undefer(Question.answer))
    return session.execute(query).scalar()
