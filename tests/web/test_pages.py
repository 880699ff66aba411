"""Pages: what a browser is shown at the addresses of the documents."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from falcon.testing import Result
from sqlalchemy import update

from dramatiq_diag.documents.fields import actor_href, task_href
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.store.models import TaskRun
from support.pages import BROWSER, HOSTILE, Page, page_of, publish_hostile
from support.records import run_record
from support.web import FIRST_START, MEMORY, TOKEN, Site, artifact, assert_problem, memory_artifact, profile_artifact


def run_path(task_id: str) -> str:
    return task_href(task_id)


# Who gets a page.


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (BROWSER, "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),  # curl
        ("application/json, text/html", "application/json"),
        ("application/json;q=0.5, text/html", "text/html; charset=utf-8"),
        ("image/png", "application/json"),
        ("not a media type", "application/json"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/tasks/", "/tasks/t/", "/tasks/t/profile_artifacts/", "/actors/", "/actors/crunch/", "/storage/"]
)
def test_a_browser_gets_a_page_and_others_the_document(site: Site, path: str, accept: str, media_type: str) -> None:
    site.publish("t")
    result = site.get(path, headers={"Accept": accept})
    assert (result.status_code, result.headers["content-type"]) == (200, media_type)
    assert "Accept" in result.headers["vary"]


def test_an_error_is_a_page_for_a_browser_and_a_problem_document_for_others(site: Site) -> None:
    page = page_of(site, "/tasks/nobody/", 404)
    assert "Nothing was ever collected for this task" in page.text
    assert assert_problem(site.get("/tasks/nobody/"), 404)


def test_who_comes_without_an_address_is_led_to_the_runs(site: Site) -> None:
    result = site.get("/")
    assert (result.status_code, result.headers["location"]) == (303, "/tasks/")


def test_under_a_mount_point_every_address_begins_with_it(site: Site) -> None:
    run_id = site.publish("t", [memory_artifact(), profile_artifact()])
    comparison = f"/compare/?a={run_id}&b={run_id}"
    assert report(site, comparison).status_code == 200
    for path in (
        "/tasks/",
        "/tasks/t/",
        "/actors/",
        "/actors/crunch/",
        "/storage/",
        comparison,
        "/tasks/x/",
    ):
        result = site.client.simulate_get(path, headers={"Accept": BROWSER}, root_path="/diag")
        found = Page(result)
        addresses = [
            address
            for _, attributes in found.elements
            for name in ("href", "src", "action", "data-chart-url")
            if (address := attributes.get(name)) and not address.startswith(("#", "data:", "?", "http://"))
        ]
        assert len(addresses) > 4
        assert [address for address in addresses if not address.startswith("/diag/")] == []


# What they say.


def test_the_list_shows_each_run_with_its_curve(site: Site) -> None:
    site.publish("first", [memory_artifact()])
    site.publish("second", status=RunStatus.FAILED, exception_type="ValueError")
    page = page_of(site, "/tasks/")
    assert page.text.index("second") < page.text.index("first")
    assert "4.00 s" in page.text
    assert "125.0 MiB" in page.text
    [curve] = page.all("polyline")
    assert len(str(curve["points"]).split()) == MEMORY.count(b"\n")


def test_a_list_asks_nothing_of_the_blobs(site: Site) -> None:
    site.publish("first", [memory_artifact()])
    site.publish("old", [memory_artifact()])
    with site.store.session() as session:  # As an older version published it.
        session.execute(update(TaskRun).where(TaskRun.task_id == "old").values(memory_curve=None))
    site.store.blobs.root.rename(site.store.blobs.root.with_name("away"))
    for path in ("/tasks/", "/actors/crunch/"):
        page = page_of(site, path)
        assert "old" in page.text
        assert len(page.all("polyline")) == 1


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("actor=crunch", "ab"),
        ("actor=send", "c"),
        ("queue=slow", "b"),
        ("status=failed", "c"),
        ("min_duration_s=5", "b"),
        ("max_duration_s=4.5", "ac"),
        ("min_peak_rss_mib=200", "c"),
        ("since=2026-01-02T03:05", "bc"),
        ("until=2026-01-02T03:05:00Z", "a"),
        ("task_id=task-b", "b"),
        ("task_id=task-", "abc"),
        ("actor=&queue=&status=&since=&min_duration_s=&task_id=", "abc"),
        ("actor=nobody", ""),
    ],
)
def test_the_list_is_filtered_alike_as_page_and_as_document(site: Site, query: str, shown: str) -> None:
    site.publish("task-a")
    site.publish("task-b", queue_name="slow", duration_ms=5000.0)
    site.publish("task-c", actor_name="send", status=RunStatus.FAILED, peak_rss_bytes=300 * 1024**2)
    document = site.get(f"/tasks/?{query}").json
    assert sorted(run["task_id"][-1] for run in document["runs"]) == list(shown)
    page = page_of(site, f"/tasks/?{query}")
    assert sorted(set(re.findall(r"/tasks/task-(.)/", " ".join(page.links())))) == list(shown)
    assert ("No runs match." in page.text) == (not shown)


@pytest.mark.parametrize(("sort", "order"), [("newest", "cba"), ("slowest", "bca"), ("memory", "abc")])
def test_the_list_is_sorted_and_goes_on_where_it_ended(site: Site, sort: str, order: str) -> None:
    site.publish("task-a", duration_ms=1.0, peak_rss_bytes=3000)
    site.publish("task-b", duration_ms=3.0, peak_rss_bytes=2000)
    site.publish("task-c", duration_ms=2.0, peak_rss_bytes=1000)
    path, seen = f"/tasks/?sort={sort}&limit=1", ""
    while path:
        page = page_of(site, path)
        seen += "".join(dict.fromkeys(re.findall(r"/tasks/task-(.)/", " ".join(page.links()))))
        following = [str(link["href"]) for link in page.all("a") if link.get("rel") == "next"]
        path = f"/tasks/{following[0]}" if following else ""
    assert seen == order


def test_the_form_keeps_the_filters(site: Site) -> None:
    page = page_of(site, "/tasks/?actor=crunch&min_duration_s=2.5&sort=slowest")
    values = {field["name"]: field.get("value") for field in page.all("input") if "name" in field}
    assert values["actor"] == "crunch"
    assert values["min_duration_s"] == "2.5"
    assert [option.get("value") for option in page.all("option") if "selected" in option] == ["slowest"]


def test_the_form_keeps_the_capture_and_times_that_were_given_as_ages(site: Site) -> None:
    capture_id = uuid.uuid4()
    page = page_of(site, f"/tasks/?capture={capture_id}&limit=7&since=2026-11-22T14:40:05%2B01:00&until=0s")
    values = {field["name"]: field.get("value") for field in page.all("input") if "name" in field}
    assert (values["capture"], values["limit"]) == (str(capture_id), "7")
    assert values["since"] == "2026-11-22T13:40:05"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", str(values["until"]))


def announce(site: Site, task_ids: Iterable[str]) -> None:
    """Runs begin, each a minute after the one before."""
    site.store.announce(
        run_record(task_id=task_id, actor_name="crawl", started_at=FIRST_START + timedelta(minutes=number)).as_running()
        for number, task_id in enumerate(task_ids)
    )


def test_every_running_task_is_found_and_behind_the_running_ones_the_list_goes_on(site: Site) -> None:
    site.publish("done", started_at=FIRST_START - timedelta(hours=1))
    announce(site, [f"under-way-{number:02}" for number in range(25)])
    for search in ("task_id=under-way-00", f"until={(FIRST_START + timedelta(seconds=1)):%Y-%m-%dT%H:%M:%S}"):
        found = page_of(site, f"/tasks/?{search}")
        assert "/tasks/under-way-00/" in " ".join(found.links())
        assert "/tasks/under-way-24/" not in " ".join(found.links())
    seen: list[str] = []
    path = "/tasks/?limit=5"
    while path:
        page = page_of(site, path)
        seen += re.findall(r"/tasks/([a-z0-9-]+)/", " ".join(page.links()))
        following = [str(link["href"]) for link in page.all("a") if link.get("rel") == "next"]
        path = f"/tasks/{following[0]}" if following else ""
    assert {"done", *(f"under-way-{number:02}" for number in range(25))} <= set(seen)


def test_running_tasks_are_on_top(site: Site) -> None:
    site.publish("done")
    announce(site, ["under-way"])
    page = page_of(site, "/tasks/")
    assert "Running now" in page.text
    assert page.text.index("crawl") < page.text.index("crunch")
    assert page.text.count("crawl") == 1
    assert [section["id"] for section in page.all("section") if "data-live" in section] == ["running", "runs"]

    of_run = page_of(site, "/tasks/under-way/")
    assert "so far" in of_run.text
    # It has no buttons that pin or delete: that is for runs that have ended.
    assert [form["action"] for form in of_run.all("form") if form.get("role") != "search"] == [
        "/tasks/under-way/stacks/"
    ]


def test_a_run_says_what_happened(site: Site) -> None:
    site.publish("t", status=RunStatus.FAILED, exception_type="ValueError", exception_message="too big")
    site.publish(
        "t",
        [memory_artifact(), artifact("task_logs", b"INFO started\n", filename="task.log", media_type="text/plain")],
        overlapped_task_ids=["other"],
    )
    site.publish("other", started_at=FIRST_START + timedelta(seconds=62))
    page = page_of(site, "/tasks/t/")
    assert "2 of 2" in page.text
    assert "INFO started" in page.text
    assert "pyinstrument was not collected for this run." in page.text
    assert "/tasks/other/?attempt=1" in page.links()
    assert '"start_s": 2.0' in page.text
    assert [frame for frame in page.all("div") if "data-chart-url" in frame]
    first = page_of(site, "/tasks/t/?attempt=1")
    assert "ValueError: too big" in first.text
    assert "/tasks/t/?attempt=2" in first.links()


@pytest.mark.parametrize("status", [s for s in ArtifactStatus if s not in ("stored", "partial")])
def test_a_missing_artifact_says_why_where_its_picture_would_be(site: Site, status: ArtifactStatus) -> None:
    site.publish("t", [profile_artifact(status=status, reason="Because of the moon.")])
    page = page_of(site, "/tasks/t/")
    assert page.all("iframe") == []
    assert page.text.count("Because of the moon.") == 2


def test_an_actor_shows_its_runs_and_two_to_compare(site: Site) -> None:
    site.publish("a", status=RunStatus.FAILED, exception_type="ValueError")
    site.publish("b", duration_ms=8000.0)
    page = page_of(site, "/actors/crunch/")
    assert "8.00 s" in page.text
    picked = {field["name"] for field in page.all("input") if "checked" in field}
    assert picked == {"a", "b"}
    assert '"$schema"' in page.text
    assert "/actors/crunch/" in page_of(site, "/actors/").links()
    assert assert_problem(site.get("/actors/nobody/"), 404)


def test_the_only_run_of_an_actor_is_compared_with_nothing(site: Site) -> None:
    site.publish()

    page = page_of(site, "/actors/crunch/")
    assert "Compare B with A" not in page.text
    assert not [field for field in page.all("input") if field.get("name") in ("a", "b")]


@pytest.mark.parametrize("name", ["app.tasks:crunch", "a/b/c", "a b", "ключ", "%2F", "?x=1", "#", "..", HOSTILE])
def test_an_actor_of_any_name_has_a_page(site: Site, name: str) -> None:
    site.publish("a", actor_name=name)
    [link] = [link for link in page_of(site, "/actors/").links() if link.startswith("/actors/") and link != "/actors/"]
    assert link == actor_href(name)
    assert site.get(link).json["actor"]["actor_name"] == name
    assert name in page_of(site, link).text


# What they do not do.


def test_a_run_links_to_its_sender_and_to_the_runs_it_sent(site: Site) -> None:
    parent_run_id = site.publish("parent", actor_name="import_all")
    run_id = site.publish("t", parent_run_id=parent_run_id)
    for number in range(2):
        site.publish(f"child-{number}", actor_name="import_one", parent_run_id=run_id)
    site.publish("child-1", actor_name="import_one", parent_run_id=run_id)
    page = page_of(site, run_path("t"))
    assert "Which task sent which" in page.text
    assert [link for link in page.links() if "child" in link or "parent" in link] == [
        "/tasks/parent/?attempt=1",
        "/tasks/child-0/?attempt=1",
        "/tasks/child-1/?attempt=1",
        "/tasks/child-1/?attempt=2",
    ]
    assert page.elements.count(("ul", {})) == 2
    assert "/tasks/t/?attempt=1" in page_of(site, run_path("parent")).links()


def test_a_run_without_relations_has_no_tree_and_one_whose_sender_is_gone_says_so(site: Site) -> None:
    site.publish("alone")
    site.publish("orphan", parent_run_id=uuid.UUID(int=7))
    assert "Which task sent which" not in page_of(site, run_path("alone")).text
    assert f"Its sender, run {uuid.UUID(int=7)}, is not stored any more." in page_of(site, run_path("orphan")).text


def test_hostile_content_is_text_on_every_page(site: Site) -> None:
    run_id = publish_hostile(site)
    for path in (
        "/tasks/",
        f"/tasks/?actor={actor_href(HOSTILE).split('/')[2]}",
        run_path(HOSTILE),
        run_path(f"child {HOSTILE}"),
        "/actors/",
        actor_href(HOSTILE),
        f"/compare/?a={run_id}&b={run_id}",
    ):
        page = page_of(site, path)
        for tag, attributes in page.elements:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (path, tag, attributes)
            assert tag != "img" or attributes.get("class") == "chart", path
        for script in page.all("script"):
            assert script.get("type") == "application/json" or str(script["src"]).startswith("/static/"), path
        assert "pwned()" in page.text, path
        assert "{{ 7*7 }}" in page.text, path
    problem = page_of(site, f"/tasks/?status={'%3Cscript%3Epwned()'}", 400)
    assert [script for script in problem.all("script") if "src" not in script] == []


def test_a_page_loads_nothing_but_from_its_own_server(site: Site) -> None:
    run_id = publish_hostile(site)
    for path in ("/tasks/", run_path(HOSTILE), "/actors/", actor_href(HOSTILE), f"/compare/?a={run_id}&b={run_id}"):
        result = site.get(path, headers={"Accept": BROWSER})
        policy = result.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", result.text.replace('href="http://localhost/', ""))


def test_styles_and_scripts_are_served_and_cached(site: Site) -> None:
    for name in ("style.css", "pages.js", "charts.js"):
        result = site.get(f"/static/{name}")
        assert result.status_code == 200
        assert len(result.content) > 1000
        again = site.get(f"/static/{name}", headers={"If-None-Match": result.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        packed = site.get(f"/static/{name}", headers={"Accept-Encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert len(packed.content) < len(result.content)
        assert packed.headers["etag"] != result.headers["etag"]
        again = site.get(
            f"/static/{name}", headers={"Accept-Encoding": "gzip", "If-None-Match": packed.headers["etag"]}
        )
        assert (again.status_code, again.headers["etag"]) == (304, packed.headers["etag"])
    assert assert_problem(site.get("/static/../app.py"), 404)
    assert assert_problem(site.get("/static/app.py"), 404)


# What is gone.


def test_an_expired_run_says_so(site: Site) -> None:
    path = site.publish_one(memory_artifact())
    site.change(path, status=ArtifactStatus.EXPIRED, reason="Removed by the cleanup.")
    page = page_of(site, "/tasks/one/")
    assert "Removed by the cleanup." in page.text
    assert page.all("div") == [element for element in page.all("div") if "data-chart-url" not in element]
    report = path.split("?")[0].rsplit("/", 1)[0] + "/reports/csv"
    assert "Removed by the cleanup." in page_of(site, report, 410).text
    assert assert_problem(site.get(report), 410) == "Removed by the cleanup."


# Reports.


def report_path(site: Site, kind: str, record: Any = None) -> str:
    path = site.publish_one(memory_artifact() if record is None else record)
    return path.split("?")[0].rsplit("/", 1)[0] + f"/reports/{kind}"


def report(site: Site, path: str, **options: Any) -> Result:
    """Asks until it is made."""
    while (result := site.get(path, **options)).status_code == 202:
        assert result.headers["retry-after"] == "1"
    return result


@pytest.mark.parametrize(
    ("kind", "media_type", "begins"),
    [
        ("csv", "text/csv; charset=utf-8", b"seconds,"),
        ("svg", "image/svg+xml", b"<svg"),
        ("png", "image/png", b"\x89PNG"),
        ("html", "text/html; charset=utf-8", b"<!"),
        ("chart", "application/json", b"{"),
        ("datum", "text/plain; charset=utf-8", MEMORY[:4]),
    ],
)
def test_a_memory_curve_has_its_reports(site: Site, kind: str, media_type: str, begins: bytes) -> None:
    result = report(site, report_path(site, kind))
    assert result.status_code == 200
    assert result.headers["content-type"] == media_type
    assert "sandbox" in result.headers["content-security-policy"]
    assert result.content.lower().startswith(begins.lower())


def test_an_unknown_report_is_not_found(site: Site) -> None:
    assert "no format 'pdf'" in assert_problem(site.get(report_path(site, "pdf")), 404)
    assert assert_problem(site.get("/artifacts/nobody/reports/csv"), 404)
    assert assert_problem(site.get("/artifacts/6f0c2a8e-0000-0000-0000-000000000000/reports/csv"), 404)


def test_a_report_needs_the_token_and_a_signed_download_does_not(make_site: Callable[..., Site]) -> None:
    site = make_site(api_token=TOKEN)
    path = site.publish_one(memory_artifact())
    assert site.get(path).status_code == 200
    reports = path.split("?")[0].rsplit("/", 1)[0] + "/reports/csv"
    assert assert_problem(site.get(reports), 401)
    assert report(site, reports, headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_the_answer_is_the_progress_until_the_report_is_rendered(make_site: Callable[..., Site]) -> None:
    site = make_site({"wait_s": 0.0})
    path = report_path(site, "svg")
    result = site.get(path)
    assert result.status_code == 202
    assert result.json["status"] in ("waiting", "rendering")
    assert result.json["limit_s"] > result.json["elapsed_s"] >= 0
    shown = site.get(path, headers={"Accept": BROWSER})
    if shown.status_code == 202:  # Else it has just been made.
        assert shown.headers["refresh"] == "1"
        assert Page(shown).all("progress")
    assert report(site, path).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [
        *(("gzip", True), ("x-gzip", True), ("GZIP;q=0.5", True), ("br, gzip;q=1.0", True)),
        *(("gzip;q=0", False), ("gzip; q=0.000, identity", False), ("gzipped", False), ("identity", False)),
    ],
)
def test_styles_are_packed_for_those_who_accept_it(site: Site, accepted: str, packed: bool) -> None:
    result = site.get("/static/style.css", headers={"Accept-Encoding": accepted})
    assert result.headers.get("content-encoding") == ("gzip" if packed else None)


@pytest.mark.parametrize(("tags", "status"), [("*", 304), ('"other"', 200), ('"x{0}', 200), ('W/"a", W/{0}', 304)])
def test_styles_are_sent_unless_the_client_has_them(site: Site, tags: str, status: int) -> None:
    etag = site.get("/static/style.css").headers["etag"]
    result = site.get("/static/style.css", headers={"If-None-Match": tags.replace("{0}", etag)})
    assert result.status_code == status
