"""Who leaks: as a document, as a page with one click to a capture, and by the command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from dramatiq_diag.insights.stored_leaks import read_leaks
from dramatiq_diag.maintenance.cleanup import Cleanup
from dramatiq_diag.maintenance.leak_captures import capture_leaks
from dramatiq_diag.store.captures import list_captures
from dramatiq_diag.store.heap_windows import newest_windows
from dramatiq_diag.worker.cleanup_schedule import run_cleanup
from support.pages import HOSTILE
from support.web import Site, assert_problem
from support.windows import process, store_windows

ACTORS = [f"actor_{number:02}" for number in range(10)]
HTML = {"Accept": "text/html"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def leaking(name: str = "actor_03", seed: int = 1) -> Any:
    return process(seed, [*ACTORS[:-1], name] if name not in ACTORS else ACTORS, {name: 3000.0}, windows=200)


def test_the_document_has_the_leaking_actor_first(site_on_any_database: Site) -> None:
    site = site_on_any_database
    store_windows(site.store, leaking())
    answered = site.get("/leaks/")
    assert answered.status_code == 200
    assert answered.headers["content-type"] == "application/json"
    actors = answered.json["actors"]
    assert [actor["actor_name"] for actor in actors if actor["verdict"] == "leaks"] == ["actor_03"]
    first = actors[0]
    assert set(first) == {"actor_name", "runs", "bytes_per_run", "low", "high", "verdict", "reason", "runs_needed"}
    assert 0 < first["low"] < first["bytes_per_run"] < first["high"]
    assert 2500 < first["bytes_per_run"] < 3500
    assert first["runs"] > 300
    assert len(actors) == len(ACTORS)


def test_since_leaves_older_windows_out(site: Site) -> None:
    store_windows(site.store, leaking(), ended_at=datetime.now(UTC) - timedelta(days=2))
    assert site.get("/leaks/?since=24h").json == {"actors": []}
    assert site.get("/leaks/?since=5d").json["actors"][0]["verdict"] == "leaks"
    assert_problem(site.get("/leaks/?since=yesterday"), 400)


def test_only_the_newest_windows_are_read(site: Site) -> None:
    store_windows(site.store, leaking())
    with site.store.session() as session:
        assert len(newest_windows(session, limit=50)) == 50
        report = read_leaks(session, limit=50)
    assert report.is_cut
    assert [window.number for window in report.processes[0]] == list(range(150, 200))


def test_without_windows_the_page_says_that_nothing_is_known(site: Site) -> None:
    assert site.get("/leaks/").json == {"actors": []}
    assert "Nothing is known yet" in site.get("/leaks/", headers=HTML).text


def test_the_page_shows_verdicts_with_their_evidence_and_escapes_names(site: Site) -> None:
    store_windows(site.store, leaking(HOSTILE))
    page = site.get("/leaks/", headers=HTML)
    assert page.status_code == 200
    assert HOSTILE not in page.text
    assert "<polyline" in page.text
    assert page.text.index("leaks</span>") < page.text.index("undecided</span>")
    assert "nothing frees later" in page.text
    assert "<button>" not in page.text  # Nothing may be captured here.


def test_one_click_captures_the_suspect(make_site: Callable[..., Site]) -> None:
    pytest.importorskip("memray")
    site = make_site(task_diagnostics_on_request=["memray"])
    store_windows(site.store, leaking())
    text = site.get("/leaks/", headers=HTML).text
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', text)
    assert len(fields) == 6  # One form: that of the leaking actor.
    answered = site.client.simulate_post("/captures/forms/start", body=urlencode(fields), headers=FORM)
    assert answered.status_code == 303
    with site.store.session() as session:
        (made,) = list_captures(session)
    assert made.capture.actor_name == "actor_03"
    assert made.capture.diagnostics == {"memray": {"trace_python_allocators": True}}


def test_a_leaking_actor_is_captured_once_a_day(make_site: Callable[..., Site]) -> None:
    pytest.importorskip("memray")
    site = make_site(task_diagnostics_on_request=["memray"])
    store_windows(site.store, leaking())
    ((made,), refused) = capture_leaks(site.store)
    assert refused == {}
    assert made.capture.actor_name == "actor_03"
    assert capture_leaks(site.store) == ([], {})


@pytest.mark.parametrize("is_on", [True, False])
def test_the_cleanup_captures_suspects_if_the_setting_says_so(make_site: Callable[..., Site], is_on: bool) -> None:
    pytest.importorskip("memray")
    site = make_site(task_diagnostics_on_request=["memray"], leak_captures=is_on)
    store_windows(site.store, leaking())
    run_cleanup(site.settings)
    with site.store.session() as session:
        assert len(list_captures(session)) == is_on


def test_where_memray_may_not_be_asked_for_nothing_is_captured(
    make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    site = make_site(leak_captures=True)
    store_windows(site.store, leaking())
    made, refused = capture_leaks(site.store)
    assert (made, [*refused]) == ([], ["actor_03"])
    assert caplog.text == ""
    run_cleanup(site.settings)
    assert refused["actor_03"] in caplog.text


def test_a_cleanup_removes_windows_after_the_retention_of_runs(
    make_site: Callable[..., Site], database_url: str | None
) -> None:
    site = make_site(database_url=database_url, run_retention=3600)
    store_windows(site.store, leaking(), ended_at=datetime.now(UTC))  # 200 windows of 30 s: 100 min.
    Cleanup(site.store, dry_run=True).run()
    with site.store.session() as session:
        assert len(newest_windows(session)) == 200
    Cleanup(site.store, batch_size=7).run()
    with site.store.session() as session:
        left = newest_windows(session)
    assert 115 <= len(left) <= 121
    assert min(window.number for window in left) >= 79


def test_the_openapi_document_has_the_route(site: Site) -> None:
    assert "/leaks/" in json.loads(site.get("/openapi.json").text)["paths"]
