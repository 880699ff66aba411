"""The app on waitress, over real sockets."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from dramatiq_diag import Settings, SettingsError
from dramatiq_diag.documents.fields import task_href
from dramatiq_diag.errors import DiagnosticsError
from dramatiq_diag.web.server import Server
from support import PATIENCE_S
from support.web import MEMORY, TOKEN, Site, memory_artifact, memray_artifact, path_of, profile_artifact

GIB = 1 << 30


def fetch(
    server: Server, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


@pytest.fixture
def server(site: Site, start_server: Callable[..., Server]) -> Server:
    return start_server(site.settings)


def test_it_serves_documents_and_files(site: Site, server: Server) -> None:
    site.publish("task-1", [memory_artifact(), profile_artifact()])
    status, headers, body = fetch(server, "/tasks/task-1/profile_artifacts/")
    assert (status, headers["content-type"]) == (200, "application/json")
    urls = json.loads(body)["urls"]
    assert urls["memory_profile"].startswith(f"{server.url}/artifacts/")
    memory = path_of(urls["memory_profile"])
    assert fetch(server, memory)[2] == MEMORY
    assert fetch(server, memory, Range="bytes=2-5")[::2] == (206, MEMORY[2:6])
    assert fetch(server, memory, "HEAD")[1]["content-length"] == str(len(MEMORY))
    status, headers, body = fetch(server, path_of(urls["pyinstrument_profile"]))
    assert (status, headers["content-length"]) == (200, str(len(body)))
    assert fetch(server, "/nowhere")[1]["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "task_id",
    ["a/b", "x/profile_artifacts", "a/", "..", "%2F", "ü", "a\0b", "", "\"'", "x" * 10_000],
    ids=lambda value: ascii(value)[:20],
)
def test_any_string_is_a_task_id_on_the_wire_too(site: Site, server: Server, task_id: str) -> None:
    site.publish(task_id, [memory_artifact()])
    status, _, body = fetch(server, f"{task_href(task_id)}profile_artifacts/")
    assert status == 200
    assert fetch(server, path_of(json.loads(body)["urls"]["memory_profile"]))[2] == MEMORY


@pytest.mark.parametrize(
    "host",
    [
        # Names that an attacker can make point here.
        "evil.example",
        "evil.example:8321",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost:80:evil",
        # Other addresses, and what is no host.
        "127.0.0.2",
        "0.0.0.0",
        "[::2]",
        "",
        "a@localhost",
        "localhost, evil.example",
        "localhost/evil",
        "ü",
    ],
)
@pytest.mark.parametrize("path", ["/tasks/", "/healthz"])
def test_on_loopback_a_foreign_host_gets_nothing(server: Server, host: str, path: str) -> None:
    status, headers, body = fetch(server, path, Host=host.encode().decode("latin-1"))
    assert (status, headers["content-type"]) == (421, "application/problem+json")
    assert json.loads(body)["status"] == 421
    assert fetch(server, path, "HEAD", Host=host.encode().decode("latin-1"))[::2] == (421, b"")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:1", "127.0.0.1", "127.0.0.1:9999", "[::1]:8321", "diag.example:443", "diag.example"],
)
def test_on_loopback_the_names_of_this_machine_and_the_public_one_are_answered(
    make_site: Callable[..., Site], start_server: Callable[..., Server], host: str
) -> None:
    server = start_server(make_site(public_url="https://Diag.example/prefix").settings)
    assert fetch(server, "/tasks/", Host=host)[0] == 200


def test_the_bound_address_is_answered(site: Site, start_server: Callable[..., Server]) -> None:
    assert fetch(start_server(site.settings, host="127.0.0.3"), "/healthz")[0] == 200


def test_it_serves_on_ipv6(site: Site, start_server: Callable[..., Server]) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"there is no IPv6 loopback: {error}")
    server = start_server(site.settings, host="::1")
    assert server.url == f"http://[::1]:{server.port}"
    assert fetch(server, "/healthz")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "diag.example"])
@pytest.mark.parametrize("token", [None, ""])
def test_others_are_not_let_in_without_a_token(tmp_path: Path, host: str, token: str | None) -> None:
    with pytest.raises(SettingsError, match=r"DRAMATIQ_DIAG_API_TOKEN.*--insecure"):
        Server(Settings(data_dir=tmp_path, api_token=token), host, 0)


def test_others_are_let_in_with_a_token_under_any_name(
    make_site: Callable[..., Site], start_server: Callable[..., Server]
) -> None:
    server = start_server(make_site(api_token=TOKEN).settings, host="0.0.0.0")
    assert fetch(server, "/healthz", Host="diag.example")[0] == 200
    assert fetch(server, "/tasks/", Host="diag.example")[0] == 401
    assert fetch(server, "/tasks/", Host="diag.example", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_others_are_let_in_with_a_token_under_the_names_that_are_set(
    make_site: Callable[..., Site], start_server: Callable[..., Server]
) -> None:
    server = start_server(make_site(api_token=TOKEN, allowed_hosts=["diag.example"]).settings, host="0.0.0.0")
    assert fetch(server, "/healthz", Host="diag.example")[0] == 200
    assert fetch(server, "/healthz", Host="evil.example")[0] == 421


def test_others_are_let_in_without_a_token_on_purpose_under_addresses_and_the_machines_name(
    site: Site, start_server: Callable[..., Server]
) -> None:
    server = start_server(site.settings, host="0.0.0.0", insecure=True)
    for host in ("192.0.2.7:8321", "[2001:db8::7]", "localhost", socket.gethostname()):
        assert fetch(server, "/tasks/", Host=host)[0] == 200
    # A page of another site has neither as its name, whatever that points to
    assert fetch(server, "/tasks/", Host="diag.example")[0] == 421


@pytest.mark.parametrize(("size_bytes", "status"), [(1 << 16, 400), ((1 << 16) + 1, 413), (1 << 19, 413)])
def test_a_body_that_is_too_large_is_a_problem_document(server: Server, size_bytes: int, status: int) -> None:
    headers = {"Content-Type": "application/json"}
    found, answered, _ = fetch(server, "/captures/", "POST", b"x" * size_bytes, **headers)
    assert (found, answered["content-type"]) == (status, "application/problem+json")


def test_a_port_that_is_taken_is_a_clear_error(site: Site, server: Server) -> None:
    with pytest.raises(DiagnosticsError, match=rf"Port {server.port} .*--port"):
        Server(site.settings, port=server.port)


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", -1), ("127.0.0.1", 65536), ("not a host", 0), ("x" * 300, 0)])
def test_an_address_that_cannot_be_is_a_clear_error(tmp_path: Path, host: str, port: int) -> None:
    with pytest.raises(SettingsError):
        Server(Settings(data_dir=tmp_path), host, port, insecure=True)


def test_closing_frees_port_and_threads_and_may_be_repeated(site: Site) -> None:
    before = set(threading.enumerate())
    server = Server(site.settings, port=0).start()
    assert fetch(server, "/tasks/")[0] == 200
    idle = socket.create_connection((server.host, server.port))
    server.close()
    server.close()
    idle.close()
    assert set(threading.enumerate()) <= before
    Server(site.settings, port=server.port).close()


def test_a_server_that_never_ran_closes(site: Site) -> None:
    with Server(site.settings, port=0) as server:
        assert server.port > 0
    with Server(site.settings, port=0).start():
        pass


def _spawn(settings: Settings) -> tuple[subprocess.Popen[str], int]:
    script = (
        "import sys; from dramatiq_diag import Settings; from dramatiq_diag.web.server import serve\n"
        "serve(Settings(data_dir=sys.argv[1]), port=0, on_ready=lambda server: print(server.port, flush=True))\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(settings.data_dir)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serving_in_good_order(site: Site, signal_number: signal.Signals) -> None:
    process, port = _spawn(site.settings)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    process.send_signal(signal_number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, errors) == (0, "")


def _peak_rss_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("headers", [{}, {"Range": f"bytes={3 * GIB // 4}-{GIB - 2}"}], ids=["whole", "range"])
def test_a_gibibyte_is_sent_in_constant_memory(site: Site, headers: dict[str, str]) -> None:
    path = site.publish_one(memray_artifact())
    os.truncate(site.blob(path), GIB)  # Sparse: it takes no room on the disk.
    site.change(path, size_bytes=GIB)
    process, port = _spawn(site.settings)
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
        connection.request("GET", path, headers={"Range": "bytes=0-9"})
        assert connection.getresponse().read() == b"memray\0cap"
        before = _peak_rss_bytes(process.pid)
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        buffer, received = bytearray(1 << 20), 0
        while count := answer.readinto(buffer):
            received += count
        connection.close()
        assert received == int(answer.headers["Content-Length"]) == (GIB // 4 - 1 if headers else GIB)
        assert _peak_rss_bytes(process.pid) - before < 32 << 20
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


def test_a_client_that_leaves_midway_leaves_no_open_file(site: Site, start_server: Callable[..., Server]) -> None:
    path = site.publish_one(memray_artifact())
    os.truncate(site.blob(path), GIB)
    site.change(path, size_bytes=GIB)
    server = start_server(site.settings)
    connection = http.client.HTTPConnection(server.host, server.port, timeout=PATIENCE_S)
    connection.request("GET", path)
    assert connection.getresponse().read(100).startswith(b"memray")
    connection.sock.close()
    server.close()
    open_files = {os.readlink(f"/proc/self/fd/{name}") for name in _descriptors()} if sys.platform == "linux" else set()
    assert str(site.blob(path)) not in open_files


def _descriptors() -> list[str]:
    return [name for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")]
