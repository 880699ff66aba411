"""Runs and artifacts as JSON."""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from falcon.testing import StartResponseMock, TestClient, create_environ

from dramatiq_diag.documents.fields import task_href
from dramatiq_diag.statuses import ArtifactStatus, MemoryRole, RunStatus
from dramatiq_diag.web import create_app
from support.web import HOST, MEMORY, Site, assert_problem, memory_artifact, memray_artifact, path_of, profile_artifact


def test_health_asks_nothing_of_the_store(tmp_path: Any) -> None:
    from dramatiq_diag import Settings

    app = create_app(Settings(data_dir=tmp_path / "untouched"), insecure=True)
    result = TestClient(app, headers={"Host": "localhost"}).simulate_get("/healthz")
    assert (result.status_code, result.json) == (200, {"status": "ok"})
    assert not (tmp_path / "untouched").exists()


@pytest.mark.parametrize("path", ["/tasks", "/tasks/", "/tasks/task-1", "/tasks/task-1/", "/healthz", "/healthz/"])
def test_a_trailing_slash_is_optional_and_head_is_answered(site: Site, path: str) -> None:
    site.publish()
    result = site.get(path)
    assert result.status_code == 200
    assert result.headers["content-type"] == "application/json"
    assert result.headers["cache-control"] == "no-store"
    assert result.headers["x-content-type-options"] == "nosniff"
    head = site.client.simulate_head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == result.headers["content-length"]


def test_a_run_has_all_its_fields(site: Site) -> None:
    run_id = site.publish(
        status=RunStatus.FAILED,
        exception_type="ValueError",
        exception_message="no <b>",
        overlapped_task_ids=["other"],
        collection_ms=12.5,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
        release="2.14.0",
        queue_wait_ms=3.25,
        cpu_ms=100.5,
        run_queue_ms=2.5,
        gc_ms=1.5,
        throttled_ms=0.0,
        touched_bytes=4096,
        major_faults=1,
        memory_role=MemoryRole.VICTIM,
        death_reason="It was killed.",
        worker_id=uuid.UUID("0af76519-16cd-43dd-8448-eb211c80319c"),
    )
    assert site.get("/tasks/task-1/").json == {
        "task_id": "task-1",
        "runs": [
            {
                "run_id": str(run_id),
                "task_id": "task-1",
                "actor_name": "crunch",
                "queue_name": "default",
                "attempt": 1,
                "status": "failed",
                "started_at": "2026-01-02T03:04:05.678901Z",
                "finished_at": "2026-01-02T03:04:09.678901Z",
                "duration_ms": 4000.5,
                "collection_ms": 12.5,
                "queue_wait_ms": 3.25,
                "peak_rss_bytes": 131072000,
                "cpu_ms": 100.5,
                "run_queue_ms": 2.5,
                "gc_ms": 1.5,
                "throttled_ms": 0.0,
                "touched_bytes": 4096,
                "major_faults": 1,
                "memory_role": "victim",
                "death_reason": "It was killed.",
                "hostname": "worker-1",
                "pid": 4711,
                "worker_id": "0af76519-16cd-43dd-8448-eb211c80319c",
                "exception": {"type": "ValueError", "message": "no <b>"},
                "overlapped_task_ids": ["other"],
                "is_stuck": False,
                "pinned": False,
                "parent_run_id": None,
                "trace_id": "0af7651916cd43dd8448eb211c80319c",
                "span_id": "b7ad6b7169203331",
                "release": "2.14.0",
                "href": "/tasks/task-1/",
            }
        ],
    }


def test_profile_artifacts_has_urls_of_what_can_be_downloaded_and_all_artifacts(site: Site) -> None:
    gone = memray_artifact(None, status=ArtifactStatus.SKIPPED, reason="Busy.")
    site.publish("task-1", [memory_artifact(), gone, profile_artifact()])
    document = site.get("/tasks/task-1/profile_artifacts/").json
    assert sorted(document) == ["artifacts", "attachments", "children", "parent", "run", "traceback", "urls"]
    assert document["attachments"] == []
    assert sorted(document["urls"]) == ["memory_profile", "pyinstrument_profile"]
    assert document["run"]["task_id"] == "task-1"
    memory, memray, profile = document["artifacts"]
    assert memory["sha256"] == hashlib.sha256(MEMORY).hexdigest()
    assert memory["size_bytes"] == len(MEMORY)
    assert (memray["status"], memray["reason"], memray["size_bytes"]) == ("skipped", "Busy.", None)
    assert profile["stored_as"] == "pyinstrument.session.json"
    assert site.get(path_of(document["urls"]["memory_profile"])).content == MEMORY


