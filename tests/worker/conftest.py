"""Fixtures of the tests of a worker process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from dramatiq_diag.worker.captures import CaptureClient
from dramatiq_diag.worker.tuning import Tuning
from support import eventually
from support.captures import knows
from support.tasks import Bench


@pytest.fixture
def soon():
    """A worker looks at captures without a pause worth mentioning."""
    return Tuning(attention_s=0.1)


@pytest.fixture
def keep_knowing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Bench], None]:
    """Waits until a worker knows of a capture, and lets it learn nothing more: it would see that no slot is left."""
    look, lock, over = CaptureClient.look, threading.Lock(), threading.Event()

    def look_until_over(client: CaptureClient, session: Session) -> None:
        with lock:
            if not over.is_set():
                look(client, session)

    def keep(tasks: Bench) -> None:
        eventually(lambda: knows(tasks), "the worker knows of it")
        with lock:
            over.set()

    monkeypatch.setattr(CaptureClient, "look", look_until_over)
    return keep
