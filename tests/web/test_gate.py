"""What is refused before anything of a request is parsed: long headers, foreign hosts; and an app without a token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from falcon.testing import StartResponseMock, TestClient, create_environ

from dramatiq_diag import Settings, SettingsError
from dramatiq_diag.web import create_app
from dramatiq_diag.web.app import DiagnosticsApp
from support.web import HOST, TOKEN, Site, assert_problem, memory_artifact

#: Names of headers that something parses.
PARSED = (
    *("Accept", "Accept-Encoding", "Authorization", "Content-Type", "Cookie", "Forwarded", "If-Match"),
    *("If-Modified-Since", "If-None-Match", "If-Range", "Origin", "Range", "Sec-Fetch-Site"),
    *("X-Forwarded-Host", "X-Forwarded-For"),
)

#: What a header is made of, again and again, after how it begins.
SHAPES = (
    ("", "a"),
    ('text/html;a="', ";"),
    ("text/html", ";"),
    ("text/html", ";a=b"),
    ("text/html", ","),
    ("", "text/html;q=0.1,"),
    ("", '"'),
    ('for="', '\\"'),
    ("", 'for="[::1]";'),
    ("bytes=", "0-1,"),
    ("Basic ", "A"),
    ("", "(" * 10),
    ('text/html;a="', '\\";,='),
)

ADDRESSES = (("GET", "/tasks/"), ("POST", "/captures/"), ("POST", "/runs/x/forms/pin"), ("GET", "/artifacts/x/y"))


@pytest.fixture(params=[TOKEN, None], ids=["token", "open"])
def app(request: pytest.FixtureRequest, make_site: Callable[..., Site]) -> DiagnosticsApp:
    return make_site(api_token=request.param).app


def _ask(app: DiagnosticsApp, method: str, path: str, name: str, value: str) -> int:
    """Asks as a server would that does not bound anything. Returns: The status."""
    environ = create_environ(path, method=method, headers={"Host": HOST})
    key = name.upper().replace("-", "_")
    environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    answer = StartResponseMock()
    for _ in _body(app, environ, answer):
        pass
    return int(str(answer.status)[:3])


def _body(app: DiagnosticsApp, environ: dict[str, Any], answer: StartResponseMock) -> Iterable[bytes]:
    return app(environ, answer)


@pytest.mark.parametrize("name", PARSED)
def test_no_header_costs_more_than_its_length(app: DiagnosticsApp, name: str) -> None:
    """CPU time, so that what else the machine does is not counted; a quadratic parser takes minutes for this."""
    _ask(app, "GET", "/tasks/", name, "")
    statuses = set()
    before_s = time.process_time()
    for start, part in SHAPES:
        for length in (1000, 15_000, 250_000):
            value = start + part * ((length - len(start)) // len(part))
            for method, path in ADDRESSES:
                statuses.add(_ask(app, method, path, name, value))
    spent_s = time.process_time() - before_s

    assert not statuses & {500, 503}
    assert 431 in statuses
    assert spent_s < 10


def test_an_accept_within_the_limit_costs_no_more_than_its_length(app: DiagnosticsApp) -> None:
    """Falcon's parser takes about 0.2 s for each of these."""
    _ask(app, "GET", "/tasks/", "Accept", "")
    before_s = time.process_time()
    for _ in range(100):
        _ask(app, "GET", "/tasks/", "Accept", 'text/html;a="' + ";" * 16_000)
    assert time.process_time() - before_s < 4


@pytest.mark.parametrize("path", ["/tasks/", "/healthz", "/nowhere"])
@pytest.mark.parametrize("count", [1, 20, 400])
def test_the_headers_have_a_limit_together(site: Site, path: str, count: int) -> None:
    fill = 16 * 1024 // count
    within = {f"X-{number}": "a" * max(fill - 100, 1) for number in range(count - 1)}
    beyond = {f"X-{number}": "a" * fill for number in range(count)}
    assert site.get(path, headers={"Host": HOST, **within}).status_code != 431
    assert "16384 bytes" in assert_problem(site.get(path, headers={"Host": HOST, **beyond}), 431)


def test_a_browser_gets_a_page_and_an_accept_that_is_too_long_the_document(site: Site) -> None:
    site.publish("task-1", [memory_artifact()])
    accept = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
    for given, content_type in ((accept, "text/html; charset=utf-8"), (accept + ",a/b" * 300, "application/json")):
        assert site.get("/tasks/", headers={"Host": HOST, "Accept": given}).headers["content-type"] == content_type


# Which hosts.


@pytest.mark.parametrize("token", [TOKEN, None])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "10.0.0.1", "localhost/evil", "", "ü"])
def test_an_app_of_any_server_answers_under_no_foreign_host(tmp_path: Path, token: str | None, host: str) -> None:
    app = create_app(Settings(data_dir=tmp_path, api_token=token), insecure=True)
    result = TestClient(app).simulate_get("/tasks/", headers={"Host": host, "Authorization": f"Bearer {TOKEN}"})
    assert "DRAMATIQ_DIAG_ALLOWED_HOSTS" in assert_problem(result, 421)
    app.close()


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:80", "[::1]:1", "diag.example", "ops.internal:8080", "10.0.0.7"]
)
def test_it_answers_under_its_own_names(make_site: Callable[..., Site], host: str) -> None:
    site = make_site(public_url="https://Diag.example/x", allowed_hosts="ops.internal, 10.0.0.7")
    assert site.get("/tasks/", headers={"Host": host}).status_code == 200


def test_any_host_can_be_allowed(make_site: Callable[..., Site]) -> None:
    assert make_site(allowed_hosts=["*"]).get("/tasks/", headers={"Host": "anything.example"}).status_code == 200


@pytest.mark.parametrize("names", ["a b", "http://a.example", "a.example:80", "*.example", "a/b", "ü", "a@b"])
def test_a_malformed_host_is_refused(names: str) -> None:
    with pytest.raises(SettingsError, match=r"DRAMATIQ_DIAG_ALLOWED_HOSTS.*allowed: names of hosts"):
        Settings(allowed_hosts=[names])


# Which apps.


@pytest.mark.parametrize("token", [None, ""])
def test_an_app_without_a_token_is_made_on_purpose_alone(tmp_path: Path, token: str | None) -> None:
    settings = Settings(data_dir=tmp_path / "data", api_token=token)
    with pytest.raises(SettingsError, match=r"DRAMATIQ_DIAG_API_TOKEN.*insecure=True"):
        create_app(settings)
    assert not (tmp_path / "data").exists()

    create_app(settings, insecure=True).close()
    create_app(Settings(data_dir=tmp_path / "data", api_token=TOKEN)).close()


@pytest.mark.parametrize("length", [1, 15])
def test_a_short_token_is_refused(length: int) -> None:
    with pytest.raises(SettingsError, match=r"DRAMATIQ_DIAG_API_TOKEN: the given value .*at least 16 characters"):
        Settings(api_token="x" * length)
    assert Settings(api_token="x" * 16).api_token is not None
