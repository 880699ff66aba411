"""What the collectors of a killed worker left."""

from __future__ import annotations

import re
from pathlib import Path

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.collectors import peak_of, rows_of

# Killed.

_KILLED = """
import sys, threading, time
from dramatiq import Worker, actor
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(
    task_diagnostics=["memory", "memray", "pyinstrument"], data_dir=sys.argv[1], memory_interval=0.02,
    pyinstrument_interval=0.001, cleanup_interval=0, watchdog=False)))

def allocate_pages(megabytes):
    return [b"x" * (1 << 20) for _ in range(megabytes)]

@actor(broker=broker)
def hang():
    pages = allocate_pages(30)
    time.sleep(0.2)
    print("hanging", flush=True)
    while True:
        time.sleep(1)

message = hang.send()
print(message.message_id, flush=True)
Worker(broker, worker_threads=1).start()
threading.Event().wait()
"""


def has_grown(spool: Path) -> bool:
    """Returns: Whether the memory log of the only run has samples after its first moments, and of its pages."""
    rows = [row for path in spool.glob("*/*.entry") for row in re.findall(r"([\d.]+)\\t([\d.]+)\\n", path.read_text())]
    return bool(rows) and float(rows[-1][0]) >= 0.15 and float(rows[-1][1]) - float(rows[0][1]) > 25


def test_what_a_killed_worker_left_is_published_by_another(settings, stored, python, run_worker, bench):
    given = settings(task_diagnostics=["memory"], memory_interval=0.02)

    # Given a worker that is killed while it runs a task
    process = python(_KILLED, str(given.data_dir))
    task_id = process.stdout.readline().strip()
    assert process.stdout.readline() == "hanging\n"
    eventually(lambda: has_grown(given.spool), "there is a sample of the pages")
    process.kill()
    process.wait(PATIENCE_S)

    # When another worker comes by on the same disk
    with bench(given):
        pass

    # Then the run is interrupted, and each artifact is what was there, or says why there is none
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.INTERRUPTED
    assert run.pid == process.pid
    assert run.peak_rss_bytes > 30 * MIB
    artifacts = stored(given).artifacts(task_id)
    assert set(artifacts) == {"memory_profile", "memray_profile", "pyinstrument_profile"}
    assert all("died" in artifact.reason for artifact in artifacts.values())
    # The memory log goes up to the last sample
    rows = rows_of(stored(given).data(task_id, "memory_profile").decode())
    assert artifacts["memory_profile"].status == ArtifactStatus.PARTIAL
    assert rows[-1][0] >= 0.15
    # So does the duration, by the time of the entry's file, which the kernel notes every few milliseconds.
    assert run.duration_ms >= 1000 * rows[-1][0] - 20
    assert rows[-1][1] - rows[0][1] > 25
    # The capture can be read and names the line
    assert artifacts["memray_profile"].status == ArtifactStatus.PARTIAL
    _, by_function, _ = peak_of(stored(given).path(task_id, "memray_profile"))
    assert by_function["allocate_pages"] >= 30 * MIB
    # And nothing is left in the spool
    assert list(given.spool.iterdir()) == []
    assert not stored(given).check()
