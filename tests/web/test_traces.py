"""Traces of runs, and runs of traces: as pages and as documents."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from dramatiq_diag.statuses import RunStatus
from support.pages import page_of
from support.web import Site, assert_problem

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def test_the_runs_of_a_trace_are_listed_alike_as_page_and_as_document(site: Site) -> None:
    site.publish("task-a", trace_id=TRACE_ID, span_id=SPAN_ID)
    site.publish("task-b", trace_id=TRACE_ID[::-1], span_id=SPAN_ID)
    site.publish("task-c")
    site.publish("task-d", trace_id=TRACE_ID, span_id=SPAN_ID, status=RunStatus.RUNNING, finished_at=None)
    for given in (TRACE_ID, TRACE_ID.upper()):
        document = site.get(f"/tasks/?trace_id={given}").json
        assert [run["task_id"] for run in document["runs"]] == ["task-d", "task-a"]
        links = " ".join(page_of(site, f"/tasks/?trace_id={given}").links())
        assert [task for task in "abcd" if f"/tasks/task-{task}/" in links] == ["a", "d"]


@pytest.mark.parametrize("trace_id", ["x", TRACE_ID[:-1], f"{TRACE_ID}0", f"0x{TRACE_ID[2:]}", "%27--", "%00"])
def test_what_is_no_id_of_a_trace_is_refused(site: Site, trace_id: str) -> None:
    assert "32 hexadecimal digits" in assert_problem(site.get(f"/tasks/?trace_id={trace_id}"), 400)


def test_the_page_of_a_run_links_its_trace(make_site: Callable[..., Site]) -> None:
    site = make_site(trace_url="https://jaeger.example/trace/{trace_id}?a=1&b=2")
    site.publish("task-a", trace_id=TRACE_ID, span_id=SPAN_ID)
    site.publish("task-b")
    links = page_of(site, "/tasks/task-a/").links()
    assert f"https://jaeger.example/trace/{TRACE_ID}?a=1&b=2" in links
    assert f"/tasks/?trace_id={TRACE_ID}" in links
    assert "Trace" not in page_of(site, "/tasks/task-b/").text


def test_without_a_url_of_traces_the_page_has_the_id_alone(site: Site) -> None:
    site.publish("task-a", trace_id=TRACE_ID, span_id=SPAN_ID)
    page = page_of(site, "/tasks/task-a/")
    assert TRACE_ID in page.text
    assert [link for link in page.links() if TRACE_ID in link] == [f"/tasks/?trace_id={TRACE_ID}"]


def test_a_run_has_an_address_of_its_own_that_leads_to_its_page(site: Site) -> None:
    run_ids = [site.publish("task/1") for _ in range(2)]
    for attempt, run_id in enumerate(run_ids, 1):
        assert site.get(f"/runs/{run_id}/").json == site.get("/tasks/task%2F1/").json["runs"][attempt - 1]
        page = site.get(f"/runs/{run_id}/", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (302, f"/tasks/task%2F1/?attempt={attempt}")
    assert_problem(site.get(f"/runs/{uuid.uuid4()}/"), 404)
    assert_problem(site.get("/runs/x/"), 404)
