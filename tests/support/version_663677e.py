"""Writes a store and a spool with version 663677e, for the tests of an upgrade from it.

It was run once, in a worktree of that version whose interpreter has pyinstrument:

    git worktree add /opt/app/source 663677e
    cp tests/support/version_663677e.py /opt/app/write.py
    PYTHONPATH=/opt/app/source /opt/app/venv/bin/python /opt/app/write.py tests/data/version_663677e.tar.gz

The archive has `diagnostics.db`, `blobs` and `spool` as the data directory had them, and `names.json`: a name for each
task and each capture in it -> its id.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dramatiq
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag.captures import create, end, find_capture
from dramatiq_diag.keeping import pin
from dramatiq_diag.records import runs_of_task

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors import session
from dramatiq_diag.errors import StoreUnavailableError
from dramatiq_diag.store import Store

_DAY_S = 86400.0

# Nothing in the archive names the machine that it was made on.
socket.gethostname = lambda: "worker-1"
_neutral = {"path": ["/usr/lib/python3.11"], **dict.fromkeys(("prefix", "base_prefix", "exec_prefix"), "/usr")}
session.sys = SimpleNamespace(**vars(sys) | _neutral | {"base_exec_prefix": "/usr"})


class Tasks:
    """A worker on the data directory, and the ids of the tasks that it was sent."""

    def __init__(self, data_dir: str) -> None:
        self.settings = Settings(
            data_dir=data_dir,
            cleanup_interval=0,
            task_diagnostics=["memory"],
            task_diagnostics_on_request=["pyinstrument", "logs"],
            pass_on_depth=1,
        )
        self.diagnostics = Diagnostics(self.settings)
        self.broker = StubBroker(middleware=[self.diagnostics])
        self.worker = Worker(self.broker, worker_threads=4, worker_timeout=10)
        self.names: dict[str, str] = {}

        def busy(seconds: float) -> None:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                sum(range(1000))

        def fail() -> None:
            raise ValueError("it failed")

        def parent() -> None:
            self.names["child"] = self.actors["busy"].send(0.05).message_id

        functions = {"busy": busy, "fail": fail, "parent": parent, "captured": busy}
        self.actors = {
            name: dramatiq.actor(function, broker=self.broker, actor_name=name) for name, function in functions.items()
        }
        self.worker.start()

    def send(self, name: str, actor: str, *args: Any, **options: Any) -> None:
        self.names[name] = self.actors[actor].send_with_options(args=args, **options).message_id

    def finish(self) -> None:
        self.broker.join("default")
        self.worker.join()
        assert self.diagnostics.flush(30)

    def wait_for_permit(self) -> None:
        while not self.diagnostics.process.capturing._mine:
            time.sleep(0.05)


def fill_store(data_dir: str) -> dict[str, str]:
    """Runs tasks, two of which are captured, and pins one. Returns: Name -> id of a task or a capture."""
    store = Store(Settings(data_dir=data_dir, task_diagnostics_on_request=["pyinstrument"]))
    store.open()
    ids = {
        f"{name}-capture": create(
            store, "captured", {"pyinstrument": {}}, run_limit, 30 * _DAY_S, unknown_actor=True
        ).capture.capture_id
        for name, run_limit in (("complete", 1), ("open", 3), ("ended", 3))
    }
    end(store, ids["ended-capture"])
    tasks = Tasks(data_dir)
    tasks.send("plain", "busy", 0.05)
    tasks.send("asked", "busy", 0.3, diagnostics=["pyinstrument", "logs"])
    tasks.send("failed", "fail", max_retries=0)
    tasks.send("parent", "parent", diagnostics=["pyinstrument"])
    tasks.send("pinned", "busy", 0.05)
    tasks.wait_for_permit()
    tasks.send("captured", "captured", 0.1)
    tasks.finish()
    while _used(store, ids["complete-capture"]) + _used(store, ids["open-capture"]) == 0:
        time.sleep(0.05)
    with store.session() as session:
        (pinned,) = runs_of_task(session, tasks.names["pinned"])
    pin(store, pinned.run.run_id)
    tasks.worker.stop()
    store.close()
    return tasks.names | {name: str(capture_id) for name, capture_id in ids.items()}


def _used(store: Store, capture_id: Any) -> int:
    with store.session() as session:
        return find_capture(session, capture_id).captured_runs


def leave_spool(data_dir: str) -> None:
    """Begins tasks, and waits to be killed: some run then, and one has ended while the store takes nothing."""
    tasks = Tasks(data_dir)
    tasks.wait_for_permit()
    tasks.send("killed-captured", "captured", 600.0)
    tasks.send("killed-asked", "busy", 600.0, diagnostics=["memory", "pyinstrument", "logs"])
    time.sleep(3.0)  # They are announced, and their profiles have checkpoints.

    def away(*_: Any) -> None:
        raise StoreUnavailableError

    Store.publish = Store.announce = away
    tasks.send("ended", "busy", 0.2, diagnostics=["memory", "pyinstrument"])
    time.sleep(1.5)
    tasks.send("killed-early", "busy", 600.0, diagnostics=["memory", "pyinstrument"])
    time.sleep(0.7)
    sys.stdout.write(f"{json.dumps(tasks.names)}\n")
    sys.stdout.flush()
    time.sleep(600.0)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main(archive: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        names = fill_store(directory)
        with subprocess.Popen([sys.executable, __file__, "--spool", directory], stdout=subprocess.PIPE) as worker:
            assert worker.stdout is not None
            names |= json.loads(worker.stdout.readline())
            worker.kill()
        with closing(sqlite3.connect(f"{directory}/diagnostics.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("VACUUM")
        Path(directory, "names.json").write_text(json.dumps(names))
        with tarfile.open(archive, "w:gz") as file:
            for name in ("names.json", "diagnostics.db", "blobs", "spool"):
                file.add(os.path.join(directory, name), name, filter=_anonymous)


if __name__ == "__main__":
    if sys.argv[1] == "--spool":
        leave_spool(sys.argv[2])
    else:
        main(sys.argv[1])
