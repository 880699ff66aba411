"""How the sampler's thread asks to be woken: for itself alone, and not where that would end the process."""

from __future__ import annotations

import ctypes
import platform
import signal
import subprocess
import sys
import threading

import pytest

from dramatiq_diag.runtime.wakeup import wake_promptly
from support import TESTS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the calls are Linux's")

_FILTERED = pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the numbers are theirs")

_WORKER = """
import json, sys, time
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
diagnostics = Diagnostics(Settings(
    data_dir=sys.argv[1], task_diagnostics=["memory", "pyinstrument", "memray"], cleanup_interval=0, watchdog=False))
broker.add_middleware(diagnostics)

@dramatiq.actor(broker=broker, max_retries=0)
def work():
    ends = time.perf_counter() + 0.2
    while time.perf_counter() < ends:
        json.dumps(list(range(1000)))

worker = dramatiq.Worker(broker, worker_threads=1)
worker.start()
print(work.send().message_id, flush=True)
broker.join("default")
worker.join()
worker.stop()
broker.close()
"""


def under_filter(*command: str) -> subprocess.CompletedProcess[str]:
    script = str(TESTS / "support" / "without_resources.py")
    return subprocess.run([sys.executable, script, sys.executable, *command], capture_output=True, text=True)


def test_waking_promptly_is_a_matter_of_its_own_thread():
    libc, get_timer_slack = ctypes.CDLL(None), 30
    seen: list[int] = []

    def ask() -> None:
        wake_promptly()
        seen.append(libc.prctl(get_timer_slack))

    before = libc.prctl(get_timer_slack)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()

    assert seen == [1000]
    assert libc.prctl(get_timer_slack) == before != 1000


@_FILTERED
def test_the_filter_of_these_tests_kills():
    done = under_filter("-c", "import os; os.setpriority(os.PRIO_PROCESS, 0, 1)")

    assert done.returncode == -signal.SIGSYS


@_FILTERED
def test_a_worker_that_may_not_set_priorities_profiles_its_tasks(settings, stored, tmp_path):
    given = settings(task_diagnostics=["memory", "pyinstrument", "memray"])

    done = under_filter("-W", "error", "-c", _WORKER, str(given.data_dir))

    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    artifacts = stored(given).artifacts(done.stdout.strip())
    assert {name: str(artifact.status) for name, artifact in artifacts.items()} == {
        "memory_profile": "stored",
        "pyinstrument_profile": "stored",
        "memray_profile": "stored",
    }
