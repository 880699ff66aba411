"""The pages in Chromium, as a person uses them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.documents.fields import actor_href, task_href
from dramatiq_diag.reports.charts.script import charts_script
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store import captures
from dramatiq_diag.web.server import Server
from support import missing
from support.pages import HOSTILE, PATIENCE_MS, expect_width, publish_hostile
from support.records import executed_task, run_record
from support.tasks import running_bench
from support.web import Site, memory_artifact, profile_artifact, session_of
from support.workers import report

try:
    from playwright.sync_api import expect
except ImportError as import_error:
    missing(f"No browser is driven: {import_error}", "pip install playwright")

pytest.importorskip("pyinstrument")
pytest.importorskip("memray")


def see_reports(page: Any) -> None:
    """Waits until the charts and reports of a run are drawn; a report is loaded when it is scrolled into view."""
    for chart in ("memory", "resources"):
        page.locator(f"#{chart}[data-shown]").wait_for()
    page.locator("iframe.report").first.scroll_into_view_if_needed()
    page.frame_locator("iframe.report >> nth=0").get_by_text("grow").first.wait_for()
    page.locator("iframe.report").last.scroll_into_view_if_needed()
    page.frame_locator("iframe[name=allocations]").locator("#chart svg.d3-flame-graph").wait_for()


@pytest.fixture(scope="session")
def cache_dir(made_once: Callable[..., Path]) -> Path:
    """The cache of all tests here: to make the script of the charts takes seconds."""
    return made_once("cache", charts_script)


@pytest.fixture
def settings(settings: Callable[..., Settings], cache_dir: Path) -> Callable[..., Settings]:
    return partial(settings, cache_dir=cache_dir)


@pytest.fixture
def site(make_site: Callable[..., Site], cache_dir: Path) -> Site:
    return make_site(cache_dir=cache_dir)


@pytest.fixture(scope="session")
def three_runs(made_once: Callable[..., Path]) -> Path:
    """A data dir with three real runs of one actor under all diagnostics, the last of which fails."""
    return made_once("three_runs", run_three) / "data"


def run_three(directory: Path) -> None:
    data_dir = directory / "data"
    given = Settings(data_dir=data_dir, cleanup_interval=0, task_diagnostics=["all"], memory_interval=0.05)

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

    with running_bench(given) as tasks:
        actor = tasks.actor(grow)
        for arguments in ((10,), (40,), (15, True)):
            actor.send(*arguments)
            tasks.finish()


@pytest.fixture
def measured(three_runs: Path, settings: Callable[..., Settings]) -> Settings:
    """A store of this test alone with the three runs."""
    given = settings()
    shutil.copytree(three_runs, given.data_dir)
    return given


def test_a_person_finds_the_run_and_sees_where_memory_and_time_went(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))

    # Given the list, which is filtered.
    page.goto("/tasks/")
    expect(page.locator("tbody tr")).to_have_count(3)
    expect(page.locator("svg.sparkline polyline")).to_have_count(3)
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Status").select_option("succeeded")
    page.get_by_label("First").select_option("slowest")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("sort=slowest"))
    expect(page.locator("tbody tr")).to_have_count(2)
    expect(page.locator(".chip")).to_have_text(["Status: succeeded \u00d7"], use_inner_text=True)

    # When the slowest run is opened.
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.wait_for_url(re.compile(r"/tasks/[^/]+/\?attempt=1"))

    # Then the memory chart answers to the pointer.
    page.locator("#memory[data-shown]").wait_for()
    page.locator("#memory").scroll_into_view_if_needed()
    box = page.locator("#memory").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.5)
    tooltip = page.locator("#vg-tooltip-element.visible")
    expect(tooltip).to_contain_text("Seconds", use_inner_text=True)
    expect(tooltip).to_contain_text(re.compile(r"MiB\s+\d"), use_inner_text=True)
    expect(page.locator("#memory")).to_contain_text("peak", use_inner_text=True)

    # And the tree of time, and the allocations of thread and process, are drawn inside the page.
    see_reports(page)
    allocations = page.frame_locator("iframe[name=allocations]")
    expect(allocations.locator("#chart")).to_contain_text(re.compile("hold_page|held"), use_inner_text=True)
    views = page.locator(".views p")
    views.nth(1).get_by_role("link", name="Tree").click()
    page.frame(name="allocations").wait_for_url(re.compile("tree-process"))
    allocations.get_by_text("allocations", exact=False).first.wait_for()
    expect(views.nth(1).locator("[aria-current]")).to_have_text("Tree", use_inner_text=True)
    expect(page.locator(".views [aria-current]")).to_have_count(1)


def test_a_failed_run_shows_its_traceback(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/tasks/?status=failed")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.get_by_text("only 15 steps").first.wait_for()
    expect(page.locator(".exception pre")).to_contain_text("in grow", use_inner_text=True)


def test_two_runs_are_compared_from_the_actors_page(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/actors/")
    page.get_by_role("link", name="grow").click()
    page.locator("#history[data-shown] svg").first.wait_for()
    rows = page.locator("tbody tr:has(input[name=a])")
    rows.nth(2).locator("input[name=a]").check()
    rows.nth(1).locator("input[name=b]").check()
    page.get_by_role("button", name="Compare B with A").click()
    page.set_viewport_size({"width": 360, "height": 740})
    for chart in ("memory", "time", "allocations"):
        page.locator(f"#{chart}[data-shown]").wait_for()
    expect(page.locator("#memory")).to_contain_text("A", use_inner_text=True)
    slower = page.locator("section:has(#time) tbody tr")
    expect(slower.first).to_contain_text(re.compile("grow|sleep"), use_inner_text=True)
    expect(page.locator("section:has(#time) .more")).not_to_have_count(0)
    expect(page.locator("section:has(#allocations)")).to_contain_text("hold_page", use_inner_text=True)
    expect_width(page, 360)


def test_a_run_is_pinned_and_deleted_by_its_buttons(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/tasks/")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    page.get_by_role("button", name="Pin").click()
    page.locator("h1 .pin").wait_for()
    expect(page.get_by_text("Delete…")).to_have_count(0)
    page.get_by_role("button", name="Unpin").click()
    page.get_by_role("button", name="Pin", exact=True).wait_for()
    see_reports(page)  # What is loaded while the files are deleted may be gone.
    page.get_by_text("Delete…").click()
    page.get_by_role("button", name="Delete the files").click()
    page.get_by_text("Deleted by hand at").first.wait_for()
    expect(page.locator("iframe")).to_have_count(0)
    expect(page.get_by_text("Delete…")).to_have_count(0)


def test_the_buttons_work_over_plain_http_under_a_name_that_is_not_of_this_machine(
    site: Site, start_server: Callable[..., Server], browser: Any
) -> None:
    """The browser sends no Sec-Fetch-Site there."""
    site.publish("t", [memory_artifact()])
    server = start_server(Settings(data_dir=site.settings.data_dir, allowed_hosts=["server.test"]))
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"http://server.test:{server.port}/tasks/t/")
        page.get_by_role("button", name="Pin").click()
        page.locator("h1 .pin").wait_for(timeout=PATIENCE_MS)


def test_it_works_by_keyboard_alone(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    page = open_pages(start_server(measured))
    page.goto("/tasks/")
    page.keyboard.press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("#"))
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
    now = datetime.now(UTC)
    started_at = now - timedelta(minutes=2, seconds=35)
    site.publish("t", started_at=started_at, finished_at=started_at + timedelta(seconds=4))
    path = site.publish_one(memory_artifact(), started_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    site.change(path, expires_at=now + timedelta(hours=20, minutes=10))
    page = open_pages(start_server(site.settings), timezone_id="America/New_York", locale="en-GB")
    page.clock.set_fixed_time(now)  # However long it takes to open the pages.

    page.goto("/tasks/")
    times = page.locator("tbody time")
    expect(times).to_have_text(["3 min ago", re.compile(r"^\d+ d ago$")], use_inner_text=True)
    expect(times.last).to_have_attribute("title", "1 Jan 2026, 22:04:05 GMT-5")
    expect(times.last).to_have_attribute("datetime", "2026-01-02T03:04:05.000000Z")

    page.goto("/tasks/one/")
    expect(page.locator(".files time")).to_have_text("in 20 h", use_inner_text=True)


def test_times_are_exact_without_javascript(
    site: Site, start_server: Callable[..., Server], open_pages: Callable[..., Any]
) -> None:
    site.publish("t")
    page = open_pages(start_server(site.settings), java_script_enabled=False)
    page.goto("/tasks/")
    expect(page.locator("tbody time")).to_have_text("2026-01-02 03:04:05 UTC", use_inner_text=True)
    # And the filters can be opened.
    expect(page.get_by_label("Queue", exact=True)).to_be_hidden()
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Queue", exact=True).fill("nothing")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("queue=nothing"))
    expect(page.locator("tbody tr")).to_have_count(0)
    page.locator(".chip").click()
    expect(page.locator("tbody tr")).to_have_count(1)


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
    expect(rows.filter(visible=True)).to_have_count(20)

    page.locator("summary", has_text="21 more").focus()
    page.keyboard.press("Enter")

    expect(rows.filter(visible=True)).to_have_count(41)
    expect(rows.first.locator(".file")).to_have_attribute(
        "title", re.compile(f"^({re.escape(file)}|/srv/app/jobs\\.py)$")
    )
    expect_width(page, width)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_a_phone_and_a_desk_in_light_and_dark(
    measured: Settings, start_server: Callable[..., Server], open_pages: Callable[..., Any], scheme: str, width: int
) -> None:
    page = open_pages(start_server(measured), color_scheme=scheme, viewport={"width": width, "height": 800})
    for path in ("/tasks/", "/tasks/?status=failed&actor=grow", "/actors/", "/actors/grow/", "/captures/"):
        page.goto(path)
        expect_width(page, width)
    page.goto("/tasks/")
    page.locator("tbody tr").first.get_by_role("link").first.click()
    for chart in ("memory", "resources"):
        page.locator(f"#{chart}[data-shown] svg").wait_for()
    expect(page.locator("#resources")).to_contain_text("Context switches", use_inner_text=True)
    expect_width(page, width)
    red, green, blue = map(
        int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))[:3]
    )
    assert (red + green + blue > 3 * 128) == (scheme == "light")


def test_running_tasks_are_shown_while_they_run(
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
        expect(page.locator("#running li")).to_have_count(0)
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
        expect(list_beside.locator("#running li")).to_have_count(0)
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
        expect(page.locator("body"), path).to_contain_text("pwned()", use_inner_text=True)


@pytest.mark.parametrize("width", [320, 360, 768, 800, 1024, 1280])
def test_wide_tables_fit_their_windows(
    make_site: Callable[..., Site],
    cache_dir: Path,
    start_server: Callable[..., Server],
    open_pages: Callable[..., Any],
    width: int,
) -> None:
    site = make_site(cache_dir=cache_dir, task_diagnostics="memory", task_diagnostics_on_request="logs")
    figures = {"duration_ms": 754_321.0, "queue_wait_ms": 321_987.6, "cpu_ms": 654_321.0, "run_queue_ms": 12_345.6}
    now = datetime.now(UTC)
    long_id, long_name = hashlib.sha256(b"task").hexdigest(), "orders.tasks." + "import_all_orders_of_" * 5
    for number in range(3):
        record = memory_artifact() if number else profile_artifact()
        site.publish(
            f"{number}{long_id[1:]}",
            [record],
            **figures,
            actor_name=f"an_actor_{number}" if number else long_name,
            hostname="ip-10-0-12-34.eu-central-1.compute.internal",
            overlapped_task_ids=[long_id],
            started_at=now - timedelta(minutes=13),
            gc_ms=987.6,
            touched_bytes=1023 * 1024**2,
            peak_rss_bytes=1023 * 1024**2,
        )
    running = {"status": RunStatus.RUNNING, "finished_at": None, "duration_ms": None}
    site.store.announce([run_record(task_id=long_id, actor_name=long_name, **running)])
    report(site.store, executed_task(long_id, actor_name=long_name) | {"task_id": long_id}, hostname="h" * 64)
    captures.create(site.store, long_name, {"memory": {}, "logs": {}}, 3, 100.0, unknown_actor=True)
    page = open_pages(start_server(site.settings), viewport={"width": width, "height": 800})
    lists = ("/tasks/", "/tasks/?sort=touched", "/tasks/?sort=cpu", "/actors/", "/actors/?since=24h", "/workers/")
    of_one = (actor_href(long_name), task_href(f"1{long_id[1:]}"))
    for path in (*lists, "/leaks/", "/captures/", "/storage/", *of_one):
        page.goto(path)
        expect_width(page, width)
