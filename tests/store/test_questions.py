"""Questions to worker processes: to the right one, seen at once, answered once, and gone after a while."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, func, select, update

from dramatiq_diag.store.attachments import attach_to_actor
from dramatiq_diag.store.columns import NAME_LENGTH
from dramatiq_diag.store.models import Question, TaskRun, Worker
from dramatiq_diag.store.questions import (
    MAX_OPEN,
    NotExecutedError,
    QuestionKind,
    QuestionState,
    TooManyQuestionsError,
    answer,
    ask,
    delete_questions,
    find_question,
    open_questions,
    renew,
)
from dramatiq_diag.store.values import clean_text
from dramatiq_diag.store.workers import (
    WorkerState,
    attention_of,
    find_execution,
    list_workers,
    note_goodbye,
)
from support.records import bundle, executed_task, run_record
from support.workers import report

#: Whether a process lives, and how long ago it was heard of, is as a test says, however slow it is.
pytestmark = pytest.mark.usefixtures("stopped_clock")


def ask_stack(store, task_id="task"):
    return ask(store, QuestionKind.STACK, task_id, {}, expires_after_s=600.0)


def attention(store, worker_id):
    with store.session() as session:
        return attention_of(session, worker_id)


def asked(store, worker_id):
    with store.session() as session:
        return [question.question_id for question in open_questions(session, worker_id)]


def found(store, question_id):
    with store.session() as session:
        return find_question(session, question_id)


def test_the_process_that_executes_the_task_is_asked_and_no_other(store):
    run_id = uuid.uuid4()
    one, other = report(store, executed_task(run_id=str(run_id))), report(store, executed_task("another"))
    before = attention(store, one), attention(store, other)

    question_id = ask_stack(store)

    assert asked(store, one) == [question_id]
    assert asked(store, other) == []
    assert (attention(store, one), attention(store, other)) == (before[0] + 1, before[1])
    question = found(store, question_id)
    assert (question.run_id, question.task_id, question.state) == (run_id, "task", QuestionState.PENDING)


def test_of_two_executions_of_a_task_the_later_one_is_asked(store):
    later = report(store, executed_task(started_at="2026-05-04T03:02:02.000000Z"))
    report(store, executed_task())

    with store.session() as session:
        worker, task = find_execution(session, "task")

    assert (worker.worker_id, task["started_at"]) == (later, "2026-05-04T03:02:02.000000Z")


@pytest.mark.parametrize("state", ["lost", "gone", "ended", "older version"])
def test_a_task_that_no_live_process_executes_cannot_be_asked_about(store, state):
    worker_id = report(store, *[executed_task()][state == "ended" :], seen_s_ago=31.0 if state == "lost" else 0.0)
    with store.session() as session:
        if state == "gone":
            note_goodbye(session, worker_id)
        elif state == "older version":
            session.execute(update(Worker).values(tasks=None))

    with pytest.raises(NotExecutedError):
        ask_stack(store)


def test_a_process_that_is_silent_is_named_as_it_may_execute_the_task(store):
    report(store, hostname="talks")
    report(store, hostname="silent", pid=12, seen_s_ago=14.0)
    with pytest.raises(NotExecutedError, match=r"silent, as while C code keeps the GIL: silent 12 \(14 s\)\.$"):
        ask_stack(store)


def test_of_a_process_that_was_lost_with_the_task_it_is_said_when_it_was_last_heard_of(store):
    report(store, executed_task(), hostname="one", pid=12, seen_s_ago=42.0)
    with pytest.raises(NotExecutedError) as raised:
        ask_stack(store)
    text = str(raised.value)
    assert re.search(r"process 12 on one was last heard of 42 s ago; then it had executed the task for 2 s\.", text)
    assert "C code keeps its GIL" in text
    assert "`ps -o state,time -p 12`" in text


def test_strange_and_long_task_ids_are_found(store):
    for task_id in ("a\0b", "\ud800", "x" * 100_000, "ü'\""):
        worker_id = report(store, executed_task(task_id))
        question_id = ask_stack(store, task_id)
        assert asked(store, worker_id) == [question_id]


def test_an_answer_replaces_the_one_before(store):
    worker_id = report(store, executed_task())
    question_id = ask_stack(store)

    for state, number in ((QuestionState.ACTIVE, 1), (QuestionState.DONE, 2)):
        assert asked(store, worker_id) == [question_id]
        with store.session() as session:
            answer(session, question_id, state, {"number": number})
        assert (found(store, question_id).state, found(store, question_id).answer) == (state, {"number": number})

    assert asked(store, worker_id) == []


def test_a_refusal_keeps_its_reason(store):
    report(store, executed_task())
    question_id = ask_stack(store)
    with store.session() as session:
        answer(session, question_id, QuestionState.REFUSED, reason="No.")
    assert (found(store, question_id).reason, found(store, question_id).answer) == ("No.", None)


def test_a_question_expires_unless_it_is_renewed(store):
    worker_id = report(store, executed_task())
    kept, void = ask_stack(store), ask_stack(store)
    with store.session() as session:
        renew(session, void, -1.0)
        assert renew(session, kept, 60.0) > datetime.now(UTC) + timedelta(seconds=50)
        assert renew(session, uuid.uuid4(), 60.0) is None
    assert asked(store, worker_id) == [kept]

    with store.session() as session:
        assert delete_questions(session, kept_s=0.5) == 1
        assert session.execute(select(func.count()).select_from(Question)).scalar_one() == 1


def test_what_was_attached_is_known_as_long_as_its_run(store):
    run = run_record()
    report(store, executed_task(run_id=str(run.run_id)))
    store.publish([bundle(run)])
    for kind in (QuestionKind.ATTACH, QuestionKind.STACK):
        question_id = ask(store, kind, "task", {}, expires_after_s=-60.0)
        with store.session() as session:
            renew(session, question_id, -60.0)

    with store.session() as session:
        assert delete_questions(session, kept_s=0.5) == 1
        session.execute(delete(TaskRun))
        assert delete_questions(session, kept_s=0.5) == 1


def test_a_process_has_a_bounded_number_of_questions(store):
    worker_id = report(store, executed_task())
    for _ in range(MAX_OPEN):
        ask_stack(store)
    with pytest.raises(TooManyQuestionsError):
        ask_stack(store)
    assert len(asked(store, worker_id)) == MAX_OPEN


def test_a_process_whose_row_was_lost_keeps_its_start(store):
    worker_id = report(store, age_s=3600.0)
    with store.session() as session:
        standing = next(found for found in list_workers(session) if found.worker.worker_id == worker_id)
    assert standing.worker.seen_at - standing.worker.started_at == pytest.approx(
        timedelta(hours=1), abs=timedelta(seconds=1)
    )


def test_workers_are_live_lost_or_gone(store):
    live, lost, gone = report(store), report(store, seen_s_ago=31.0), report(store)
    report(store, seen_s_ago=86_460.0)
    with store.session() as session:
        note_goodbye(session, gone)
        listed = {standing.worker.worker_id: standing.state for standing in list_workers(session)}
    assert listed == {live: WorkerState.LIVE, lost: WorkerState.LOST, gone: WorkerState.GONE}


def test_an_actor_whose_name_is_longer_than_its_column_is_found_by_it(settings, store_of, database_url):
    name = "work" * 100
    store = store_of(settings(database_url=database_url, task_diagnostics_on_request=["memory"]))
    report(store, executed_task("shown", actor_name=clean_text(name, NAME_LENGTH)))

    (attachment_id,) = attach_to_actor(store, name, {"memory": {}}, 30.0)
    assert found(store, attachment_id).task_id == "shown"
