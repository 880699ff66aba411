"""Provides the demo's input: the sources of Python's standard library, as files and over HTTP."""

from __future__ import annotations

import sysconfig
import threading
import time
import tokenize
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: The latency of the server in seconds: about that of a service in the same town.
_LATENCY_S = 0.015


def source_dir() -> Path:
    """Returns: The directory of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def source_files(count: int) -> list[Path]:
    """Returns: The first *count* modules of the standard library, by name."""
    return sorted(source_dir().glob("*.py"))[:count]


def read_source(path: Path) -> str:
    """Returns: The text of a module, in the encoding that it declares."""
    with tokenize.open(path) as file:
        return file.read()


@contextmanager
def served_sources() -> Iterator[int]:
    """Serves the sources over HTTP on the loopback interface. Yields the port."""
    handler = partial(_Handler, directory=str(source_dir()))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="demo.sources", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(_LATENCY_S)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's.
        """Logs nothing: the demo has an output of its own."""
