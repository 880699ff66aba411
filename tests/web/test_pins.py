"""Runs pinned and deleted by hand, over HTTP."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from falcon.testing import Result

from dramatiq_diag.documents.signing import Signer
from support.records import run_record
from support.web import FIRST_START, TOKEN, Site, assert_problem, memory_artifact

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def send(site: Site, method: str, path: str, **options: Any) -> Result:
    return site.client.simulate_request(method, path, **options)


def submit(site: Site, run_id: object, action: str, token: str | None = None, **headers: str) -> Result:
    """Sends the form of a page."""
    given = Signer(site.settings).action_token(str(run_id)) if token is None else token
    return send(site, "POST", f"/runs/{run_id}/forms/{action}", body=f"token={given}", headers=FORM | headers)


def test_a_pinned_run_does_not_expire_until_it_is_unpinned(site: Site) -> None:
    run_id = site.publish("t", [memory_artifact()])
    assert send(site, "PUT", f"/runs/{run_id}/pin/").json["pinned"] is True
    document = site.get("/tasks/t/profile_artifacts/").json
    assert document["run"]["pinned"] is True
    assert document["artifacts"][0]["expires_at"] is None
    assert send(site, "DELETE", f"/runs/{run_id}/pin").json["pinned"] is False
    assert site.get("/tasks/t/profile_artifacts/").json["artifacts"][0]["expires_at"] is not None


def test_a_deleted_run_says_so_and_has_no_files(site: Site) -> None:
    run_id = site.publish("t", [memory_artifact()])
    url = site.get("/tasks/t/profile_artifacts/").json["urls"]["memory_profile"]
    assert send(site, "DELETE", f"/runs/{run_id}/").status_code == 200
    document = site.get("/tasks/t/profile_artifacts/").json
    assert document["urls"] == {}
    assert document["artifacts"][0]["status"] == "deleted"
    assert document["artifacts"][0]["reason"].startswith("Deleted by hand at ")
    assert "Deleted by hand" in assert_problem(site.get(url.removeprefix("http://localhost")), 410)
    assert "Deleted by hand" in site.get("/tasks/t/", headers={"Accept": "text/html"}).text
    assert send(site, "DELETE", f"/runs/{run_id}/").status_code == 200


def test_a_pinned_run_is_not_deleted(site: Site) -> None:
    run_id = site.publish("t", [memory_artifact()])
    send(site, "PUT", f"/runs/{run_id}/pin")
    assert "npin" in assert_problem(send(site, "DELETE", f"/runs/{run_id}"), 409)
    assert site.get("/tasks/t/profile_artifacts/").json["urls"]


def test_a_running_run_is_neither_pinned_nor_deleted(site: Site) -> None:
    run = run_record(task_id="t", started_at=FIRST_START).as_running()
    site.store.announce([run])
    assert assert_problem(send(site, "PUT", f"/runs/{run.run_id}/pin"), 409)
    assert assert_problem(send(site, "DELETE", f"/runs/{run.run_id}"), 409)


@pytest.mark.parametrize("run_id", ["7c0a4c1e-53bb-4d0f-9f5e-2f6a8d1b7e90", "x", "..", "%00", "'--"])
def test_an_unknown_run_is_not_found(site: Site, run_id: str) -> None:
    assert assert_problem(send(site, "PUT", f"/runs/{run_id}/pin"), 404)
    assert assert_problem(send(site, "DELETE", f"/runs/{run_id}/pin"), 404)
    assert assert_problem(send(site, "DELETE", f"/runs/{run_id}"), 404)


def test_the_forms_of_the_page_lead_back_to_it(site: Site) -> None:
    run_id = site.publish("t", [memory_artifact()])
    for action in ("pin", "unpin", "delete"):
        result = submit(site, run_id, action)
        assert (result.status_code, result.headers["location"]) == (303, "/tasks/t/?attempt=1")
    assert assert_problem(submit(site, run_id, "explode"), 404)


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost.evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_another_sites_page_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    run_id = site.publish("t", [memory_artifact()])
    for method, path in (("PUT", "pin"), ("DELETE", "pin"), ("DELETE", "")):
        assert "another site" in assert_problem(send(site, method, f"/runs/{run_id}/{path}", headers=headers), 403)
    assert "another site" in assert_problem(submit(site, run_id, "delete", **headers), 403)
    assert site.get("/tasks/t/profile_artifacts/").json["urls"]


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://localhost"}],
)
def test_the_own_page_and_programs_may(site: Site, headers: dict[str, str]) -> None:
    run_id = site.publish("t", [memory_artifact()])
    assert send(site, "PUT", f"/runs/{run_id}/pin", headers=headers).status_code == 200


def test_the_own_page_behind_a_proxy_may(make_site: Callable[..., Site]) -> None:
    site = make_site(public_url="https://diag.example/here")
    run_id = site.publish("t", [memory_artifact()])
    assert submit(site, run_id, "pin", Origin="https://evil.example").status_code == 403
    result = submit(site, run_id, "pin", Origin="https://diag.example")
    assert (result.status_code, result.headers["location"]) == (303, "/here/tasks/t/?attempt=1")


@pytest.mark.parametrize(
    ("public_url", "origin", "allowed"),
    [
        ("http://Diag.Example", "http://diag.example", True),
        ("HTTP://diag.example:80/here", "http://diag.example", True),
        ("https://diag.example:443", "https://diag.example", True),
        ("https://diag.example:8443", "https://diag.example:8443", True),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]", True),
        ("https://diag.example:8443", "https://diag.example", False),
        ("https://diag.example", "http://diag.example", False),
        ("https://diag.example:80", "https://diag.example", False),
        ("https://diag.example", "https://diag.example:bad", False),
        ("https://diag.example", "https://[", False),
        ("https://diag.example", "https://diag.example.evil.example", False),
    ],
)
def test_the_origin_of_a_page_is_compared_as_browsers_compare_it(
    make_site: Callable[..., Site], public_url: str, origin: str, allowed: bool
) -> None:
    site = make_site(public_url=public_url)
    run_id = site.publish("t", [memory_artifact()])
    assert submit(site, run_id, "pin", Origin=origin).status_code == (303 if allowed else 403)


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("LOCALHOST", "http://localhost"),
        ("localhost:80", "http://localhost"),
        ("localhost:443", "https://localhost"),  # Behind a proxy that ends TLS.
        ("localhost:8321", "http://localhost:8321"),
    ],
)
def test_so_is_that_of_a_page_under_the_host_of_the_request(site: Site, host: str, origin: str) -> None:
    run_id = site.publish("t", [memory_artifact()])
    assert submit(site, run_id, "pin", Host=host, Origin=origin).status_code == 303
    assert submit(site, run_id, "pin", Host=host, Origin=f"{origin}1").status_code == 403


def test_a_page_that_was_open_for_longer_than_a_download_url_keeps_its_buttons(make_site: Callable[..., Site]) -> None:
    site = make_site(url_ttl=1.0)
    run_id = site.publish("t", [memory_artifact()])
    token = Signer(site.settings, clock=lambda: time.time() - 3600.0).action_token(str(run_id))
    assert submit(site, run_id, "pin", token).status_code == 303


@pytest.mark.parametrize(
    ("public_url", "origin"),
    [
        ("http://Diag.Example.com", "http://diag.example.com"),
        ("http://diag.example.com:80/prefix", "http://diag.example.com"),
        ("https://diag.example.com:443", "https://diag.example.com"),
    ],
)
def test_the_origin_of_a_browser_is_that_of_the_public_url_however_it_is_written(
    make_site: Callable[..., Site], public_url: str, origin: str
) -> None:
    site = make_site(public_url=public_url)
    run_id = site.publish("t", [memory_artifact()])
    assert submit(site, run_id, "pin", Origin=origin).status_code == 303
    for other in (f"{origin}:81", origin.replace("diag.", "evil."), "null"):
        assert submit(site, run_id, "unpin", Origin=other).status_code == 403


def test_a_form_without_the_token_of_its_page_changes_nothing(site: Site, make_site: Callable[..., Site]) -> None:
    run_id = site.publish("t", [memory_artifact()])
    signer = Signer(site.settings)
    expired = Signer(site.settings, lambda: time.time() - 86400 - 5).action_token(str(run_id))
    for token in ("", "x", "9999999999.", "9999999999.abc", signer.action_token(str(uuid.uuid4())), expired):
        assert assert_problem(submit(site, run_id, "delete", token), 403)
    for body, content_type in ((b"", ""), (b"{", "application/json"), (b"\xff", FORM["Content-Type"]), (b"a", "x/y")):
        headers = {"Content-Type": content_type} if content_type else {}
        result = send(site, "POST", f"/runs/{run_id}/forms/delete", body=body, headers=headers)
        assert 400 <= result.status_code < 500
        assert assert_problem(result, result.status_code)
    assert site.get("/tasks/t/profile_artifacts/").json["urls"]


def test_the_token_of_the_api_is_asked_for(make_site: Callable[..., Site]) -> None:
    site = make_site(api_token=TOKEN)
    run_id = site.publish("t", [memory_artifact()])
    assert assert_problem(send(site, "DELETE", f"/runs/{run_id}"), 401)
    assert assert_problem(submit(site, run_id, "delete"), 401)
    assert send(site, "DELETE", f"/runs/{run_id}", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_a_form_lives_for_a_day_whatever_the_lifetime_of_downloads(make_site: Callable[..., Site]) -> None:
    site = make_site(url_ttl="1s")
    run_id = site.publish("t", [memory_artifact()])
    for age_s, status in ((86400 - 60, 303), (86400 + 5, 403)):
        token = Signer(site.settings, lambda age_s=age_s: time.time() - age_s).action_token(str(run_id))
        assert submit(site, run_id, "pin", token).status_code == status
