"""The stack of a running task over HTTP: of any worker, diagnosed or not, and a clear answer where there is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag.store.questions import MAX_OPEN, QuestionKind, QuestionState, answer, ask, open_questions
from dramatiq_diag.store.workers import note_worker
from dramatiq_diag.worker.tuning import Tuning
from support import eventually
from support.hanging import hanging, is_line_that_hangs
from support.records import executed_task, worker_report
from support.web import Site, assert_problem
from support.workers import is_executed, move_report, report

SOON = Tuning(attention_s=0.05, report_s=0.05)
HTML = {"Accept": "text/html"}


def look(site: Site, task_id: str) -> dict[str, Any]:
    """Asks for the stacks of a task as soon as its worker has said that it executes it."""
    eventually(lambda: is_executed(site.store, task_id), "the worker has said that it executes the task")
    answered = site.client.simulate_post(f"/tasks/{task_id}/stacks/")
    assert answered.status_code == 200, answered.text
    return answered.json


@pytest.mark.parametrize("diagnosed", [True, False])
def test_the_line_that_hangs_is_shown_and_what_it_waits_for(
    make_site: Callable[..., Site], bench: Any, diagnosed: bool
) -> None:
    site = make_site(task_diagnostics=["memory"])
    with (
        bench(site.settings, tuning=SOON) as tasks,
        hanging(tasks, diagnostics=None if diagnosed else []) as (task_id, peer),
    ):
        document = look(site, task_id)
        again = look(site, task_id)

    assert document["task_id"] == task_id
    assert (document["run_id"] is not None) == diagnosed
    thread = document["threads"][0]
    assert (thread["is_task"], thread["state"], thread["same_for_s"]) == (True, "blocked", 0.0)
    assert (thread["wait"]["kind"], thread["wait"]["peer"]) == ("socket", peer)
    assert is_line_that_hangs(thread["frames"][0])
    assert again["threads"][0]["same_for_s"] > 0
    assert not [other for other in document["threads"] if other["name"].startswith("dramatiq_diag.")]


def test_a_coroutine_is_shown_with_what_it_awaits(make_site: Callable[..., Site], bench: Any) -> None:
    site = make_site(task_diagnostics=["memory"])
    release: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    async def awaits() -> None:
        loop = asyncio.get_running_loop()
        release.append((loop, loop.create_future()))
        await release[0][1]

    with bench(site.settings, tuning=SOON) as tasks:
        task_id = tasks.actor(awaits, diagnostics=[]).send().message_id
        eventually(lambda: release, "the coroutine awaits")
        document = look(site, task_id)
        loop, future = release[0]
        loop.call_soon_threadsafe(future.set_result, None)
        tasks.finish()

    thread = document["threads"][0]
    assert (thread["is_task"], thread["state"], thread["wait"]["kind"]) == (True, "awaiting", "future")
    assert thread["frames"][0]["function"].endswith("awaits")


def test_a_browser_gets_a_page(make_site: Callable[..., Site], bench: Any) -> None:
    site = make_site(task_diagnostics=["memory"])
    with bench(site.settings, tuning=SOON) as tasks, hanging(tasks) as (task_id, peer):
        look(site, task_id)
        page = site.client.simulate_post(f"/tasks/{task_id}/stacks/", headers=HTML)
    assert page.status_code == 200
    assert peer in page.text
    assert "connection.recv(1)" in page.text
    assert 'class="status blocked"' in page.text


def test_a_task_that_nobody_executes_has_no_stack(site: Site) -> None:
    with site.store.session() as session:
        note_worker(session, worker_report(tasks=[executed_task("another")]))
    refused = site.client.simulate_post("/tasks/nothing/stacks/")
    assert "No live worker process" in assert_problem(refused, 404)


def test_a_page_of_another_site_cannot_ask(site: Site) -> None:
    headers = {"Sec-Fetch-Site": "cross-site"}
    refused = site.client.simulate_post("/tasks/nothing/stacks/", headers=headers)
    assert "another site" in assert_problem(refused, 403)


@pytest.mark.usefixtures("stopped_clock")
def test_a_worker_that_does_not_answer_is_said(make_site: Callable[..., Site]) -> None:
    site = make_site({"answer_wait_s": 0.0})
    worker_id = report(site.store, executed_task())
    refused = assert_problem(site.client.simulate_post("/tasks/task/stacks/"), 504)
    assert "did not answer in time" in refused
    assert "it may only be busy; ask again" in refused

    with site.store.session() as session:
        move_report(session, worker_id, 17.0)
    silent = assert_problem(site.client.simulate_post("/tasks/task/stacks/"), 504)
    assert "was last heard of 17 s ago" in silent
    assert "C code keeps its GIL" in silent


def test_a_refusal_has_the_workers_reason(site: Site) -> None:
    made = worker_report(tasks=[executed_task()])
    with site.store.session() as session:
        note_worker(session, made)

    def refuse() -> bool:
        with site.store.session() as session:
            questions = open_questions(session, made.worker_id)
        for question in questions:
            with site.store.session() as session:
                answer(session, question.question_id, QuestionState.REFUSED, reason="It has ended.")
        return bool(questions)

    refusing = threading.Thread(target=eventually, args=(refuse, "the question is there"))
    refusing.start()
    refused = site.client.simulate_post("/tasks/task/stacks/")
    assert "It has ended." in assert_problem(refused, 409)
    refusing.join()


def test_too_many_questions_are_refused(site: Site) -> None:
    with site.store.session() as session:
        note_worker(session, worker_report(tasks=[executed_task()]))
    for _ in range(MAX_OPEN):
        ask(site.store, QuestionKind.STACK, "task", {}, expires_after_s=600.0)
    refused = site.client.simulate_post("/tasks/task/stacks/")
    assert "too many" in assert_problem(refused, 429)
