"""Servers of object stores: S3 by moto, Azure by Azurite, and Google's dialect of S3 in front of moto."""

from __future__ import annotations

import base64
import hmac
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from dramatiq_diag.store.blobs.objects import ObjectBlobStore

from . import PATIENCE_S, ROOT, eventually, missing

#: The account that Azurite has, which Microsoft documents.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


#: Blobs in a bucket of these servers, which may be slow to answer on a busy machine.
patient_blobs = partial(ObjectBlobStore, timeout_s=PATIENCE_S, request_timeout_s=PATIENCE_S)


class ObjectServer(Protocol):
    """A server of an object store, on this machine."""

    endpoint: str

    def make_bucket(self) -> str:
        """Returns: The URL of a new bucket, with a prefix."""

    def variables(self, endpoint: str) -> dict[str, str]:
        """Returns: The variables by which a client finds the server, or a proxy before it, and is let in."""


class S3:
    """moto, over HTTP."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    def make_bucket(self) -> str:
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        _put(f"{self.endpoint}/{name}", {})
        return f"s3://{name}/some/prefix"

    def variables(self, endpoint: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": endpoint,
        }


class Azure:
    """Azurite, over HTTP."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"http://127.0.0.1:{port}"

    def make_bucket(self) -> str:
        name = f"container-{uuid.uuid4().hex[:12]}"
        path = f"/{_ACCOUNT}/{name}"
        date = f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S GMT}"
        headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06"
        signed = "PUT" + "\n" * 12 + f"{headers}\n/{_ACCOUNT}{path}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(_KEY), signed.encode(), "sha256")).decode()
        _put(
            f"{self.endpoint}{path}?restype=container",
            {
                "x-ms-date": date,
                "x-ms-version": "2021-08-06",
                "Authorization": f"SharedKey {_ACCOUNT}:{signature}",
            },
        )
        return f"az://{name}/some/prefix"

    def variables(self, endpoint: str) -> dict[str, str]:
        return {
            "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
            "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
            "AZURE_ENDPOINT": f"{endpoint}/{_ACCOUNT}",
        }


class Google:
    """A translator in front of moto: no emulator of Google's XML API comes from a registry, and that is nearly S3's.

    Parameters:
      s3: The server that has the buckets.
      directory: For the file of the service account, which says where the server is.
    """

    def __init__(self, s3: S3, directory: Path) -> None:
        self._s3 = s3
        self._account = directory / "service-account.json"
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Translator, urlsplit(s3.endpoint).netloc))
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def make_bucket(self) -> str:
        return self._s3.make_bucket().replace("s3://", "gs://")

    def variables(self, endpoint: str) -> dict[str, str]:
        account = {"gcs_base_url": endpoint, "disable_oauth": True}
        self._account.write_text(
            json.dumps(account | dict.fromkeys(("client_email", "private_key", "private_key_id"), ""))
        )
        return {"GOOGLE_SERVICE_ACCOUNT": str(self._account)}


class _Translator(BaseHTTPRequestHandler):
    """Answers as Google does: a condition has another name, and what is not there cannot be deleted."""

    protocol_version = "HTTP/1.1"
    #: moto wants some account; it compares no signature.
    _AUTHORIZATION = (
        "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x"
    )

    def __init__(self, target: str, *args: Any) -> None:
        self._target = target
        super().__init__(*args)

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "authorization")}
        headers |= {"Authorization": self._AUTHORIZATION, "Content-Length": str(len(body))}
        if self.headers.get("x-goog-if-generation-match") == "0":
            headers["If-None-Match"] = "*"
        path, _, query = self.path.partition("?")
        url = f"{unquote(path)}?{query}"
        if self.command == "DELETE" and self._ask("HEAD", url, b"", headers)[0] == 404:
            status, answered, data = 404, [], b""
        else:
            status, answered, data = self._ask(self.command, url, body, headers)
        self.send_response(status)
        for name, value in answered:
            if name.lower() not in ("transfer-encoding", "connection", "server", "date", "content-length"):
                self.send_header(name, value)
        length = dict(answered).get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(data)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _answer  # noqa: N815

    def _ask(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(HTTPConnection(self._target, timeout=PATIENCE_S)) as connection:
            connection.request(method, url, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Logs nothing."""


@contextmanager
def google_server(s3: S3, directory: Path) -> Iterator[Google]:
    google = Google(s3, directory)
    thread = threading.Thread(target=google.server.serve_forever, daemon=True)
    thread.start()
    yield google
    google.server.shutdown()
    google.server.server_close()
    thread.join()


@contextmanager
def s3_server() -> Iterator[S3]:
    port = free_port()
    with _running([sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)], port):
        yield S3(port)


@contextmanager
def azure_server() -> Iterator[Azure]:
    command = shutil.which("azurite-blob", path=f"{ROOT}/.azurite/node_modules/.bin{os.pathsep}{os.environ['PATH']}")
    if command is None:
        missing("Azure is not tested: there is no Azurite", "npm install --prefix .azurite azurite@3.35.0")
    port = free_port()
    options = ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
    with _running([command, "--blobHost", "127.0.0.1", "--blobPort", str(port), *options], port):
        yield Azure(port)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path("/")) as process:
        try:
            eventually(lambda: process.poll() is not None or _answers(port), "the server of the object store answers")
            assert process.poll() is None
            yield
        finally:
            process.terminate()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _put(url: str, headers: dict[str, str]) -> None:
    request = urllib.request.Request(url, method="PUT", headers={"Content-Length": "0"} | headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.status in (200, 201)
