"""The app under other servers than ours: gunicorn, and uWSGI, which embeds Python."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from dramatiq_diag.errors import NotInstalledError
from dramatiq_diag.runtime.interpreter import python_executable
from support import PATIENCE_S, eventually
from support.web import MEMORY, TOKEN, Site, memory_artifact, path_of, profile_artifact

APP = """
from dramatiq_diag import Settings
from dramatiq_diag.web import create_app

application = create_app(Settings(data_dir={data_dir!r}, api_token={token!r}))
"""

BIN = Path(sys.executable).parent
COMMANDS = {
    "gunicorn": [str(BIN / "gunicorn"), "--bind", "127.0.0.1:0", "--threads", "2", "served:application"],
    "uwsgi": [
        str(BIN / "uwsgi"),
        *("--http-socket", "127.0.0.1:0", "--wsgi", "served", "--need-app", "--master", "--die-on-term"),
    ],
}


@pytest.fixture(params=[*COMMANDS])
def port(request: pytest.FixtureRequest, site: Site, tmp_path: Path) -> Iterator[int]:
    """The port of a server of each kind, which is ended after the test."""
    (tmp_path / "served.py").write_text(APP.format(data_dir=str(site.settings.data_dir), token=TOKEN))
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(COMMANDS[request.param], cwd=tmp_path, stdout=file, stderr=file)
    try:
        found = eventually(lambda: re.search(r"127\.0\.0\.1:([1-9][0-9]+)", log.read_text()), "the server has a port")
        yield int(found[1])
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _get(port: int, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_serves_documents_files_and_reports(site: Site, port: int) -> None:
    site.publish("a/b", [memory_artifact(), profile_artifact()])
    eventually(lambda: _answers(port), "the server answers")

    status, body = _get(port, "/tasks/a%2Fb/profile_artifacts/")
    assert status == 200
    document = json.loads(body)
    assert _get(port, path_of(document["urls"]["memory_profile"])) == (200, MEMORY)
    assert b"<html" in _get(port, path_of(document["urls"]["pyinstrument_profile"]))[1]
    for artifact in document["artifacts"]:
        if artifact["name"] == "memory_profile":
            report = f"/artifacts/{artifact['artifact_id']}/reports/svg"
            status, body = eventually(lambda path=report: _made(_get(port, path)), "the report is made")
            assert (status, body[:4]) == (200, b"<svg")
    assert _get(port, "/tasks/", Host="evil.example")[0] == 421
    assert _get(port, "/tasks/", Authorization="Bearer wrong")[0] == 401


def _answers(port: int) -> bool:
    try:
        return _get(port, "/healthz")[0] == 200
    except OSError:
        return False


def _made(answer: tuple[int, bytes]) -> tuple[int, bytes] | None:
    return None if answer[0] == 202 else answer


def test_a_server_that_embeds_python_finds_the_interpreter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "uwsgi"))
    code = "import sys; print(*sys.version_info[:2], sys.prefix)"
    said = subprocess.run([python_executable(), "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == [*map(str, sys.version_info[:2]), sys.prefix]


def test_a_missing_interpreter_is_an_error_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: str(tmp_path))
    with pytest.raises(NotInstalledError, match="'/usr/bin/uwsgi' embeds Python"):
        python_executable()
