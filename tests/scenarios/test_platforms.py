"""Platforms that lack something: what cannot work is said, and nothing breaks."""

from __future__ import annotations

import subprocess
import sys
import threading

import dramatiq
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics

WITHOUT_LOCKS = """
import sys
sys.modules["fcntl"] = None
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics

broker = StubBroker()
broker.add_middleware(Diagnostics())
print(dramatiq.actor(lambda: None, actor_name="work", broker=broker).send().actor_name)
"""


def test_a_producer_needs_no_posix_locks():
    done = subprocess.run([sys.executable, "-c", WITHOUT_LOCKS], capture_output=True, text=True, check=True)

    assert done.stdout == "work\n"


def test_a_worker_on_windows_says_that_it_collects_nothing(settings, monkeypatch, caplog):
    broker = StubBroker()
    diagnostics = Diagnostics(settings(task_diagnostics=["memory"]))
    threads = threading.active_count()

    monkeypatch.setattr(sys, "platform", "win32")
    diagnostics.before_worker_boot(broker, dramatiq.Worker(broker))
    monkeypatch.undo()

    assert "POSIX locks" in caplog.text
    assert diagnostics.process is None
    assert threading.active_count() == threads
