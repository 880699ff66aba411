"""The web part behind the documented nginx, and mounted in the documented FastAPI application."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dramatiq_diag import Settings
from dramatiq_diag.web.server import Server
from support import PATIENCE_S, eventually, missing
from support.samples import sample_of
from support.web import MEMORY, TOKEN, Site, memory_artifact

INTEGRATIONS = "docs/integrations.md"

CONFIGURATION = """
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    scgi_temp_path {directory}/scgi;
    uwsgi_temp_path {directory}/uwsgi;
    server {{
        listen 127.0.0.1:{port};
        {location}
    }}
}}
"""


def _nginx() -> str:
    return shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin") or missing(
        "nginx is not installed", "On Debian: apt-get install nginx-light"
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def _get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.fixture
def port() -> int:
    """The port of the proxy."""
    return _free_port()


@pytest.fixture
def site(make_site: Callable[..., Site], port: int) -> Site:
    """A site that knows its address at the proxy."""
    return make_site(public_url=f"http://diag.example:{port}/diag")


@pytest.fixture
def proxy(site: Site, port: int, start_server: Callable[..., Server], tmp_path: Path) -> Iterator[None]:
    """The documented nginx in front of the site."""
    command = [_nginx(), "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]
    location = sample_of(INTEGRATIONS, "nginx").replace(
        "127.0.0.1:8321", f"127.0.0.1:{start_server(site.settings).port}"
    )
    text = CONFIGURATION.format(directory=tmp_path, port=port, location=location)
    (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
    with (tmp_path / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        eventually(lambda: _listens(process, port), "nginx answers")
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S).close()
    except OSError:
        return False
    return True


@pytest.mark.usefixtures("proxy")
def test_behind_the_documented_nginx_documents_files_and_pages_lead_through_it(site: Site, port: int) -> None:
    site.publish("a/b", [memory_artifact()])
    host = f"diag.example:{port}"

    status, body = _get(port, "/diag/tasks/", Host=host)
    assert status == 200
    [run] = json.loads(body)["runs"]
    assert run["href"] == "/diag/tasks/a%2Fb/"
    status, page = _get(port, run["href"], Host=host, Accept="text/html")
    assert status == 200
    for path in set(re.findall(r'(?:href|src)="(/[^"#]*)"', page.decode())):
        assert path.startswith("/diag/")
        if not re.search(r"/reports/|/charts\.js", path):  # They take seconds to make.
            assert _get(port, path, Host=host)[0] == 200, path
    url = urlsplit(json.loads(_get(port, run["href"] + "profile_artifacts/", Host=host)[1])["urls"]["memory_profile"])
    assert (url.netloc, url.path.split("/")[1]) == (host, "diag")
    assert _get(port, f"{url.path}?{url.query}", Host=host) == (200, MEMORY)
    assert _get(port, f"{url.path}?{url.query}", Host=host, Range="bytes=2-5") == (206, MEMORY[2:6])
    assert _get(port, "/diag/tasks/", Host="evil.example")[0] == 421


def test_the_documented_fastapi_application_serves_the_web_part(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    site = make_site()
    site.publish("a/b", [memory_artifact()])
    monkeypatch.setenv(Settings.variable("data_dir"), str(site.settings.data_dir))
    monkeypatch.setenv(Settings.variable("api_token"), TOKEN)
    names: dict[str, Any] = {}
    exec(sample_of(INTEGRATIONS, "python", "# main.py"), names)

    [mounted] = [route.app.app for route in names["app"].routes if route.path == "/diag"]
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(mounted), TestClient(names["app"], base_url="http://localhost", headers=headers) as client:
        assert client.get("/diag/tasks/", headers={"Authorization": "Bearer wrong"}).status_code == 401
        [run] = client.get("/diag/tasks/").json()["runs"]
        assert run["href"] == "/diag/tasks/a%2Fb/"
        url = client.get(run["href"] + "profile_artifacts/").json()["urls"]["memory_profile"]
        assert url.startswith("http://localhost/diag/artifacts/")
        assert client.get(url).content == MEMORY
        page = client.get(run["href"], headers={"Accept": "text/html"})
        assert page.status_code == 200
        assert 'href="/diag/tasks/"' in page.text