def test_profile_artifacts_names_the_sender_of_a_run_and_the_runs_it_sent(site: Site) -> None:
    parent_run_id = site.publish("parent")
    run_id = site.publish("task-1", parent_run_id=parent_run_id)
    site.publish("child", parent_run_id=run_id)
    document = site.get("/tasks/task-1/profile_artifacts/").json
    assert document["run"]["parent_run_id"] == document["parent"]["run_id"] == str(parent_run_id)
    assert document["parent"]["parent_run_id"] is None
    assert [(child["task_id"], child["parent_run_id"]) for child in document["children"]] == [("child", str(run_id))]
    without = site.get("/tasks/parent/profile_artifacts/").json
    assert (without["parent"], [child["task_id"] for child in without["children"]]) == (None, ["task-1"])


def test_a_run_whose_sender_is_gone_still_names_it(site: Site) -> None:
    parent_run_id = uuid.uuid4()
    site.publish("task-1", parent_run_id=parent_run_id)
    document = site.get("/tasks/task-1/profile_artifacts/").json
    assert (document["run"]["parent_run_id"], document["parent"]) == (str(parent_run_id), None)


def test_the_latest_ended_run_answers_unless_an_attempt_is_asked_for(site: Site) -> None:
    site.publish("task-1", [memory_artifact()], status=RunStatus.FAILED)
    site.publish("task-1", [memory_artifact()])
    site.publish("task-1", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)
    path = "/tasks/task-1/profile_artifacts/"
    assert site.get(path).json["run"]["attempt"] == 2
    assert site.get(path, params={"attempt": ""}).json["run"]["attempt"] == 2
    assert site.get(path, params={"attempt": "1"}).json["run"]["status"] == "failed"
    running = site.get(path, params={"attempt": "3"}).json
    assert (running["run"]["status"], running["urls"], running["artifacts"]) == ("running", {}, [])
    assert "attempt 4" in assert_problem(site.get(path, params={"attempt": "4"}), 404)
    assert [run["attempt"] for run in site.get("/tasks/task-1/").json["runs"]] == [1, 2, 3]


@pytest.mark.parametrize("path", ["/tasks/nobody/", "/tasks/nobody/profile_artifacts/"])
def test_a_task_that_nothing_was_collected_for_is_not_found(site: Site, path: str) -> None:
    assert "Nothing was ever collected" in assert_problem(site.get(path), 404)


HOSTILE_TASK_IDS = [
    # Slashes, and what they could be mistaken for.
    "a/b",
    "/a",
    "a/",
    "a//b",
    "x/profile_artifacts",
    "profile_artifacts",
    "/tasks/x",
    # Dot segments.
    ".",
    "..",
    "../../etc/passwd",
    # What has a meaning in a URL.
    "a b",
    "a+b",
    "%2F",
    "%",
    "a%00b",
    "?limit=1",
    "#",
    "a&b=c;d",
    # Beyond ASCII.
    "ü",
    "任务",
    "\U0001f9ea",
    "\u202e",
    # Control characters, quotes, markup, SQL.
    "a\0b",
    "a\r\nSet-Cookie: x=1",
    "\"'`",
    "<script>alert(1)</script>",
    "'; DROP TABLE task_runs; --",
    # Nothing, and a lot.
    "",
    " ",
    "x" * 10_000,
    "ü" * 3_000,
]


@pytest.mark.parametrize("task_id", HOSTILE_TASK_IDS, ids=lambda task_id: ascii(task_id)[:30])
def test_any_string_is_a_task_id(site_on_any_database: Site, task_id: str) -> None:
    site = site_on_any_database
    site.publish("decoy", [])
    site.publish(task_id, [memory_artifact()])
    href = f"/tasks/{quote(task_id, safe='')}/"
    assert site.get(href).json["task_id"] == task_id
    document = site.get(f"{href}profile_artifacts/").json
    assert site.get(path_of(document["urls"]["memory_profile"])).content == MEMORY
    # The href that an answer gives leads to the task too, even where the id cannot be kept as it is.
    given = document["run"]["href"]
    assert given == task_href(document["run"]["task_id"])
    assert site.get(given).json["runs"][0]["run_id"] == document["run"]["run_id"]
    assert site.get(f"{given}profile_artifacts").json["run"] == document["run"]


