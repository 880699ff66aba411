"""The pages in Chromium, as a person uses them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.documents.fields import actor_href, task_href
from dramatiq_diag.web.server import Server
from support import eventually, missing
from support.pages import HOSTILE, publish_hostile
from support.web import Site, memory_artifact, profile_artifact, session_of

pytest.importorskip("pyinstrument")
pytest.importorskip("memray")

#: Longest wait for something in a page, in milliseconds; no test waits it out.
PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser for these tests alone: it keeps a processor busy, and has an event loop in this thread."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        missing(f"No browser is driven: {error}", "pip install playwright")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def open_pages(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an empty page; whatever any of them complains of, or asks another host for, fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []

    def make(server: Server, **options: Any) -> Any:
        def look(request: Any) -> None:
            if urlsplit(request.url).netloc not in (urlsplit(server.url).netloc, ""):
                complaints.append(f"asked {request.url}")

        context = browser.new_context(base_url=server.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        context.on("request", look)
        context.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context.new_page()

    yield make
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def measured(bench: Any, settings: Callable[..., Settings]) -> Settings:
    """A store with three real runs of one actor under all diagnostics, the last of which fails."""
    given = settings(task_diagnostics=["all"], memory_interval=0.05)

    def grow(steps: int, fails: bool = False) -> None:
        import time

        held = []
        for _ in range(steps):
            held.append(hold_page())
            time.sleep(0.02)
        if fails:
            raise ValueError(f"only {steps} steps")

    def hold_page() -> bytes:
        return b"x" * 1_000_000

    with bench(given) as tasks:
        actor = tasks.actor(grow)
        for arguments in ((10,), (40,), (15, True)):
            actor.send(*arguments)
            tasks.finish()
    return given


def test_a_person_finds_the_run_and_sees_where_memory_and_time_went(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))

    # Given the list, which is filtered.
    page.goto("/tasks/")
    assert page.locator("tbody tr").count() == 3
    assert page.locator("svg.sparkline polyline").count() == 3
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Status").select_option("succeeded")
    page.get_by_label("First").select_option("slowest")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("sort=slowest"))
    assert page.locator("tbody tr").count() == 2
    assert page.locator(".chip").all_inner_texts() == ["Status: succeeded \u00d7"]

    # When the slowest run is opened.
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.wait_for_url(re.compile(r"/tasks/[^/]+/\?attempt=1"))

    # Then the memory chart answers to the pointer.
    page.locator("#memory[data-shown]").wait_for()
    box = page.locator("#memory").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert "Seconds" in tooltip.inner_text()
    assert re.search(r"MiB\s+\d", tooltip.inner_text())
    assert "peak" in page.locator("#memory").inner_text()

    # And the tree of time, and the allocations of thread and process, are drawn inside the page.
    page.locator("iframe.report").first.scroll_into_view_if_needed()
    time = page.frame_locator("iframe.report >> nth=0")
    time.get_by_text("grow").first.wait_for()
    page.locator("iframe.report").last.scroll_into_view_if_needed()
    allocations = page.frame_locator("iframe[name=allocations]")
    allocations.locator("#chart svg.d3-flame-graph").wait_for()
    chart = allocations.locator("#chart")
    eventually(lambda: re.search("hold_page|held", chart.inner_text()), "the chart has the names of functions")
    views = page.locator(".views p")
    views.nth(1).get_by_role("link", name="Tree").click()
    allocations.get_by_text("allocations", exact=False).first.wait_for()
    assert "tree-process" in page.frame(name="allocations").url
    assert views.nth(1).locator("[aria-current]").inner_text() == "Tree"
    assert page.locator(".views [aria-current]").count() == 1


def test_a_failed_run_shows_its_traceback(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/tasks/?status=failed")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.get_by_text("only 15 steps").first.wait_for()
    assert "in grow" in page.locator(".exception pre").inner_text()


def test_two_runs_are_compared_from_the_actors_page(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/actors/")
    page.get_by_role("link", name="grow").click()
    page.locator("#history[data-shown] svg").first.wait_for()
    rows = page.locator("tbody tr")
    rows.nth(2).locator("input[name=a]").check()
    rows.nth(1).locator("input[name=b]").check()
    page.get_by_role("button", name="Compare B with A").click()
    page.set_viewport_size({"width": 360, "height": 740})
    for chart in ("memory", "time", "allocations"):
        page.locator(f"#{chart}[data-shown]").wait_for()
    assert "A" in page.locator("#memory").inner_text()
    slower = page.locator("section:has(#time) tbody tr")
    assert "grow" in slower.first.inner_text() or "sleep" in slower.first.inner_text()
    assert page.locator("section:has(#time) .more").count() > 0
    assert "hold_page" in page.locator("section:has(#allocations)").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_run_is_pinned_and_deleted_by_its_buttons(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/tasks/")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.get_by_role("button", name="Pin").click()
    page.locator("h1 .pin").wait_for()
    assert page.get_by_text("Delete…").count() == 0
    page.get_by_role("button", name="Unpin").click()
    page.get_by_role("button", name="Pin", exact=True).wait_for()
    page.wait_for_load_state("networkidle")  # What is still being loaded would find nothing any more.
    page.get_by_text("Delete…").click()
    page.get_by_role("button", name="Delete the files").click()
    page.get_by_text("Deleted by hand at").first.wait_for()
    assert page.locator("iframe").count() == 0
    assert page.get_by_text("Delete…").count() == 0


def test_it_works_by_keyboard_alone(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/tasks/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    for _ in range(60):
        page.keyboard.press("Tab")
        if "attempt=1" in (page.evaluate("document.activeElement.href") or ""):
            break
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("attempt=1"))
    page.get_by_role("button", name="Pin").focus()
    page.keyboard.press("Enter")
    page.locator("h1 .pin").wait_for()


def test_times_are_relative_and_exact_in_the_browsers_zone_on_hover(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    started_at = datetime.now(UTC) - timedelta(minutes=3, seconds=10)
    site.publish("t", started_at=started_at, finished_at=started_at + timedelta(seconds=4))
    path = site.publish_one(memory_artifact(), started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    site.change(path, expires_at=datetime.now(UTC) + timedelta(hours=20, minutes=10))
    page = open_pages(start_server(site.settings), timezone_id="America/New_York", locale="en-GB")

    page.goto("/tasks/")
    recent, old = page.locator("tbody time").all_inner_texts()
    assert recent == "3 min ago"
    assert re.fullmatch(r"\d+ d ago", old)
    assert page.locator("tbody time").last.get_attribute("title") == "1 Jan 2026, 22:04:05 GMT-5"
    assert page.locator("tbody time").last.get_attribute("datetime") == "2026-01-02T03:04:05.000000Z"

    page.goto("/tasks/one/")
    assert page.locator(".files time").inner_text() == "in 20 h"


def test_times_are_exact_without_javascript(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    site.publish("t")
    page = open_pages(start_server(site.settings), java_script_enabled=False)
    page.goto("/tasks/")
    assert page.locator("tbody time").inner_text() == "2026-01-02 03:04:05 UTC"
    # And the filters can be opened.
    assert not page.get_by_label("Queue").is_visible()
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Queue").fill("nothing")
    page.get_by_role("button", name="Show").click()
    page.locator(".chip").click()
    assert page.locator("tbody tr").count() == 1


@pytest.mark.parametrize("width", [360, 1280])
def test_the_functions_beyond_twenty_are_behind_more(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any], width: int
) -> None:
    names = [f"function_{number}" for number in range(40)]
    file = f"/srv/venv/lib/python3.11/site-packages/{'long_' * 20}/jobs.py"
    record = profile_artifact(json.dumps(session_of(*names, file=file)).encode())
    a, b = (site.publish(task_id, [record]) for task_id in "ab")
    page = open_pages(start_server(site.settings), viewport={"width": width, "height": 800})
    page.goto(f"/compare/?a={a}&b={b}")
    page.locator("#time[data-shown]").wait_for()
    rows = page.locator("section:has(#time) tbody tr")
    assert sum(row.is_visible() for row in rows.all()) == 20

    page.locator("summary", has_text="21 more").focus()
    page.keyboard.press("Enter")

    assert sum(row.is_visible() for row in rows.all()) == 41
    assert rows.first.locator(".file").get_attribute("title") in (file, "/srv/app/jobs.py")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any], scheme: str, width: int
) -> None:
    page = open_pages(start_server(measured), color_scheme=scheme, viewport={"width": width, "height": 800})
    for path in ("/tasks/", "/tasks/?status=failed&actor=grow", "/actors/", "/actors/grow/", "/captures/"):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    page.goto("/tasks/")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    for chart in ("memory", "resources"):
        page.locator(f"#{chart}[data-shown] svg").wait_for()
    assert "Context switches" in page.locator("#resources").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))[:3]
    )
    assert (red + green + blue > 3 * 128) == (scheme == "light")


def test_what_runs_now_is_shown_while_it_runs(
    settings: Callable[..., Settings],
    bench: Any,
    start_server: Callable[..., Server],
    open_pages: Callable[..., Any],
) -> None:
    import threading

    release = threading.Event()
    given = settings(task_diagnostics=["memory"])

    def crawl() -> None:
        release.wait(PATIENCE_MS / 1000)

    with bench(given) as tasks:
        page_server = start_server(given)
        page = open_pages(page_server)
        page.goto("/tasks/")
        assert page.locator("#running li").count() == 0
        tasks.actor(crawl).send()
        page.locator("#running li").wait_for()
        list_beside = open_pages(page_server)
        list_beside.goto("/tasks/")
        list_beside.locator("#running li").wait_for()
        page.get_by_role("link", name="crawl").click()
        page.get_by_text("so far").wait_for()
        release.set()
        page.locator("#memory[data-shown]").wait_for()
        # The list beside it shows the run below as soon as it is no longer running.
        list_beside.locator("#runs tbody tr").get_by_text("succeeded").wait_for()
        assert list_beside.locator("#running li").count() == 0
        tasks.finish()


def test_nothing_hostile_runs_on_any_page(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    run_id = publish_hostile(site)
    site.publish("two", [memory_artifact()], actor_name=HOSTILE)
    page = open_pages(start_server(site.settings))
    page.add_init_script("window.pwned = () => { console.error('pwned'); };")
    for path, shown in (
        ("/tasks/", "tbody tr"),
        (task_href(HOSTILE), "#memory[data-shown] svg"),
        ("/actors/", "tbody tr"),
        (actor_href(HOSTILE), "#history[data-shown] svg"),
        (f"/compare/?a={run_id}&b={run_id}", "#memory[data-shown] svg"),
    ):
        page.goto(path)
        page.locator(shown).first.wait_for()
        assert "pwned()" in page.locator("body").inner_text(), path
