"""A task that allocates until the kernel kills its worker, and what a living sibling publishes of it.

`DRAMATIQ_DIAG_TEST_KILLS=100 python -m pytest tests/scenarios/test_oom.py` does it a hundred times, and says how long
it took.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
import uuid
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import ArtifactStatus, MemoryRole, RunStatus
from dramatiq_diag.text import MIB
from support import PATIENCE_S, eventually
from support.store import Stored

KILLS = int(os.environ.get("DRAMATIQ_DIAG_TEST_KILLS", "1"))

_LIMIT_BYTES = 300 * MIB
_CGROUPS = Path("/sys/fs/cgroup")

#: Without a cgroup the limit is on the address space, and the worker plays the kernel's part when it strikes.
_VICTIM = """
import os, resource, signal, sys, threading, time
from pathlib import Path
import dramatiq
import psutil
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

data_dir, limit_bytes, cgroup = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if cgroup:
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
broker = StubBroker()
diagnostics = Diagnostics(Settings(
    data_dir=data_dir, task_diagnostics=["memory", "pyinstrument", "memray"], memory_interval=0.2, cleanup_interval=0))
broker.add_middleware(diagnostics)

@dramatiq.actor(broker=broker, max_retries=0)
def hoard():
    (run,) = diagnostics.process.runs.values()
    if not cgroup:
        size_bytes = psutil.Process().memory_info().vms + limit_bytes
        resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
    held = []
    try:
        while True:
            held.append(bytearray(1024 * 1024))  # The line that allocates.
            if len(held) % 16 == 0:  # However busy the machine is, each such step is in the curve.
                seen_bytes = run.peak_rss_bytes
                while run.peak_rss_bytes <= seen_bytes:
                    time.sleep(0.005)
    except MemoryError:
        os.kill(os.getpid(), signal.SIGKILL)

print(hoard.send().message_id, flush=True)
dramatiq.Worker(broker, worker_threads=2).start()
threading.Event().wait()
"""


#: Eight tasks at once, without memray: one keeps what it allocates, three free it, and four sleep.
_CROWD = """
import json, os, sys, threading, time
from pathlib import Path
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

data_dir, cgroup = sys.argv[1:]
Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(data_dir=data_dir, task_diagnostics=["logs"], cleanup_interval=0)))

@dramatiq.actor(broker=broker, max_retries=0)
def hoard():
    held = []
    while True:
        fill(held)

def fill(held):
    held.append(bytearray(1024 * 1024))  # The line that allocates.
    time.sleep(0.02)

@dramatiq.actor(broker=broker, max_retries=0)
def churn(number):
    while True:
        buffer = bytearray((3 + 5 * number) * 1024 * 1024)
        time.sleep(0.03 + 0.02 * number)
        del buffer
        time.sleep(0.01 * number)

@dramatiq.actor(broker=broker, max_retries=0)
def rest():
    time.sleep(600)

neighbours = [rest.send() for _ in range(4)] + [churn.send(number) for number in range(3)]
print(json.dumps([hoard.send().message_id, *(message.message_id for message in neighbours)]), flush=True)
dramatiq.Worker(broker, worker_threads=8).start()
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def victim(tmp_path_factory) -> Path:
    """A file, so that memray can name its lines."""
    path = tmp_path_factory.mktemp("victim") / "hoarder.py"
    path.write_text(_VICTIM)
    return path


@pytest.fixture
def memory_cgroup():
    """A cgroup of version 2 or 1 with a limit of memory; None where this process may not make one."""
    version_2 = (_CGROUPS / "cgroup.controllers").is_file()
    root, limit = (_CGROUPS, "memory.max") if version_2 else (_CGROUPS / "memory", "memory.limit_in_bytes")
    cgroup = root / f"dramatiq_diag_{uuid.uuid4().hex}"
    try:
        cgroup.mkdir()
        (cgroup / limit).write_text(str(_LIMIT_BYTES))
    except OSError:  # Not root, no memory controller, or a read-only mount.
        yield None
    else:
        yield cgroup
    if cgroup.is_dir():
        cgroup.rmdir()


