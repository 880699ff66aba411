"""Makes the JSON document of the stacks of a running task, for HTTP and the command line."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from ..errors import DiagnosticsError
from ..store.last_reports import last_report
from ..store.questions import QuestionKind, QuestionState, ask, wait_for_answer
from ..store.store import Store
from .fields import Timestamp, UuidText, described

#: Seconds within which a worker process answers; it looks every 2.5 s.
ANSWER_WITHIN_S = 5.0


class StackRefusedError(DiagnosticsError):
    """The worker process could not look; the message says why."""


class NoAnswerError(DiagnosticsError):
    """The worker process did not answer in time, and does not report the task any more."""


@described
class FrameDocument(TypedDict):
    """A call that has not returned."""

    function: str
    file: str
    line: int
    "0 if unknown."
    source: str
    "The line of the source; empty where it cannot be read."


@described
class WaitDocument(TypedDict):
    """What a thread waits for."""

    kind: Literal["socket", "file", "lock", "gil", "child", "sleep", "pipe", "future", "loop", "unknown"]
    call: str | None
    "The kernel call."
    detail: str
    "In a sentence."
    peer: str | None
    "The address at the other end of a socket."


@described
class ThreadDocument(TypedDict):
    """A thread, or the coroutine of an async actor."""

    name: str
    is_task: bool
    "Whether it executes the task."
    state: Literal["running", "gil_wait", "blocked", "awaiting"]
    same_for_s: float
    "For how many seconds each look has found it at the same place; 0 at the first look."
    wait: WaitDocument | None
    frames: list[FrameDocument]
    "The innermost call first."


@described
class StacksDocument(TypedDict):
    """The stacks of a worker process that executes a task, at one moment."""

    task_id: str
    run_id: UuidText | None
    "Null for a task that is not diagnosed."
    taken_at: Timestamp
    "By the clock of the worker's host."
    note: str | None
    "What could not be looked at, and why."
    threads: list[ThreadDocument]
    "Those that execute the task first."


def take_stacks(store: Store, task_id: str, timeout_s: float = ANSWER_WITHIN_S) -> StacksDocument:
    """Asks the worker process that executes a task for its stacks, and waits for the answer.

    Raises:
      NotExecutedError: When no live process executes the task.
      TooManyQuestionsError: When the process has too many open questions.
      StackRefusedError: When the process could not look.
      NoAnswerError: When it did not answer in time.
      StoreError: When the store cannot be used.
    """
    # It expires soon after the wait: nobody would read a later answer.
    question_id = ask(store, QuestionKind.STACK, task_id, {}, expires_after_s=timeout_s + 1.0)
    question = wait_for_answer(store, question_id, timeout_s)
    if question is None:
        with store.session() as session:
            known = last_report(session, task_id)
        raise NoAnswerError(None if known is None else f"The worker process did not answer in time. {known.text}")
    if question.state == QuestionState.REFUSED or question.answer is None:
        raise StackRefusedError(question.reason or str(StackRefusedError()))
    document: StacksDocument = {"task_id": task_id, **question.answer}  # type: ignore[typeddict-item]
    return document
