"""Who may ask."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from support.web import MEMORY, Site, assert_problem, memory_artifact, path_of

TOKEN = "s3cret-tökén:with-colon"


@pytest.fixture
def guarded(make_site: Callable[..., Site]) -> Site:
    return make_site(api_token=TOKEN)


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _wire(value: str) -> str:
    """A header's UTF-8 bytes the way WSGI has them."""
    return value.encode().decode("latin-1")


@pytest.mark.parametrize(
    "path",
    ["/tasks/", "/tasks/task-1/", "/tasks/task-1/profile_artifacts/", "/nowhere", "/", "/healthz/x", "//healthz"],
)
@pytest.mark.parametrize(
    "authorization",
    [
        # None, or of no known kind.
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic",
        "Digest username=x",
        "Negotiate ====",
        TOKEN.encode().decode("latin-1"),
        # Wrong.
        "Bearer wrong",
        f"Bearer {TOKEN[:-1]}".encode().decode("latin-1"),
        _basic("", "wrong"),
        _basic(TOKEN, ""),
        # Broken.
        "Basic ###",
        "Basic " + base64.b64encode(b"no-colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
    ],
)
def test_without_the_token_nothing_is_answered(guarded: Site, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    result = guarded.get(path, headers=headers)
    assert "API token" in assert_problem(result, 401)
    assert "Bearer realm=" in result.headers["www-authenticate"]
    assert "Basic realm=" in result.headers["www-authenticate"]


@pytest.mark.parametrize(
    "authorization", [_wire(f"Bearer {TOKEN}"), _wire(f"bearer  {TOKEN}"), _basic("", TOKEN), _basic("anyone", TOKEN)]
)
def test_the_token_opens_all(guarded: Site, authorization: str) -> None:
    headers = {"Authorization": authorization}
    guarded.publish("task-1", [memory_artifact()])
    assert guarded.get("/tasks/", headers=headers).status_code == 200
    assert guarded.get("/tasks/task-1/", headers=headers).status_code == 200
    assert_problem(guarded.get("/nowhere", headers=headers), 404)


def test_the_metrics_token_opens_the_metrics_and_nothing_else(make_site: Callable[..., Site]) -> None:
    site = make_site(api_token=TOKEN, metrics_token="for-prometheus-only")
    headers = {"Authorization": "Bearer for-prometheus-only"}

    assert site.get("/metrics", headers=headers).status_code == 200
    assert site.get("/metrics/", headers=headers).status_code == 200
    assert site.get("/metrics", headers={"Authorization": _wire(f"Bearer {TOKEN}")}).status_code == 200
    for path in ("/tasks/", "/", "/metrics/x", "/nowhere"):
        assert_problem(site.get(path, headers=headers), 401)
    assert_problem(site.get("/metrics"), 401)
    assert_problem(site.get("/metrics", headers={"Authorization": "Bearer wrong"}), 401)


def test_without_a_metrics_token_the_metrics_need_the_api_token(guarded: Site) -> None:
    assert_problem(guarded.get("/metrics", headers={"Authorization": "Bearer "}), 401)
    assert_problem(guarded.get("/metrics"), 401)


def test_signed_downloads_and_health_are_open(guarded: Site) -> None:
    path = guarded.publish_one(memory_artifact())
    assert guarded.get(path).content == MEMORY
    assert guarded.get("/healthz").status_code == 200
    assert guarded.get("/healthz/").status_code == 200
    assert_problem(guarded.get(path.partition("?")[0]), 403)


@pytest.mark.parametrize("path", ["/artifacts/../tasks/", "/artifacts/..%2Ftasks/", "/artifacts/x/../../tasks/task-1/"])
def test_no_detour_leads_past_the_token(guarded: Site, path: str) -> None:
    assert guarded.get(path).status_code in (403, 404)


@pytest.mark.parametrize("token", [None, ""])
def test_without_a_token_set_all_is_open(make_site: Callable[..., Site], token: str | None) -> None:
    site = make_site(api_token=token)
    site.publish("task-1", [memory_artifact()])
    urls = site.get("/tasks/task-1/profile_artifacts/").json["urls"]
    assert site.get(path_of(urls["memory_profile"])).content == MEMORY
