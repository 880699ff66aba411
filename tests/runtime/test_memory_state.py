"""The end of a process that nobody saw: what it left to tell why."""

from __future__ import annotations

import json
import os
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from dramatiq_diag.runtime.memory_state import READS_BETWEEN_SEARCHES, MemoryState, MemoryStateReader
from dramatiq_diag.runtime.rss import RssReader
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.text import MIB, format_size
from support import eventually

#: Two tasks at once; the process is killed once both have been running for long enough to be looked at.
SCRIPT = """
import json, os, signal, sys, time
from pathlib import Path
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
settings = Settings(data_dir=sys.argv[1], task_diagnostics=["memory", "pyinstrument", "memray"], cleanup_interval=0)
broker.add_middleware(Diagnostics(settings))

@dramatiq.actor(broker=broker, max_retries=0)
def hoard():
    held = []
    while True:
        held.append(bytearray(1024 * 1024))
        time.sleep(0.01)

@dramatiq.actor(broker=broker, max_retries=0)
def wait():
    time.sleep(600)

print(json.dumps([hoard.send().message_id, wait.send().message_id]), flush=True)
worker = dramatiq.Worker(broker, worker_threads=2)
worker.start()
spool = settings.spool
while (
    sum(path.read_text().count('"vitals"') for path in spool.glob("*/owner.state")) < 2
    or sum(path.read_text().count('"memory_profile","text"') >= 5 for path in spool.glob("*/*.entry")) < 2
):
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_worker_leaves_its_memory_and_its_neighbours(settings, stored, python):
    given = settings()
    process = python(SCRIPT, str(given.data_dir))
    hoarder, neighbour = json.loads(process.stdout.readline())
    eventually(lambda: process.poll() is not None, "the worker was killed")

    Delivery(Spool(given), stored(given).store).salvage()

    (run,) = stored(given).runs(hoarder)
    assert (run.status, run.overlapped_task_ids) == (RunStatus.INTERRUPTED, [neighbour])
    curve = [
        float(row.split("\t")[1]) for row in stored(given).data(hoarder, "memory_profile").decode().splitlines()[1:]
    ]
    assert len(curve) >= 5
    assert run.peak_rss_bytes > (max(curve) - 0.001) * MIB
    memory = stored(given).artifacts(hoarder)["memory_profile"]
    assert memory.status == ArtifactStatus.PARTIAL
    assert (
        "The worker process died while the task ran; this is what it left. At the last look its RSS was "
        in memory.reason
    )
    assert f" of {format_size(psutil.virtual_memory().total)} available" in memory.reason


def write_files(root: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def vitals_of(**changes: int) -> MemoryState:
    given = {"rss_bytes": 800 * MIB, "available_bytes": 3000 * MIB, "total_bytes": 4000 * MIB}
    return MemoryState(**given | changes)


def test_plenty_of_memory_is_no_reason():
    assert vitals_of().describe() == (
        "At the last look its RSS was 800.0 MiB, and the machine had 2.9 GiB of 3.9 GiB available."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"available_bytes": 300 * MIB},
        {"cgroup_bytes": 990 * MIB, "cgroup_limit_bytes": 1000 * MIB},
    ],
)
def test_a_shortage_is_called_by_its_name(changes):
    assert vitals_of(**changes).describe().endswith(": it looks like an OOM kill.")


@pytest.mark.parametrize(
    ("then", "now", "boot_id", "expected"),
    [
        (2, 2, "this", ""),
        (2, 3, "this", "; since then the kernel has killed 1 of the machine's processes for lack of memory: it looks"),
        (2, 9, "another", ""),  # Booted since, or another machine.
        (None, 9, "this", ""),
        (2, None, "this", ""),
    ],
)
def test_the_kernels_count_of_oom_kills_is_evidence(tmp_path, then, now, boot_id, expected):
    counted = "" if now is None else f"oom_kill {now}\n"
    write_files(
        tmp_path,
        {"proc/vmstat": f"pgfault 17\n{counted}oom_killer 5", "proc/sys/kernel/random/boot_id": "this"},
    )

    text = vitals_of(oom_kills=then, boot_id=boot_id).describe(tmp_path)

    assert ("OOM kill" in text) is bool(expected)
    assert expected in text


def test_a_cgroup_far_from_its_limit_is_told_and_no_reason():
    text = vitals_of(cgroup_bytes=400 * MIB, cgroup_limit_bytes=1000 * MIB).describe()

    assert text.endswith(", its cgroup used 400.0 MiB of 1000.0 MiB.")


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        (
            "0::/system.slice/worker.service\n",
            {
                "system.slice/worker.service/memory.current": "500",
                "system.slice/worker.service/memory.max": "1000",
            },
            (500, 1000),
        ),
        # The limit of an outer group.
        (
            "0::/pod/worker\n",
            {
                "pod/worker/memory.current": "500",
                "pod/worker/memory.max": "max",
                "pod/memory.current": "600",
                "pod/memory.max": "2000",
            },
            (600, 2000),
        ),
        # Version 1, among other controllers.
        (
            "3:cpu,cpuacct:/x\n2:memory:/box\n",
            {"memory/box/memory.usage_in_bytes": "7", "memory/box/memory.limit_in_bytes": "9"},
            (7, 9),
        ),
        # Version 1 without a limit has a huge number.
        (
            "2:memory:/box\n",
            {"memory/box/memory.usage_in_bytes": "7", "memory/box/memory.limit_in_bytes": "9223372036854771712"},
            (None, None),
        ),
        ("0::/\n", {}, (None, None)),
    ],
)
def test_the_innermost_limit_counts(tmp_path, membership, files, expected):
    write_files(tmp_path, {f"sys/fs/cgroup/{name}": text for name, text in files.items()})
    write_files(tmp_path, {"proc/self/cgroup": membership.rstrip()})

    with closing(RssReader()) as rss:
        found = MemoryStateReader(rss, tmp_path).read()

    assert (found.cgroup_bytes, found.cgroup_limit_bytes) == expected
    assert found.rss_bytes == pytest.approx(psutil.Process(os.getpid()).memory_info().rss, rel=0.2)


def test_a_limit_that_comes_later_is_found(tmp_path):
    write_files(tmp_path, {"proc/self/cgroup": "0::/worker"})
    with closing(RssReader()) as rss:
        reader = MemoryStateReader(rss, tmp_path)
        before = reader.read()

        write_files(tmp_path, {f"sys/fs/cgroup/worker/memory.{name}": "500" for name in ("current", "max")})
        after = [reader.read() for _ in range(READS_BETWEEN_SEARCHES)][-1]

    assert (before.cgroup_limit_bytes, after.cgroup_limit_bytes) == (None, 500)
