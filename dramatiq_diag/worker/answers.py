"""Answers the questions that are asked of this process about its running tasks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..collectors.services import Services
from ..errors import GUARDED
from ..runtime.thread_report import ThreadReports
from ..spool.schema import text_of
from ..store.models import Question
from ..store.questions import QuestionKind, QuestionState, answer, open_questions, renew
from ..store.store import Store
from .attachments import Attachments, AttachRefusedError
from .executions import Execution, Executions
from .gil_stalls import GilStalls
from .live_view import LiveView
from .stacks import stacks_of


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a question."""

    state: QuestionState
    document: Mapping[str, Any] | None = None
    reason: str | None = None
    run_id: uuid.UUID | None = None
    "The run, where that was not known when it was asked about."


#: Answers a question about a task that is executed here.
Answering = Callable[[Question, Execution], Answer]

#: The question of an attachment that goes on is renewed at each look, for so many seconds.
_RENEWED_S = 60.0

_ENDED = Answer(state=QuestionState.REFUSED, reason="The task has ended, or another process executes it now.")

#: The end of a watch; what the question was answered last stays there.
_OVER = Answer(state=QuestionState.DONE)


class Answers:
    """Answers questions, each by the function of its kind. All runs on the contact's thread."""

    def __init__(self, services: Services, executions: Executions, stalls: GilStalls, attachments: Attachments) -> None:
        self._services = services
        self._executions = executions
        self._stalls = stalls
        self._attachments = attachments
        self._reports = ThreadReports()
        self._live_view = LiveView(services, stalls)
        self._answering: dict[str, Answering] = {
            QuestionKind.STACK: self._stack,
            QuestionKind.LIVE: self._live,
            QuestionKind.ATTACH: self._attach,
        }
        self._open: dict[uuid.UUID, str] = {}
        "The questions that were not answered for good, with their kinds."

    @property
    def is_open(self) -> bool:
        """Whether a question was not answered for good: it is looked at again without being asked anew."""
        return bool(self._open)

    @property
    def is_watched(self) -> bool:
        """Whether somebody watches a task of this process."""
        return QuestionKind.LIVE in self._open.values()

    def give(self, store: Store, worker_id: uuid.UUID) -> None:
        """Answers all that is asked of this process.

        Raises:
          StoreError: When the store cannot be used; the questions stay open.
        """
        with store.session() as session:
            questions = open_questions(session, worker_id)
        given = [(question, self._answer(question)) for question in questions]
        for question, made in given:
            with store.session() as session:
                answer(session, question.question_id, made.state, made.document, made.reason, run_id=made.run_id)
                if made.state is QuestionState.ACTIVE and question.kind == QuestionKind.ATTACH:
                    renew(session, question.question_id, _RENEWED_S)
        self._open = {
            question.question_id: question.kind for question, made in given if made.state is QuestionState.ACTIVE
        }
        self._live_view.forget_others(self._open)

    def _answer(self, question: Question) -> Answer:
        answering = self._answering.get(question.kind)
        if answering is None:  # Of a newer version.
            return Answer(state=QuestionState.REFUSED, reason="The worker process is of a version that cannot do this.")
        if question.kind == QuestionKind.ATTACH and (known := self._attached(question)) is not None:
            return known
        execution = self._executions.of(question.task_id)
        if execution is None:
            return _OVER if question.kind == QuestionKind.LIVE else _ENDED
        try:
            return answering(question, execution)
        except GUARDED as error:
            self._services.warn_once((question.kind, type(error)), error, "A question could not be answered.")
            reason = f"The worker process could not answer: {type(error).__name__}: {text_of(error)}"
            return Answer(state=QuestionState.REFUSED, reason=reason)

    def _live(self, question: Question, execution: Execution) -> Answer:
        if question.parameters.get("started_at") != execution.reported["started_at"]:
            return _OVER
        return Answer(state=QuestionState.ACTIVE, document=self._live_view.document(question.question_id, execution))

    def _stack(self, question: Question, execution: Execution) -> Answer:
        document = stacks_of(self._services, self._reports, execution, self._stalls.note)
        return Answer(state=QuestionState.DONE, document=document)

    def _attach(self, question: Question, execution: Execution) -> Answer:
        try:
            attachment = self._attachments.begin(question.question_id, execution, **question.parameters)
        except AttachRefusedError as error:
            return Answer(state=QuestionState.REFUSED, reason=str(error))
        return Answer(state=QuestionState.ACTIVE, run_id=attachment.run.run_id)

    def _attached(self, question: Question) -> Answer | None:
        """Returns: How far an attachment is that was begun; None for one that was not."""
        if self._attachments.is_published(question.question_id):
            return Answer(state=QuestionState.DONE)
        attachment = self._attachments.find(question.question_id)
        return None if attachment is None else Answer(state=QuestionState.ACTIVE, run_id=attachment.run.run_id)
