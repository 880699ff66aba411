"""The CPU time of all runs of a process is the CPU time of the process, but for what its own threads used."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

SCRIPT = """
import json, resource, sys, threading, time
from pathlib import Path

import dramatiq
from dramatiq.brokers.stub import StubBroker

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.runs import RunFilter, list_runs

settings = Settings(data_dir=sys.argv[1], task_diagnostics=["memory"], cleanup_interval=0)
diagnostics = Diagnostics(settings)
broker = StubBroker(middleware=[diagnostics])
task_threads = set()

@dramatiq.actor(broker=broker)
def burn(cpu_s):
    task_threads.add(threading.get_native_id())
    ends = time.thread_time() + cpu_s
    while time.thread_time() < ends:
        pass

def cpu_of_process_s():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

def cpu_of_threads_s():
    found = {}
    for path in Path("/proc/self/task").iterdir():
        found[int(path.name)] = int((path / "schedstat").read_text().split()[0]) / 1e9
    return found

worker = dramatiq.Worker(broker, worker_threads=4, worker_timeout=100)
worker.start()
burn.send(0.01)  # The first run opens the store.
broker.join(burn.queue_name)
assert diagnostics.flush(180)
with Store(settings).session() as session:
    (first,), _ = list_runs(session, RunFilter(), 100)

threads_s, process_s = cpu_of_threads_s(), cpu_of_process_s()
for _ in range(8):
    burn.send(0.25)
broker.join(burn.queue_name)
worker.join()
spent_s = cpu_of_process_s() - process_s
now_s = cpu_of_threads_s()
others_s = sum(s - threads_s.get(thread, 0.0) for thread, s in now_s.items() if thread not in task_threads)

assert diagnostics.flush(180)
with Store(settings).session() as session:
    runs, _ = list_runs(session, RunFilter(), 100)
counted_s = sum(run.cpu_ms for run in runs if run.run_id != first.run_id) / 1000
print(json.dumps({"runs": len(runs), "process_s": spent_s, "others_s": others_s, "counted_s": counted_s}))
worker.stop()
"""


def test_the_cpu_times_of_runs_add_up_to_that_of_the_process(python: Callable[..., Popen[str]], tmp_path: Path) -> None:
    output, _ = python(SCRIPT, str(tmp_path)).communicate()
    found: dict[str, Any] = json.loads(output)

    assert found["runs"] == 9
    assert found["counted_s"] >= 2.0
    # What is left is Dramatiq's own work on the tasks' threads, and the hooks
    assert found["counted_s"] + found["others_s"] == pytest.approx(found["process_s"], rel=0.02), found