@pytest.mark.parametrize(
    "task_id", [task_id for task_id in HOSTILE_TASK_IDS if not task_id.endswith("/profile_artifacts")], ids=ascii
)
def test_a_server_that_does_not_give_the_raw_uri_reaches_them_too(site: Site, task_id: str) -> None:
    site.publish(task_id, [memory_artifact()])
    for suffix, key in (("", "runs"), ("profile_artifacts/", "urls")):
        environ = create_environ(f"/tasks/{quote(task_id, safe='')}/{suffix}", headers={"Host": HOST})
        del environ["RAW_URI"]
        answer = StartResponseMock()
        body = b"".join(site.app(environ, answer))
        assert answer.status == "200 OK"
        assert f'"{key}"'.encode() in body


@pytest.mark.parametrize("path", ["/tasks/%FF%FE/", "/tasks/%ED%A0%80/profile_artifacts/", "/tasks/%", "/tasks/%zz/"])
def test_a_path_that_is_not_utf8_is_not_found(site: Site, path: str) -> None:
    assert_problem(site.get(path), 404)


def test_the_list_is_newest_first_in_pages(site_on_any_database: Site) -> None:
    site = site_on_any_database
    for number in range(5):
        site.publish(f"task-{number}")
    found, cursor = [], None
    for _ in range(3):
        page = site.get("/tasks/", params={"limit": "2"} | ({"cursor": cursor} if cursor else {})).json
        found += [run["task_id"] for run in page["runs"]]
        cursor = page["next"]
    assert found == ["task-4", "task-3", "task-2", "task-1", "task-0"]
    assert cursor is None


def test_the_list_is_filtered_and_empty_values_filter_nothing(site_on_any_database: Site) -> None:
    site = site_on_any_database
    site.publish("a", actor_name="crunch")
    site.publish("b", actor_name="munch", queue_name="slow", status=RunStatus.FAILED)
    site.publish("c", actor_name="munch")

    def found(**params: str) -> list[str]:
        return [run["task_id"] for run in site.get("/tasks/", params=params).json["runs"]]

    assert found(actor="munch") == ["c", "b"]
    assert found(queue="slow") == ["b"]
    assert found(status="failed") == ["b"]
    assert found(actor="munch", status="succeeded") == ["c"]
    assert found(actor="nobody") == []
    assert found(actor="a\0b") == []
    assert found(actor="' OR 1=1 --") == []
    assert found(actor="", queue="", status="", limit="", cursor="") == ["c", "b", "a"]
    assert found(unknown="1") == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        # Out of range.
        ("limit", "0"),
        ("limit", "1001"),
        ("limit", "-1"),
        ("limit", "9" * 5000),
        ("attempt", "0"),
        ("attempt", "-1"),
        ("attempt", "9" * 5000),
        # What `int` would take.
        ("limit", " 5"),
        ("limit", "1_0"),
        ("limit", "+5"),
        ("limit", "٣"),
        ("attempt", "1_0"),
        # No whole number.
        ("limit", "many"),
        ("limit", "1e2"),
        ("attempt", "1.0"),
        ("attempt", "0x1"),
        ("attempt", "1 OR 1=1"),
        # No status.
        ("status", "done"),
        ("status", "SUCCEEDED"),
        # No cursor: no base64, no text, nothing in it, no time zone, beyond all time, another id.
        ("cursor", "x"),
        ("cursor", "ü"),
        ("cursor", "////"),
        ("cursor", "IA"),
        ("cursor", "MjAyNi0wMS0wMlQwMzowNDowNSA4YjAwYzU2YS0wZjQwLTQ4YmItOWU5Ni0wMDAwMDAwMDAwMDA"),
        ("cursor", "MDAwMS0wMS0wMVQwMDowMDowMCsxNDowMCA4YjAwYzU2YS0wZjQwLTQ4YmItOWU5Ni0wMDAwMDAwMDAwMDA"),
        ("cursor", "MjAyNi0wMS0wMlQwMzowNDowNSswMDowMCBub3QtYS11dWlk"),
        ("cursor", "A" * 10_000),
    ],
)
def test_a_bad_parameter_is_named(site_on_any_database: Site, name: str, value: str) -> None:
    site = site_on_any_database
    site.publish("task-1", [memory_artifact()])
    path = "/tasks/task-1/profile_artifacts/" if name == "attempt" else "/tasks/"
    detail = assert_problem(site.get(path, params={name: value}), 400)
    assert f"`{name}`" in detail
    assert len(detail) < 300
    if name == "status":
        assert "running, succeeded, failed, skipped, interrupted" in detail


def test_urls_begin_with_the_address_that_the_client_asked(make_site: Callable[..., Site]) -> None:
    site = make_site(allowed_hosts=["diag.example"])
    site.publish("task-1", [memory_artifact()])
    urls = site.get("/tasks/task-1/profile_artifacts/", protocol="https", headers={"Host": "diag.example"}).json["urls"]
    assert urls["memory_profile"].startswith("https://diag.example/artifacts/")