@pytest.mark.timeout(300 + 30 * KILLS)
def test_a_task_that_is_killed_for_its_memory_leaves_all_three(bench, settings, stored, victim, memory_cgroup, capsys):
    given = settings(task_diagnostics=["memory", "pyinstrument", "memray"])
    line = 1 + victim.read_text().partition("# The line that allocates.")[0].count("\n")
    delays_s = []

    # Given a worker that lives on
    with bench(given):
        for _ in range(KILLS):
            # When its sibling is killed by a task that allocates and allocates
            command = [sys.executable, str(victim), str(given.data_dir), str(_LIMIT_BYTES), str(memory_cgroup or "")]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                task_id = process.stdout.readline().strip()
                try:
                    assert process.wait(PATIENCE_S) == -signal.SIGKILL
                finally:
                    process.kill()
            died = time.monotonic()
            eventually(partial(_is_interrupted, stored(given), task_id), "the run is published")
            delays_s.append(time.monotonic() - died)

            # Then its run is there, and says why
            artifacts = stored(given).artifacts(task_id)
            assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.PARTIAL}
            reason = artifacts["memory_profile"].reason
            assert "At the last look its RSS was" in reason
            assert memory_cgroup is None or reason.endswith("for lack of memory: it looks like an OOM kill.")
            # The memory curve goes up to the end
            rows = stored(given).data(task_id, "memory_profile").decode().splitlines()[1:]
            curve = [float(row.split("\t")[1]) for row in rows]
            falls = [before - after for before, after in pairwise(curve)]
            assert max(falls) < 1  # The kernel may take back a page of a file in between.
            assert curve[-1] - curve[0] > 0.6 * (_LIMIT_BYTES / MIB - curve[0])
            # The time profile has the function, and the memray report its line
            session = json.loads(stored(given).data(task_id, "pyinstrument_profile"))
            assert any(frame.startswith("hoard\0") for stack, _ in session["frame_records"] for frame in stack)
            assert _largest_location(stored(given).path(task_id, "memray_profile"), victim) == f"hoard:{victim}:{line}"

    assert not stored(given).check()
    killer = "the kernel" if memory_cgroup else "the stand-in"
    with capsys.disabled():
        sys.stdout.write(
            f"\n{KILLS} of {KILLS} kills by {killer}, visible after {statistics.median(delays_s):.1f} s, "
            f"{max(delays_s):.1f} s at most\n"
        )


def test_the_task_that_grew_the_process_is_told_from_its_victims(settings, stored, python, memory_cgroup):
    if memory_cgroup is None:
        pytest.skip("This process may not make a cgroup with a limit of memory.")
    given = settings(task_diagnostics=["logs"])
    # Given a worker with eight tasks, of which one makes the kernel kill it
    process = python(_CROWD, str(given.data_dir), str(memory_cgroup))
    hoarder, *neighbours = json.loads(process.stdout.readline())
    eventually(lambda: process.poll() is not None, "the worker was killed")
    assert process.wait() == -signal.SIGKILL

    # When its runs are salvaged
    Delivery(Spool(given), stored(given).store).salvage()

    # Then that one is named, with its function and line
    (run,) = stored(given).runs(hoarder)
    assert run.memory_role == MemoryRole.GROWER
    assert "fill (<string>:" in run.death_reason or "hoard (<string>:" in run.death_reason
    assert run.touched_bytes > 0.5 * (_LIMIT_BYTES - 100 * MIB)
    # And the others are its victims
    victims = [stored(given).runs(task_id)[0] for task_id in neighbours]
    assert {victim.memory_role for victim in victims} == {MemoryRole.VICTIM}
    assert all(f"the task {hoarder} (actor hoard) was growing by " in victim.death_reason for victim in victims)


def _is_interrupted(reader: Stored, task_id: str) -> bool:
    return [run.status for run in reader.runs(task_id)] == [RunStatus.INTERRUPTED]


def _largest_location(capture: Path, victim: Path) -> str:
    """Returns: Function, file and line of what memray's own report names first."""
    report = victim.with_name("stats.json")
    command = [sys.executable, "-m", "memray", "stats", "--json", "--force", "-o", str(report), str(capture)]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads(report.read_text())["top_allocations_by_size"][0]["location"]
