"""Whether the task is named that grew a process until the kernel killed it, among eight; without memray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import product
from pathlib import Path

from sqlalchemy import select

from dramatiq_diag import Settings
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import MemoryRole
from dramatiq_diag.store.models import TaskRun
from dramatiq_diag.store.store import Store
from dramatiq_diag.text import MIB

from .eaters import EATERS, NEIGHBOURS
from .result import Result

#: Seconds from the start of a worker to that of its eater; they take turns.
_AFTER_S = 2, 15

#: Kills of each of the ten pairs of an eater and its neighbours.
_KILLS = int(os.environ.get("DRAMATIQ_DIAG_BENCH_KILLS", "10"))

_LIMIT_BYTES = 700 * MIB
_PATIENCE_S = 180
_CGROUPS = Path("/sys/fs/cgroup")


def run() -> Iterator[Result]:
    """Yields a row for each kind of eater and neighbours, and one for all."""
    total: Counter[str] = Counter()
    for eater, neighbours in product(EATERS, NEIGHBOURS):
        counts: Counter[str] = Counter()
        for number in range(_KILLS):
            counts.update(_kill(eater, neighbours, _AFTER_S[number % len(_AFTER_S)]))
        total.update(counts)
        yield _result(f"eater `{eater}`, seven neighbours `{neighbours}`", counts)
    yield _result("all eaters", total)


def _result(what: str, counts: Counter[str]) -> Result:
    kills = counts["kills"]
    return Result(
        what=f"{kills} kernel kills, {what}",
        budget="eater named in all, its function in 9 of 10",
        measured=f"named in {counts['named']}, its function in {counts['function']}, "
        f"an innocent accused in {counts['accused']}",
        met=counts["named"] == kills and counts["function"] >= 0.9 * kills and not counts["accused"],
    )


def _kill(eater: str, neighbours: str, after_s: float) -> Counter[str]:
    """Has the kernel kill a worker. Returns: What was right about it."""
    with tempfile.TemporaryDirectory(prefix="dramatiq_diag_bench_oom_") as data_dir:
        settings = Settings(data_dir=data_dir)
        task_id = _die(data_dir, eater, neighbours, after_s)
        with closing(Store(settings)) as store:
            store.open()
            Delivery(Spool(settings), store).salvage()
            with store.session() as session:
                runs = list(session.scalars(select(TaskRun)))
    growers = {run.task_id for run in runs if run.memory_role == MemoryRole.GROWER}
    reason = next((run.death_reason or "" for run in runs if run.task_id == task_id), "")
    right = Counter(kills=1, named=task_id in growers, accused=bool(growers - {task_id}))
    right["function"] = f"eat_{eater.replace(' ', '_')} (" in reason and task_id in growers
    if not (right["named"] and right["function"]) or right["accused"]:
        sys.stderr.write(f"{eater}, {neighbours}: {[(run.actor_name, run.death_reason) for run in runs][:8]}\n")
    return right


def _die(data_dir: str, eater: str, neighbours: str, after_s: float) -> str:
    """Starts a worker that is killed. Returns: The id of the eater's task."""
    with _memory_cgroup() as cgroup:
        command = [sys.executable, "-m", "bench.eaters", data_dir, str(cgroup), eater, neighbours, str(after_s)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            assert process.stdout is not None
            try:
                task_id = process.stdout.readline().strip()
                assert process.wait(_PATIENCE_S) == -signal.SIGKILL
            finally:
                process.kill()
    return task_id


@contextmanager
def _memory_cgroup() -> Iterator[Path]:
    """Makes a cgroup of version 2 or 1 with a limit of memory, which takes the rights of root."""
    version_2 = (_CGROUPS / "cgroup.controllers").is_file()
    root, limit = (_CGROUPS, "memory.max") if version_2 else (_CGROUPS / "memory", "memory.limit_in_bytes")
    cgroup = root / f"dramatiq_diag_{uuid.uuid4().hex}"
    cgroup.mkdir()
    try:
        (cgroup / limit).write_text(str(_LIMIT_BYTES))
        yield cgroup
    finally:
        cgroup.rmdir()
