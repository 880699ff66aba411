"""What any test may need: where the tests are, how long they wait, and what they do where something is missing."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

#: The directory of the tests, and that of the project.
TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent

#: Longest wait for something that happens in another thread or process, in seconds; no test waits it out.
PATIENCE_S = 180.0

RABBITMQ_URL = os.environ.get("DRAMATIQ_DIAG_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672")


def missing(what: str, remedy: str) -> NoReturn:
    """Skips where a newcomer lacks a service, and fails where continuous integration does."""
    text = f"{what}. {remedy}"
    if os.environ.get("CI"):
        pytest.fail(text)
    pytest.skip(text, allow_module_level=True)


def eventually(condition: Callable[[], Any], what: str) -> Any:
    """Polls another process or thread until the condition holds. Returns: What the condition gave."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < give_up_at, f"never happened: {what}"
        time.sleep(0.02)
    return found


@contextmanager
def program(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Runs a program, and waits for its end. It is killed when the test fails: it may be waiting for something."""
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def encodable(data: Any) -> Any:
    """Returns: The same dicts, lists and strings, with lone surrogates escaped."""
    if isinstance(data, dict):
        return {encodable(key): encodable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)(map(encodable, data))
    return data.encode("utf-8", "backslashreplace").decode() if isinstance(data, str) else data


def python_path(directory: Path) -> str:
    """Returns: A `PYTHONPATH` that begins with the directory; what it was before comes after it."""
    return os.pathsep.join(filter(None, (str(directory), os.environ.get("PYTHONPATH"))))
