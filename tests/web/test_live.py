"""The view of a running task over HTTP: what its worker tells, while somebody watches and no longer."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import select

from dramatiq_diag.documents.fields import task_href
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.clock import Clock
from dramatiq_diag.store.models import Question, Worker
from dramatiq_diag.store.questions import QuestionKind, QuestionState, answer, open_questions
from dramatiq_diag.store.watches import watch
from dramatiq_diag.store.workers import note_worker
from dramatiq_diag.testing.harness import change_recordings
from dramatiq_diag.worker.tuning import Tuning
from support import PATIENCE_S, eventually
from support.hanging import hanging, is_line_that_hangs
from support.live import watch_hostile_task
from support.pages import HOSTILE, page_of
from support.records import executed_task, run_record, worker_report
from support.web import Site, assert_problem, memory_artifact
from support.workers import report

SOON = Tuning(attention_s=0.05, watched_s=0.05, report_s=0.05)
ALL = ["memory", "resources", "logs", "pyinstrument"]


def live(site: Site, task_id: str) -> Any:
    """The document, or None for a task that nothing is known of."""
    answered = site.get(f"/tasks/{task_id}/live/")
    assert answered.status_code in (200, 404), answered.text
    return answered.json if answered.status_code == 200 else None


def told(site: Site, task_id: str, is_wanted: Callable[[Any], object] = bool) -> Any:
    """Watches a task until its worker has told what is wanted. Returns: The document."""
    found: list[Any] = []

    def look() -> bool:
        found[:] = [live(site, task_id)]
        return bool(found[0] is not None and found[0]["state"] == "active" and is_wanted(found[0]))

    eventually(look, "the worker tells what is wanted")
    return found[0]


@contextmanager
def working(tasks: Any, **options: Any) -> Any:
    """Executes a task that holds more and more memory, writes a log and computes. Yields: Its id."""
    go_on = threading.Event()
    step = threading.Semaphore(0)

    def grow() -> None:
        held = []
        while not go_on.is_set():
            if step.acquire(blocking=False):
                held.append(bytearray(b"x") * 64 * 1024**2)
                logging.getLogger("app").warning("it holds %d pieces", len(held))
            burn()

    message = tasks.actor(grow, **options).send()
    try:
        yield message.message_id, step.release
    finally:
        go_on.set()
        tasks.finish()


def burn() -> None:
    sum(range(20_000))


def test_what_is_collected_is_seen_while_it_grows(make_site: Callable[..., Site], bench: Any) -> None:
    site = make_site(task_diagnostics=ALL, memory_interval=0.05, resources_interval=0.05)
    with bench(site.settings, tuning=SOON) as tasks, working(tasks) as (task_id, go_on):
        first = told(site, task_id, lambda document: document["memory"] and document["resources"])
        go_on()
        grown = told(
            site,
            task_id,
            lambda document: (
                "it holds 1 pieces" in document["log"]["text"]
                and document["memory"]["curve"][-1][1] > first["memory"]["curve"][-1][1] + 32 * 1024**2
                and document["profile"]["samples"] > 10
            ),
        )

    assert grown["run_id"] == first["run_id"]
    assert grown["elapsed_s"] > first["elapsed_s"] > 0
    assert grown["rss_bytes"] > 64 * 1024**2
    assert grown["log"]["is_cut"] is False
    names = [function["function"].rpartition(".")[2] for function in grown["profile"]["functions"]]
    assert "burn" in names
    assert grown["profile"]["tree"][0]["function"].endswith("grow")
    assert [call["function"] for call in grown["profile"]["tree"][0]["children"]][:1] == ["burn"]
    columns = grown["resources"]["columns"]
    assert columns[0] == "elapsed_seconds"
    assert grown["resources"]["rows"][-1][columns.index("threads")] >= 1
    assert {artifact["name"] for artifact in grown["artifacts"]} == {
        "memory_profile",
        "resources_profile",
        "task_logs",
        "pyinstrument_profile",
    }
    assert grown["stack"]["threads"][0]["is_task"]


@pytest.mark.parametrize("diagnosed", [True, False])
def test_the_line_that_hangs_is_shown_with_its_wait(
    make_site: Callable[..., Site], bench: Any, diagnosed: bool
) -> None:
    site = make_site(task_diagnostics=["memory"])
    with (
        bench(site.settings, tuning=SOON) as tasks,
        hanging(tasks, diagnostics=None if diagnosed else []) as (task_id, peer),
    ):
        document = told(site, task_id, lambda document: document["stack"]["threads"][0]["same_for_s"] > 0)
        # The row of a run is there a second after its start.
        page = page_of(site, f"/tasks/{task_id}/live/" if diagnosed else f"/tasks/{task_id}/")

    thread = document["stack"]["threads"][0]
    assert is_line_that_hangs(thread["frames"][0])
    assert thread["wait"]["peer"] == peer
    assert (document["run_id"] is not None) == diagnosed
    assert (document["note"] is None) == diagnosed
    assert document["actor_name"] == "ask_silent_server"
    assert peer in page.text
    assert "connection.recv(1)" in page.text
    last = live(site, task_id)
    assert last["state"] == "ended"
    assert (last["run"] is not None) == diagnosed


@pytest.mark.usefixtures("stopped_clock")
@pytest.mark.parametrize("diagnosed", [True, False])
def test_of_a_task_that_was_lost_with_its_process_it_is_not_said_that_it_has_ended(site: Site, diagnosed: bool) -> None:
    run = run_record(task_id="task", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    if diagnosed:
        site.store.announce([run])
    report(site.store, executed_task(run_id=str(run.run_id) if diagnosed else None), seen_s_ago=42.0)

    document = live(site, "task")
    assert document["state"] == "unreported"
    assert "was last heard of 42 s ago" in document["note"]
    assert "was last heard of 42 s ago" in page_of(site, "/tasks/task/").text


def test_nobody_who_looks_costs_nothing(make_site: Callable[..., Site], bench: Any) -> None:
    site = make_site(task_diagnostics=["memory"])
    looks: list[float] = []

    def count(recording: Any) -> None:
        recording.so_far = lambda: looks.append(time.monotonic())

    with bench(site.settings, tuning=SOON) as tasks:
        change_recordings(tasks.diagnostics.process.collectors["memory"], count)
        with working(tasks) as (task_id, _):
            eventually(lambda: watch(site.store, task_id, 0.5).execution and looks, "the worker looks, while asked to")
            question = eventually_expired(site, task_id)
            before = len(looks)
            worker_is_heard(site, tasks.diagnostics.process.services.worker_id)
            assert len(looks) - before <= 1  # One may have been under way.
            assert question.state == QuestionState.ACTIVE


def eventually_expired(site: Site, task_id: str) -> Any:
    def expired() -> Any:
        with site.store.session() as session:
            query = select(Question).where(Question.kind == QuestionKind.LIVE, Question.task_id == task_id)
            return session.execute(query.where(Question.expires_at < Clock(session).now)).scalar()

    found: list[Any] = []
    eventually(lambda: found.append(expired()) or found[-1], "the question has expired")
    return found[-1]


def worker_is_heard(site: Site, worker_id: Any) -> None:
    """Waits for several steps of the worker."""

    def seen() -> Any:
        with site.store.session() as session:
            return session.get(Worker, worker_id).seen_at

    for _ in range(5):
        before = seen()
        eventually(lambda before=before: seen() != before, "the worker reports itself")


def test_all_who_watch_share_one_question(site_on_any_database: Site) -> None:
    site = site_on_any_database
    report = worker_report(tasks=[executed_task()])
    with site.store.session() as session:
        note_worker(session, report)
    for _ in range(3):
        assert live(site, "task")["state"] == "pending"
    with site.store.session() as session:
        (question,) = open_questions(session, report.worker_id)
    with site.store.session() as session:
        answer(session, question.question_id, QuestionState.ACTIVE, {"elapsed_s": 3.5, "note": "a remark"})
    document = live(site, "task")
    assert (document["state"], document["elapsed_s"], document["note"]) == ("active", 3.5, "a remark")
    assert document["age_s"] >= 0
    with site.store.session() as session:
        answer(session, question.question_id, QuestionState.REFUSED, reason="It cannot.")
    document = live(site, "task")
    assert (document["state"], document["note"]) == ("refused", "It cannot. a remark")


@pytest.mark.parametrize(("run_id", "state"), [("0b6c0f3a-55a1-4a5e-9a38-0a1f0c0b7f11", "ending"), (None, "ended")])
def test_a_task_whose_end_was_reported_before_its_run_is_published(site: Site, run_id: str | None, state: str) -> None:
    worker_id = uuid.uuid4()
    for tasks in ([executed_task(run_id=run_id)], []):
        with site.store.session() as session:
            note_worker(session, worker_report(worker_id=worker_id, tasks=tasks))
        document = live(site, "task")
    assert (document["state"], document["run_id"], document["run"]) == (state, run_id, None)


def test_a_run_that_has_ended_has_its_run(site: Site) -> None:
    run_id = site.publish("done", [memory_artifact()])
    document = live(site, "done")
    assert (document["state"], document["run"]["run_id"], document["stack"]) == ("ended", str(run_id), None)
    assert document["href"] == "/tasks/done/"
    assert site.get("/tasks/done/live/?attempt=1").json["state"] == "ended"
    assert_problem(site.get("/tasks/done/live/?attempt=2"), 404)


def test_a_task_that_nothing_is_known_of_has_no_view(site: Site) -> None:
    assert "nothing was ever collected" in assert_problem(site.get("/tasks/nothing/live/"), 404)
    page_of(site, "/tasks/nothing/", 404)


def test_a_view_is_bounded(make_site: Callable[..., Site], bench: Any) -> None:
    site = make_site(task_diagnostics=ALL, memory_interval=0.01, resources_interval=0.01)
    release = threading.Event()

    def talk() -> None:
        for number in range(500):
            logging.getLogger("app").warning("line %d: %s", number, "\u20ac" * 100)
        nest(60)

    def nest(depth: int) -> None:
        if depth:
            nest(depth - 1)
        else:
            release.wait(PATIENCE_S)

    threads = [threading.Thread(target=nest, args=(90,), name=f"beside {number}") for number in range(40)]
    with bench(site.settings, tuning=SOON) as tasks:
        for thread in threads:
            thread.start()
        task_id = tasks.actor(talk).send().message_id
        told(site, task_id, lambda document: "line 499" in document["log"]["text"])
        text = site.get(f"/tasks/{task_id}/live/").text
        document = told(site, task_id)
        release.set()
        for thread in threads:
            thread.join()
        tasks.finish()

    assert len(text.encode()) <= 256 * 1024
    assert document["log"]["is_cut"] is True
    assert document["log"]["text"].startswith("20")
    assert "more threads are not shown" in document["stack"]["note"]


def test_nothing_hostile_is_markup(site: Site) -> None:
    watch_hostile_task(site.store)
    for path in (task_href(HOSTILE), f"{task_href(HOSTILE)}live/"):
        page = page_of(site, path)
        assert page.text.count("pwned()") >= 16
        assert page.all("img") == []
        assert all("src" in attributes for attributes in page.all("script"))


def test_the_page_of_a_task_that_is_not_diagnosed_takes_one_connection_at_a_time(site: Site) -> None:
    """The fixture `one_connection_at_a_time` sees it: with more threads than connections pages waited for ever."""
    report(site.store, executed_task("quiet"))
    assert "running" in page_of(site, "/tasks/quiet/").text
