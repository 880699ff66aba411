"""Pages say things once and where they are looked for: reasons, exceptions, filters, captures, texts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from falcon.testing import Result

from dramatiq_diag.collectors.resources import HEADER
from dramatiq_diag.statuses import ArtifactStatus, MemoryRole, RunStatus
from support import eventually
from support.pages import Page, page_of
from support.web import Site, artifact, memory_artifact, profile_artifact, session_of

OOM = "The worker process died while the task ran; this is what it left. At the last look: it looks like an OOM kill."


def test_the_reason_of_an_interrupted_run_stands_once_at_the_top(site: Site) -> None:
    partial = {"status": ArtifactStatus.PARTIAL, "reason": OOM}
    log = artifact("task_logs", b"began\n", filename="task.log", media_type="text/plain", **partial)
    capture = artifact("memray_profile", None, filename="memray.bin", media_type="application/octet-stream")
    gone = {"status": ArtifactStatus.FAILED, "reason": OOM}
    site.publish(
        "killed",
        [memory_artifact(**partial), profile_artifact(**gone), log, capture],
        status=RunStatus.INTERRUPTED,
    )

    page = page_of(site, "/tasks/killed/")

    before_files = page.text[: page.text.index("Files")]
    assert before_files.count("it looks like an OOM kill") == 1
    assert before_files.index("it looks like an OOM kill") < before_files.index("Memory")


def test_every_task_that_ran_beside_a_run_is_on_its_page(site: Site) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    site.publish("t", overlapped_task_ids=["beside", "unseen", "<i>"], started_at=at)
    site.publish("beside", started_at=at)
    page = page_of(site, "/tasks/t/")
    beside = page.text[page.text.index("Tasks in the same process") : page.text.index("Files")]
    assert beside.count("not diagnosed") == 2
    assert [name in beside for name in ("beside", "unseen", "<i>")] == [True, True, True]


def test_a_killed_process_has_its_grower_and_its_victims_on_each_page(site: Site) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    together = {"status": RunStatus.INTERRUPTED, "started_at": at, "finished_at": at + timedelta(seconds=9)}
    grew = "At the last look this task was growing by 210.0 MiB/s; it was at eat (/app/work.py:12)."
    site.publish(
        "eater",
        [memory_artifact(status=ArtifactStatus.PARTIAL, reason=OOM)],
        overlapped_task_ids=["asleep"],
        memory_role=MemoryRole.GROWER,
        death_reason=grew,
        touched_bytes=3 * 2**30,
        **together,
    )
    site.publish(
        "asleep",
        overlapped_task_ids=["eater"],
        memory_role=MemoryRole.VICTIM,
        death_reason="At the last look the task eater was growing. This task was a victim.",
        **together,
    )

    eater, asleep = page_of(site, "/tasks/eater/"), page_of(site, "/tasks/asleep/")

    assert eater.text.count(grew) == 1
    assert "This task grew the process that was killed." in eater.text
    assert "Memory touched, about3.0 GiB" in eater.text
    assert eater.text.count("the task's thread was the first to touch") == 1
    assert eater.text.count("it looks like an OOM kill") == 1
    assert "This task is a victim: another one grew the process that was killed." in asleep.text
    assert "/tasks/eater/?attempt=1" in asleep.links()
    assert "first to touch" not in asleep.text
    listed = page_of(site, "/tasks/").text
    assert "interrupted grew" in listed
    assert "interrupted victim" in listed


def test_a_list_shows_what_a_failed_run_raised(site: Site) -> None:
    site.publish("t", status=RunStatus.FAILED, exception_type="ValueError", exception_message="no such <file>")

    assert "ValueError: no such <file>" in page_of(site, "/tasks/").text
    assert "ValueError: no such <file>" in page_of(site, "/actors/crunch/").text


def test_filters_in_use_are_links_that_remove_them(site: Site) -> None:
    site.publish("t")

    page = page_of(site, "/tasks/?status=succeeded&actor=crunch&sort=slowest&cursor=")

    assert "Status: succeeded" in page.text
    chips = [link["href"] for link in page.all("a") if link.get("class") == "chip"]
    assert chips == ["?status=succeeded&sort=slowest", "?actor=crunch&sort=slowest"]
    assert [filters for filters in page.all("details") if "open" in filters] == []


@pytest.mark.parametrize(
    ("ages", "chosen"),
    [([timedelta(minutes=1)] * 10, "1h"), ([timedelta(hours=2)] * 10, "24h"), ([timedelta(minutes=1)] * 9, "all")],
)
def test_the_chart_of_an_actor_is_of_a_range_of_time(site: Site, ages: list[timedelta], chosen: str) -> None:
    now = datetime.now(UTC)
    for age in ages:
        site.publish("t", started_at=now - age, finished_at=now - age)

    page = page_of(site, "/actors/crunch/?limit=3")

    assert [link["href"] for link in page.all("a") if "aria-current" in link] == [f"?limit=3&range={chosen}"]
    assert page.text.count('"task": "t"') == len(ages)


def test_a_chosen_range_without_runs_says_so(site: Site) -> None:
    site.publish("old")

    assert "No run started in the last 1h." in page_of(site, "/actors/crunch/?range=1h").text
    assert site.get("/actors/crunch/?range=2h").status_code == 400


def test_captures_are_a_page_in_a_browser(site: Site) -> None:
    assert "No captures." in page_of(site, "/captures/").text
    assert site.get("/captures/").json == {"captures": []}


def test_a_text_report_is_a_page_that_breaks_no_line(site: Site) -> None:
    site.publish("t", [profile_artifact()])
    (found,) = site.get("/tasks/t/profile_artifacts/").json["artifacts"]
    path = f"/artifacts/{found['artifact_id']}/reports/text"

    plain = site.get(path)
    page = page_of(site, path)

    assert plain.headers["content-type"] == "text/plain; charset=utf-8"
    assert plain.text.strip() in page.text
    assert page.all("pre") != []


RESOURCES = f"{HEADER}1.000,0.500,0.250,10,2,1048576,2097152,7,3\n".encode()


def test_resources_are_a_chart(site: Site) -> None:
    site.publish("t", [artifact("resources_profile", RESOURCES, filename="resources.csv", media_type="text/csv")])

    page = page_of(site, "/tasks/t/")

    [chart] = [element for element in page.all("div") if element.get("id") == "resources"]
    answer = eventually(lambda: finished(site.get(str(chart["data-chart-url"]))), "the chart is rendered")
    assert {row["label"] for row in answer.json["datasets"]["figures"]} >= {"user", "read", "threads"}
    assert answer.json["vconcat"]


def finished(answer: Result) -> Result | None:
    return answer if answer.status_code == 200 else None


def test_a_section_without_content_takes_one_line(site: Site) -> None:
    gone = artifact(
        "other", None, status=ArtifactStatus.FAILED, reason="No luck.", filename="o", media_type="text/plain"
    )
    site.publish("t", [gone])
    site.publish("empty")

    assert lines(page_of(site, "/tasks/t/")) == {"memory-title", "time-title", "allocations-title", "other-title"}
    empty = page_of(site, "/tasks/empty/")
    assert lines(empty) == {"memory-title", "time-title", "allocations-title", "files-title"}
    assert "This run left no files." in empty.text


def lines(page: Page) -> set[str | None]:
    return {section["aria-labelledby"] for section in page.all("section") if section.get("class") == "line"}


@pytest.mark.parametrize("path", ["/tasks/", "/tasks/t/", "/actors/", "/actors/crunch/"])
def test_a_time_is_exact_and_in_utc_without_a_script(site: Site, path: str) -> None:
    site.publish("t")

    page = page_of(site, path)

    assert {time["datetime"] for time in page.all("time")} == {"2026-01-02T03:04:05.678901Z"}
    assert "2026-01-02 03:04:05 UTC" in page.text


def compared(site: Site, *names: str) -> Page:
    file = "/srv/venv/lib/python3.11/site-packages/shop/jobs.py"
    session = json.dumps(session_of(*names, file=file)).encode()
    a, b = (site.publish(task_id, [profile_artifact(session)]) for task_id in "ab")
    path = f"/compare/?a={a}&b={b}"
    eventually(lambda: finished(site.get(path)), "both are rendered")
    return page_of(site, path)


def test_a_table_of_functions_has_twenty_rows_and_the_others_behind_more(site: Site) -> None:
    names = [f"function_{number}" for number in range(30)]

    page = compared(site, *names)

    assert [element.get("class") for element in page.all("details")] == ["rest"]
    table, rest = page.text.split("11 more")
    shown, hidden = ({*re.findall(r"function_\d+(?= shop)", part)} for part in (table, rest))
    assert len(hidden) in (10, 11)  # The actor's own function is the other one.
    assert len(shown) == 30 - len(hidden)
    assert shown | hidden == {*names}


def test_a_short_table_of_functions_is_whole(site: Site) -> None:
    assert compared(site, "function").all("details") == []


def test_the_path_of_a_file_is_short_and_whole_on_hover(site: Site) -> None:
    page = compared(site, "function")

    files = {str(element["title"]) for element in page.all("span") if element.get("class") == "note file"}
    assert files == {"/srv/venv/lib/python3.11/site-packages/shop/jobs.py", "/srv/app/jobs.py"}
    assert {"shop/jobs.py", "jobs.py"} <= {*page.text.split()}


def test_filters_are_closed_until_they_are_asked_for(site: Site) -> None:
    for path in ("/tasks/", "/tasks/?actor=nobody"):
        [filters] = page_of(site, path).all("details")
        assert filters == {"class": "filter"}
    assert "No runs match." in page_of(site, "/tasks/?actor=nobody").text


def test_where_the_time_went_is_a_bar_and_a_table(site: Site) -> None:
    account = {
        "wall_ms": 1000.0,
        "samples": 90,
        "parts": [
            {"part": "cpu", "on": None, "ms": 250.0},
            {"part": "blocked", "on": "127.0.0.1:5432", "ms": 750.0},
        ],
        "neighbours": [{"task_id": "other", "actor_name": "resize", "cpu_ms": 120.0}],
    }
    file = {"filename": "accounting.json", "media_type": "application/json"}
    site.publish("t", [artifact("time_accounting", json.dumps(account).encode(), **file)])
    site.publish("broken", [artifact("time_accounting", b"{}", **file)])

    page = page_of(site, "/tasks/t/")

    assert "Blocked: 127.0.0.1:5432" in page.text
    assert "75.0 %" in page.text
    assert "/tasks/other/" in [link["href"] for link in page.all("a")]
    assert "Kept the loop" not in page.text
    account["neighbours"][0]["loop_ms"] = 640.0
    site.publish("async", [artifact("time_accounting", json.dumps(account).encode(), **file)])
    assert "Kept the loop" in (page := page_of(site, "/tasks/async/")).text
    assert "640.0 ms" in page.text
    page = page_of(site, "/tasks/t/")
    assert [bar["width"] for bar in page.all("rect")] == ["250.0", "750.0"]
    assert "The account cannot be read now." in page_of(site, "/tasks/broken/").text
