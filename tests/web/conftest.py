"""Fixtures of the web tests: a store of real files and rows, and the app on top of it."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from dramatiq_diag import Settings
from dramatiq_diag.web.server import Server
from support import missing
from support.pages import PATIENCE_MS
from support.web import Site


@pytest.fixture(autouse=True)
def one_connection_at_a_time() -> Iterator[None]:
    """No request takes a second connection while it has one: threads that each need one more would wait for ever."""
    held: dict[int, int] = {}
    nested: list[str] = []

    def take(*_: object) -> None:
        thread_id = threading.get_ident()
        held[thread_id] = held.get(thread_id, 0) + 1
        if held[thread_id] > 1:
            nested.append("".join(traceback.format_stack(limit=25)))

    def give_back(*_: object) -> None:
        held[threading.get_ident()] = max(held.get(threading.get_ident(), 0) - 1, 0)

    event.listen(Pool, "checkout", take)
    event.listen(Pool, "checkin", give_back)
    try:
        yield
    finally:
        event.remove(Pool, "checkout", take)
        event.remove(Pool, "checkin", give_back)
    assert not nested, nested[0]


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site with the settings given, and with other limits, and closes it after the test."""
    sites: list[Site] = []

    def make(limits: Mapping[str, Any] | None = None, **values: Any) -> Site:
        sites.append(Site(Settings(**{"data_dir": tmp_path / "data"} | values), limits or {}))
        return sites[-1]

    yield make
    for site in sites:
        site.close()


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()


@pytest.fixture
def site_on_any_database(make_site: Callable[..., Site], database_url: str | None) -> Site:
    return make_site(database_url=database_url)


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Starts servers in threads on free ports, and stops them after the test."""
    servers: list[Server] = []

    def start(settings: Settings, **options: Any) -> Server:
        servers.append(Server(settings, **{"port": 0} | options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.close()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    """A browser for these tests alone: it keeps a processor busy, and has an event loop in this thread."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError as error:
        missing(f"No browser is driven: {error}", "pip install playwright")
    # A click returns before the page that it leads to is there, so nothing is read from a page at once: `expect` waits.
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        names = "--host-resolver-rules=MAP *.test 127.0.0.1"
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", names])
        yield started
        started.close()


@pytest.fixture
def open_pages(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens an empty page; whatever any of them complains of, or asks another host for, fails the test."""
    contexts: list[Any] = []
    complaints: list[str] = []
    pending: set[Any] = set()

    def make(server: Server, **options: Any) -> Any:
        def look(request: Any) -> None:
            pending.add(request)
            if urlsplit(request.url).netloc not in (urlsplit(server.url).netloc, ""):
                complaints.append(f"asked {request.url}")

        context = browser.new_context(base_url=server.url, **options)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        context.on("request", look)
        context.on("requestfinished", lambda request: pending.discard(request))
        context.on("requestfailed", lambda request: pending.discard(request))
        context.on("console", lambda said: said.type in ("error", "warning") and complaints.append(said.text))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        return context.new_page()

    yield make
    for context in contexts:
        while pending:  # A server that is closed while it answers may have a file open.
            context.pages[0].wait_for_timeout(20)
        context.close()
    assert complaints == []
