"""Pages say things once and where they are looked for: reasons, exceptions, filters, captures, texts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support.pages import page_of
from support.web import Site, artifact, memory_artifact, profile_artifact

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
