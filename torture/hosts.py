"""Tortures many hosts with one store: `python -m torture.hosts [--hosts N] [--runs N] [--kills N] [--bucket URL]`.

Each host is a process with a data directory of its own and a clock that is up to ten minutes wrong, by a library that
is preloaded; a C compiler makes it of `clock.c`. All publish into one PostgreSQL and one blob store. Hosts are killed
at random and started again. Two cleanups run all the time, on hosts whose clocks are wrong as well. At the end each
task that was executed has one run, no task has two, every artifact of a run that ended is stored, and `check` finds
nothing. Exits 1 if that is not so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from sqlalchemy import func, select

from dramatiq_diag import Settings
from dramatiq_diag.maintenance.consistency import check
from dramatiq_diag.statuses import DOWNLOADABLE_STATUSES, RunStatus
from dramatiq_diag.store.counters import Series, total
from dramatiq_diag.store.models import Artifact, TaskRun
from dramatiq_diag.store.store import Store

from .servers import PostgresServer

#: The most by which the clock of a host is wrong, in seconds.
_MAX_WRONG_S = 600

#: Seconds that all hosts have for their tasks.
_TIMEOUT_S = 3600.0


class Host:
    """A host, whose process is started again whenever it was killed."""

    def __init__(self, directory: Path, environment: dict[str, str], *arguments: str) -> None:
        directory.mkdir()
        self.directory = directory
        self.starts = 0
        self.is_done = False
        self._command = [sys.executable, "-m", "torture.host", *arguments]
        self._environment = os.environ | environment
        self._process: subprocess.Popen[bytes] | None = None

    def keep_going(self) -> None:
        """Starts the process, unless it runs or has done all. Raises: RuntimeError when it failed."""
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            self.is_done = status == 0
            if status not in (0, -signal.SIGKILL, 128 + signal.SIGKILL):
                raise RuntimeError(f"{self.directory} ended with {status}; see its log")
        if not self.is_done:
            self.starts += 1
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
                )

    def kill(self) -> None:
        """SIGKILL to the process, if it runs."""
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def task_ids(self, name: str) -> list[str]:
        """Returns: The ids in a file of the host; a last line that was not written to its end is left out."""
        text = (self.directory / name).read_text()
        return text[: text.rfind("\n") + 1].splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m torture.hosts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=20, help="how many hosts (20)")
    parser.add_argument("--runs", type=int, default=20_000, help="tasks of all hosts together (20000)")
    parser.add_argument("--kills", type=int, default=40, help="how many times a host is killed (40)")
    parser.add_argument("--bucket", default="", help="the URL of the blob store; a directory that all share without it")
    parser.add_argument("--seed", type=int, default=1, help="decides clocks and kills (1)")
    arguments = parser.parse_args()
    if shutil.which("cc") is None:
        sys.exit("A C compiler is missing; Debian has one in the package gcc.")
    directory = Path(tempfile.mkdtemp(prefix="dramatiq_diag_hosts_"))
    server = PostgresServer(directory / "postgresql")
    try:
        wrong = torture(directory, server.url, arguments)
    finally:
        server.close()
    if wrong:
        sys.exit("\n".join([*wrong, f"Not clean; everything is in {directory}."]))
    shutil.rmtree(directory)


def torture(directory: Path, database_url: str, arguments: argparse.Namespace) -> list[str]:
    """Lets all hosts do their tasks. Returns: What is wrong at the end."""
    chance = Random(arguments.seed)
    environment = {
        "DRAMATIQ_DIAG_DATABASE_URL": database_url,
        "DRAMATIQ_DIAG_BLOB_URL": arguments.bucket or str(directory / "blobs"),
    }
    store = Store(
        Settings(
            data_dir=directory / "data",
            database_url=database_url,
            blob_url=environment["DRAMATIQ_DIAG_BLOB_URL"],
        )
    )
    store.open()
    clock = directory / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", clock, Path(__file__).with_name("clock.c")], check=True)

    def wrong_clock(seconds: int) -> dict[str, str]:
        return environment | {"LD_PRELOAD": str(clock), "CLOCK_OFFSET_S": str(seconds)}

    count = arguments.runs // arguments.hosts
    places = [directory / f"host-{number}" for number in range(arguments.hosts)]
    hosts = [
        Host(
            place,
            wrong_clock(chance.randint(-_MAX_WRONG_S, _MAX_WRONG_S)),
            "work",
            str(place),
            str(count),
            str(arguments.seed),
        )
        for place in places
    ]
    cleaners = [
        Host(place, wrong_clock(seconds), "clean", str(place))
        for place, seconds in ((directory / "cleaner-1", _MAX_WRONG_S), (directory / "cleaner-2", -_MAX_WRONG_S))
    ]
    started = time.monotonic()
    try:
        supervise(hosts, cleaners, chance, arguments.kills, arguments.runs, started)
    finally:
        for host in (*hosts, *cleaners):
            host.kill()
    say(f"{time.monotonic() - started:.0f} s; {sum(host.starts for host in hosts)} starts of {len(hosts)} hosts")
    wrong = account(hosts, store)
    findings = check(store)
    if findings:
        wrong.append(f"check: {findings}")
    store.close()
    return wrong


def supervise(hosts: list[Host], cleaners: list[Host], chance: Random, kills: int, runs: int, started: float) -> None:
    """Starts the hosts again and again, and kills some, until all have done their tasks."""
    kill_at = sorted(chance.uniform(0.02, 0.95) for _ in range(kills))
    said_at = started
    while not all(host.is_done for host in hosts):
        for host in (*hosts, *cleaners):
            host.keep_going()
        begun = sum(len(host.task_ids("begun")) for host in hosts if (host.directory / "begun").exists())
        while kill_at and begun >= kill_at[0] * runs:
            kill_at.pop(0)
            chance.choice([host for host in hosts if not host.is_done] or hosts).kill()
        now = time.monotonic()
        if now - said_at >= 30:
            said_at = now
            say(f"{now - started:.0f} s: {begun} of {runs} tasks begun, {kills - len(kill_at)} kills")
        if now - started > _TIMEOUT_S:
            raise TimeoutError(f"{begun} of {runs} tasks were begun after {_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def account(hosts: list[Host], store: Store) -> list[str]:
    """Compares the tasks with the runs. Returns: What is wrong."""
    begun = {task_id for host in hosts for task_id in host.task_ids("begun")}
    ended = {task_id for host in hosts for task_id in host.task_ids("ended")}
    with store.session() as session:
        runs = session.execute(select(TaskRun.task_id, TaskRun.status)).all()
        lacking = session.execute(
            select(func.count())
            .where(Artifact.status.not_in(DOWNLOADABLE_STATUSES), TaskRun.status == "succeeded")
            .select_from(Artifact)
            .join(Artifact.run)
        ).scalar_one()
        counted = total(session, Series.RUNS), total(session, Series.STORED_RUNS)
    found = Counter(task_id for task_id, _ in runs)
    statuses = Counter(status for _, status in runs)
    say(f"{len(begun)} tasks begun, {len(ended)} ended; {len(runs)} runs: {dict(statuses)}; counters {counted}")
    wrong = []
    if missing := ended - found.keys():
        wrong.append(f"{len(missing)} tasks that ended have no run, {min(missing)} among them")
    if twice := [task_id for task_id, count in found.items() if count > 1]:
        wrong.append(f"{len(twice)} tasks have more than one run, {min(twice)} among them")
    if foreign := found.keys() - begun:
        wrong.append(f"{len(foreign)} runs are of no task")
    if unended := [task_id for task_id, status in runs if status != RunStatus.SUCCEEDED and task_id in ended]:
        wrong.append(f"{len(unended)} tasks ended and their runs did not succeed, {min(unended)} among them")
    if statuses[RunStatus.RUNNING]:
        wrong.append(f"{statuses[RunStatus.RUNNING]} runs are still running")
    if lacking:
        wrong.append(f"{lacking} artifacts of runs that succeeded are not stored")
    if counted != (len(runs), len(runs)):
        wrong.append(f"the counters say {counted}, and there are {len(runs)} runs")
    return wrong


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
