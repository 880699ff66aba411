"""The page of a running task in Chromium: from the list to the line that hangs, and what stays while it is renewed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.documents.fields import task_href
from dramatiq_diag.store.questions import QuestionState, answer
from dramatiq_diag.store.watches import watch
from dramatiq_diag.web.server import Server
from dramatiq_diag.worker.tuning import Tuning
from support import eventually
from support.hanging import hanging
from support.live import hostile_answer, watch_hostile_task
from support.pages import HOSTILE
from support.web import Site

playwright = pytest.importorskip("playwright.sync_api")

SOON = Tuning(attention_s=0.1, watched_s=0.25, report_s=0.1)


@contextmanager
def closing_with(end: Callable[[], object]) -> Iterator[None]:
    """Ends what would go on for ever, also where the test fails."""
    try:
        yield
    finally:
        end()


def test_three_clicks_lead_from_the_list_to_the_line_that_hangs(
    settings: Callable[..., Settings],
    bench: Any,
    start_server: Callable[..., Server],
    open_pages: Callable[..., Any],
) -> None:
    expect = playwright.expect
    given = settings(task_diagnostics=["memory"])
    with bench(given, tuning=SOON) as tasks, hanging(tasks) as (_, peer):
        page = open_pages(start_server(given))
        page.goto("/tasks/")
        page.locator("#running").get_by_role("link", name="ask_silent_server").click()
        thread = page.locator("#live-stack .thread").first
        expect(thread.locator(".wait")).to_contain_text(peer)
        expect(thread.locator(".frames li").first).to_contain_text("It hangs here")
        expect(thread.locator("summary")).to_contain_text("at the same place for")
    expect(page.locator("#run .status")).to_have_text("succeeded")
    expect(page.locator("#memory[data-shown]")).to_be_visible()


def test_the_view_renews_itself_and_keeps_what_is_open(
    settings: Callable[..., Settings],
    bench: Any,
    start_server: Callable[..., Server],
    open_pages: Callable[..., Any],
) -> None:
    expect = playwright.expect
    release, step = threading.Event(), threading.Semaphore(0)
    given = settings(task_diagnostics=["memory", "logs", "resources", "pyinstrument"])

    def talk() -> None:
        number = 0
        while not release.is_set():
            if step.acquire(timeout=0.05):
                number += 1
                for line in range(100):
                    logging.getLogger("app").warning("part %d, line %d", number, line)

    with bench(given, tuning=SOON) as tasks, closing_with(release.set):
        tasks.actor(talk).send()
        page = open_pages(start_server(given))
        page.goto("/tasks/")
        page.locator("#running").get_by_role("link", name="talk").click()
        expect(page.locator("#live-memory polyline")).to_be_visible()
        expect(page.locator("#live-profile td .name", has_text="talk")).to_be_visible()
        page.locator("#live-stack .thread:not([open]) summary").first.click()
        opened = page.locator("#live-stack .thread[open]")
        expect(opened).to_have_count(2)
        step.release()
        log = page.locator("#live-log-text")
        expect(log).to_contain_text("part 1, line 99")
        log.evaluate("text => { text.scrollTop = 40; }")
        step.release()
        expect(log).to_contain_text("part 2, line 99")
        expect(log).to_have_js_property("scrollTop", 40)
        expect(opened).to_have_count(2)
        log.evaluate("text => getSelection().selectAllChildren(text)")
        step.release()
        expect(page.locator("#live-profile")).not_to_have_text(page.locator("#live-profile").inner_text())
        expect(log).not_to_contain_text("part 3")
        page.evaluate("getSelection().removeAllRanges()")
        expect(log).to_contain_text("part 3, line 99")
        release.set()
        expect(page.locator("#run .status")).to_have_text("succeeded")
        tasks.finish()


def test_a_task_that_is_not_diagnosed_has_a_page_while_it_runs(
    settings: Callable[..., Settings],
    bench: Any,
    start_server: Callable[..., Server],
    open_pages: Callable[..., Any],
    store_of: Any,
) -> None:
    expect = playwright.expect
    given = settings(task_diagnostics_on_request=["memory"])
    with bench(given, tuning=SOON) as tasks, hanging(tasks) as (task_id, peer):
        page = open_pages(start_server(given), java_script_enabled=False)
        store = store_of(given)
        eventually(lambda: watch(store, task_id).execution, "the worker has said that it executes it")
        page.goto(task_href(task_id))
        followed = open_pages(start_server(given))
        followed.goto(task_href(task_id))
        expect(followed.locator("#live-stack .wait").first).to_contain_text(peer)
        expect(followed.locator("#live-state")).to_contain_text("not diagnosed")
        page.get_by_role("link", name="Refresh").click()
        expect(page.locator("#live-stack .wait").first).to_contain_text(peer)
    expect(followed.locator("#run .status")).to_have_text("ended")


def test_nothing_hostile_runs_in_the_view(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    question_id = watch_hostile_task(site.store)
    page = open_pages(start_server(site.settings))
    page.add_init_script("window.pwned = () => { console.error('pwned'); };")
    page.goto(task_href(HOSTILE))
    playwright.expect(page.locator("#live-log-text")).to_contain_text("pwned()")
    with site.store.session() as session:
        answer(session, question_id, QuestionState.ACTIVE, hostile_answer(elapsed_s=77.0))
    playwright.expect(page.locator("#live-state")).to_contain_text("77.00 s after its start")
    playwright.expect(page.locator("#live-log-text")).to_contain_text("pwned()")
