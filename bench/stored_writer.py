"""Publishes runs in a process of its own while another process cleans up, and says how long each transaction took."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import event

from dramatiq_diag import Settings
from dramatiq_diag.statuses import RunStatus
from dramatiq_diag.store.records import FinishedRun, RunRecord
from dramatiq_diag.store.store import Store

from .records import memory_log

_INTERVAL_S = 0.05
_LOG = b"# s\tMB\n"


class _Transactions:
    """Times each transaction of an engine: its longest statement, which may wait for a lock, and its commit."""

    def __init__(self, store: Store) -> None:
        self.statement_ms: list[float] = []
        self.commit_ms: list[float] = []
        self._longest_s = self._began_s = 0.0
        for name in ("begin", "before_cursor_execute", "after_cursor_execute"):
            event.listen(store.engine, name, getattr(self, f"_{name}"))
        # The event `commit` comes before the commit, so the driver's own method is timed.
        dialect = store.engine.dialect
        commit = dialect.do_commit

        def timed(connection: object) -> None:
            began_s = time.perf_counter()
            commit(connection)  # type: ignore[arg-type]
            self.commit_ms.append((time.perf_counter() - began_s) * 1000)
            self.statement_ms.append(self._longest_s * 1000)

        dialect.do_commit = timed  # type: ignore[method-assign]

    def _begin(self, *_: object) -> None:
        self._longest_s = 0.0

    def _before_cursor_execute(self, *_: object) -> None:
        self._began_s = time.perf_counter()

    def _after_cursor_execute(self, *_: object) -> None:
        self._longest_s = max(self._longest_s, time.perf_counter() - self._began_s)


def main() -> None:
    """Writes until its standard input ends, then prints the milliseconds of statements, commits and whole writes."""
    store = Store(Settings(**json.loads(sys.argv[1])))
    store.open()
    store.publish([_ended(_started())])  # Without what only the first one does.
    transactions = _Transactions(store)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    print("writing", flush=True)  # noqa: T201
    write_ms = []
    while not ended.wait(_INTERVAL_S):
        run = _started()
        began_s = time.perf_counter()
        store.announce([run])
        announced_s = time.perf_counter()
        store.publish([_ended(run)])
        write_ms += [(announced_s - began_s) * 1000, (time.perf_counter() - announced_s) * 1000]
    store.close()
    figures = {"statement_ms": transactions.statement_ms, "commit_ms": transactions.commit_ms, "write_ms": write_ms}
    print(json.dumps(figures))  # noqa: T201


def _started() -> RunRecord:
    """Returns: A run of the actor whose artifacts the cleanup removes, so that both change the same counters."""
    return RunRecord(
        run_id=uuid.uuid4(),
        task_id="writer",
        actor_name="actor",
        queue_name="default",
        status=RunStatus.RUNNING,
        started_at=datetime.now(UTC),
        hostname="host",
        pid=os.getpid(),
    )


def _ended(run: RunRecord) -> FinishedRun:
    log = memory_log(_LOG)
    run = replace(run, status=RunStatus.SUCCEEDED, finished_at=datetime.now(UTC), duration_ms=1.0)
    return FinishedRun(run=run, artifacts=[log])


if __name__ == "__main__":
    main()
