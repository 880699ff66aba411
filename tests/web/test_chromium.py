"""Reports in a browser, under the policy they are served with."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from dramatiq_diag.web.server import Server
from support.web import Site, memray_artifact, profile_artifact, session_of

pytest.importorskip("pyinstrument")

HOSTILE = "</script><script>document.title='pwned'</script><img src=x onerror=document.title='pwned'><!--<script>"


def test_the_tree_is_drawn_inside_the_sandbox_and_hostile_names_are_text(
    site: Site, start_server: Callable[..., Server], dump_dom: Callable[[str], str]
) -> None:
    session = session_of("crunch_numbers", HOSTILE, file=f"/srv/{HOSTILE}/jobs.py", target=f"Task {HOSTILE}: crunch")
    path = site.publish_one(profile_artifact(json.dumps(session).encode()))
    server = start_server(site.settings)
    page = dump_dom(server.url + path)
    drawn = page.partition('<div id="app">')[2].partition("<script>")[0]
    assert "crunch_numbers" in drawn
    assert "&lt;/script&gt;&lt;script&gt;document.title" in drawn
    assert "<img" not in drawn
    assert "pwned" not in page.partition("<title>")[2].partition("</title>")[0]


def test_memrays_flame_graph_is_drawn_inside_the_sandbox(
    site: Site, bench, settings, stored, start_server: Callable[..., Server], dump_dom: Callable[[str], str]
) -> None:
    given = settings(task_diagnostics=["memray"])

    def hold_pages() -> None:
        pages = [b"x" * 100_000 for _ in range(100)]
        assert pages

    with bench(given) as tasks:
        task_id = tasks.run(hold_pages)
    data = stored(given).data(task_id, "memray_profile")
    path = site.publish_one(memray_artifact(data))
    server = start_server(site.settings)

    page = dump_dom(f"{server.url}{path}&format=flamegraph")

    drawn = page.partition('id="chart"')[2].partition("<script")[0]
    assert "d3-flame-graph" in drawn
    assert "pages = [b" in drawn  # The line that allocated.
