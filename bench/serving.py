"""A web server in a process of its own, and how long its answers take."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dramatiq_diag import Settings

TYPES = {"JSON": "application/json", "HTML": "text/html"}


@contextmanager
def served(settings: Settings) -> Iterator[http.client.HTTPConnection]:
    """Serves a store. Yields a connection to its server."""
    with serving(settings) as (_, connection):
        yield connection


@contextmanager
def serving(settings: Settings) -> Iterator[tuple[subprocess.Popen[str], http.client.HTTPConnection]]:
    """Serves a store. Yields the process of the server, and a connection to it."""
    environment = {
        "DRAMATIQ_DIAG_DATA_DIR": str(settings.data_dir),
        "DRAMATIQ_DIAG_DATABASE_URL": settings.database_url or "",
    }
    command = [sys.executable, "-c", "from dramatiq_diag.cli import main; main()", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | environment) as server:  # noqa: S603
        try:
            assert server.stderr is not None
            address = next(found for line in server.stderr if (found := re.search(r"http://([0-9.]+):([0-9]+)", line)))
            connection = http.client.HTTPConnection(address[1], int(address[2]), timeout=60)
            yield server, connection
            connection.close()
        finally:
            server.terminate()


def answer_ms(connection: http.client.HTTPConnection, path: str, media_type: str) -> tuple[int, float]:
    """Asks once. Returns: The status, and the milliseconds until the whole answer was there."""
    started = time.perf_counter()
    connection.request("GET", path, headers={"Accept": media_type})
    answer = connection.getresponse()
    answer.read()
    return answer.status, (time.perf_counter() - started) * 1000


def answers_ms(connection: http.client.HTTPConnection, path: str, media_type: str, count: int) -> list[float]:
    """Asks over and over, after once that does not count. Returns: The milliseconds of each answer."""
    spent_ms = []
    for _ in range(count + 1):
        status, answer = answer_ms(connection, path, media_type)
        assert status == 200, f"{path} answers {status}"
        spent_ms.append(answer)
    return spent_ms[1:]