def test_urls_begin_with_the_public_url_where_it_is_set(make_site: Callable[..., Site]) -> None:
    site = make_site(public_url="https://ops.example/diag/")
    site.publish("task-1", [memory_artifact()])
    urls = site.get("/tasks/task-1/profile_artifacts/").json["urls"]
    assert urls["memory_profile"].startswith("https://ops.example/diag/artifacts/")


@pytest.mark.parametrize("mount", ["/diag", "/ops/diag", "/tasks", "/tasks/tasks", "/%C3%BC", "/a%20b"])
def test_it_works_mounted_in_another_wsgi_app(site: Site, mount: str) -> None:
    prefix = _decoded(mount)

    def outer(environ: dict[str, Any], start_response: Any) -> Any:
        assert environ["PATH_INFO"].startswith(prefix)
        inner = environ | {"SCRIPT_NAME": prefix, "PATH_INFO": environ["PATH_INFO"][len(prefix) :]}
        return site.app(inner, start_response)

    client = TestClient(outer, headers={"Host": HOST})  # type: ignore[arg-type]
    for task_id in ("task-1", "a/b", "profile_artifacts", "x/profile_artifacts"):
        site.publish(task_id, [memory_artifact()])
        href = mount + task_href(task_id)
        document = client.simulate_get(href).json
        assert document["task_id"] == task_id
        assert [run["href"] for run in document["runs"]] == [href]
        url = client.simulate_get(f"{href}profile_artifacts/").json["urls"]["memory_profile"]
        assert url.startswith(f"http://localhost{mount}/artifacts/")
        assert client.simulate_get(path_of(url)).content == MEMORY


def _decoded(path: str) -> str:
    return str(create_environ(path)["PATH_INFO"])


def test_any_wsgi_server_can_serve_it(site: Site) -> None:
    from wsgiref.handlers import SimpleHandler

    path, _, query = site.publish_one(memory_artifact()).partition("?")
    out = io.BytesIO()
    environ = create_environ(path, query_string=query, headers={"Range": "bytes=2-5", "Host": HOST})
    SimpleHandler(io.BytesIO(), out, io.StringIO(), environ).run(site.app)  # type: ignore[arg-type]
    head, _, body = out.getvalue().partition(b"\r\n\r\n")
    assert b"206 Partial Content" in head
    assert body == MEMORY[2:6]


def test_the_runs_of_a_task_come_in_pages(site: Site) -> None:
    run_ids = [str(site.publish(status=RunStatus.FAILED)) for _ in range(5)]

    first = site.get("/tasks/task-1/?limit=2").json
    second = site.get(f"/tasks/task-1/?limit=2&cursor={first['next']}").json
    third = site.get(f"/tasks/task-1/?limit=2&cursor={second['next']}").json

    pages = (first, second, third)
    assert [run["run_id"] for page in pages for run in page["runs"]] == run_ids
    assert [run["attempt"] for page in pages for run in page["runs"]] == [1, 2, 3, 4, 5]
    assert "next" not in third
    assert "cursor" in assert_problem(site.get("/tasks/task-1/?cursor=nonsense"), 400)


def test_the_page_of_a_task_with_many_attempts_links_to_the_first_the_last_and_those_around(site: Site) -> None:
    for _ in range(40):
        site.publish(status=RunStatus.FAILED)

    page = site.get("/tasks/task-1/?attempt=20", headers={"Accept": "text/html"}).text

    links = [int(number) for number in re.findall(r'href="/tasks/task-1/\?attempt=(\d+)"', page.split("</nav>")[-2])]
    assert sorted(set(links)) == [1, *range(15, 26), 40]
    assert "20 of 40" in page


@pytest.mark.parametrize("seconds", ["1.001", "1.005", "2.3", "4.35"])
def test_a_run_of_just_that_duration_is_within_it(site: Site, seconds: str) -> None:
    site.publish(duration_ms=float(seconds.replace(".", "").ljust(4, "0")))
    for name in ("min_duration_s", "max_duration_s"):
        assert len(site.get(f"/tasks/?{name}={seconds}").json["runs"]) == 1


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_place_of_a_blob_is_gone(site: Site, make: Callable[[Path], None]) -> None:
    path = site.publish_one(memory_artifact())
    blob = site.blob(path)
    blob.unlink()
    make(blob)
    assert_problem(site.get(path), 410)
    assert_problem(site.get(f"{path}&format=csv"), 410)
