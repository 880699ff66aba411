"""A task that hangs, for tests that look at it from outside."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hanging(tasks: Any, **options: Any) -> Iterator[tuple[str, str]]:
    """Lets a task wait for an answer that comes only at the end. Yields: The task's id, and the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        message = tasks.actor(ask_silent_server, **options).send(server.getsockname()[1])
        connection, _ = server.accept()
        try:
            yield message.message_id, f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            connection.close()
            tasks.finish()


def ask_silent_server(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.recv(1)  # It hangs here.


def is_line_that_hangs(frame: dict[str, Any]) -> bool:
    """Returns: Whether a frame of a document is the call that hangs."""
    return frame["function"] == "ask_silent_server" and "It hangs here" in frame["source"]
