"""The page of the worker processes in Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.web.server import Server
from support.pages import HOSTILE, expect_width
from support.records import executed_task, run_record
from support.web import Site
from support.workers import report

playwright = pytest.importorskip("playwright.sync_api")


@pytest.mark.usefixtures("stopped_clock")  # A process is lost after 30 s, and the first page may take as long.
@pytest.mark.parametrize("javascript", [True, False])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_is_found_from_the_navigation_fits_and_leads_to_a_task(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any], width: int, javascript: bool
) -> None:
    run = run_record(task_id="here", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    site.store.announce([run])
    hostile = executed_task("w" * 400, actor_name=HOSTILE + "n" * 150) | {"task_id": "\u202ew" + "w" * 199}
    report(site.store, executed_task("shown"), seen_s_ago=60.0, age_s=7200.0)
    report(site.store, executed_task("here", run_id=str(run.run_id)), hostile, hostname="h" * 64, queues=["q" * 80] * 5)
    expect = playwright.expect
    server = start_server(site.settings)
    page = open_pages(server, viewport={"width": width, "height": 800}, java_script_enabled=javascript)
    page.add_init_script("window.pwned = () => { console.error('pwned'); };")

    page.goto("/tasks/")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Workers").click()
    expect(page.locator("tbody.worker .status")).to_have_text(["live", "lost"])
    expect(page.locator("tbody.worker").first).to_contain_text("2 of 8")
    expect(page.locator("tbody.worker").first).to_contain_text(re.compile(r"\d s ago|\d ms ago"))
    expect(page.locator("tbody.worker li")).to_have_count(3)
    expect_width(page, width)

    page.locator("tbody.worker").get_by_role("link", name="work", exact=True).first.click()
    page.wait_for_url(re.compile("/tasks/here/"))
