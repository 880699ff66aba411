"""Worker processes that are killed, or frozen for a while, in the list of workers."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest

from dramatiq_diag.maintenance.cleanup import Cleanup
from support import PATIENCE_S, eventually
from support.records import run_record
from support.web import Site
from support.workers import move_report

_WORKER = """
import sys, time
import dramatiq
from dramatiq import Worker
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.worker.tuning import Tuning

given = Settings(
    data_dir=sys.argv[1], database_url=sys.argv[2] or None, cleanup_interval=0, task_diagnostics=["memory"]
)
diagnostics = Diagnostics(given, tuning=Tuning(attention_s=0.1, report_s=0.1))
broker = StubBroker(middleware=[diagnostics])
for name, options in (("diagnosed", {}), ("quiet", {"diagnostics": []})):
    dramatiq.actor(lambda: time.sleep(300), broker=broker, actor_name=name, **options).send()
Worker(broker, worker_threads=2).start()
time.sleep(300)
"""


@pytest.fixture
def site(make_site: Callable[..., Site], database_url: str | None) -> Site:
    return make_site(task_diagnostics=["memory"], database_url=database_url, cleanup_interval=0)


@pytest.fixture
def worker(site: Site, python: Callable[..., subprocess.Popen[str]]) -> subprocess.Popen[str]:
    """A process that executes two tasks, the row of the diagnosed one is stored, and has reported them."""
    process = python(_WORKER, str(site.settings.data_dir), site.settings.database_url or "")
    eventually(lambda: (found := listed(site)) and attempts(found[0]) == {"diagnosed": 1, "quiet": None}, "it reports")
    return process


def listed(site: Site) -> list[dict[str, Any]]:
    workers: list[dict[str, Any]] = site.get("/workers/").json["workers"]
    return workers


def attempts(worker: dict[str, Any]) -> dict[str, int | None]:
    """Returns: The actors of the tasks that a process executes, each with the attempt."""
    return {run["actor_name"]: run["attempt"] for run in worker["runs"]}


def test_a_killed_process_is_lost_and_its_run_no_longer_executed_once_it_is_published(
    site: Site, worker: subprocess.Popen[str], bench: Any
) -> None:
    # Given a process that is killed
    worker.send_signal(signal.SIGKILL)
    worker.wait(PATIENCE_S)
    (killed,) = listed(site)
    # The thread that reports, among others, has used some time, and the main thread that imports more.
    assert 0.0 < killed["diagnostics_cpu_s"] < killed["cpu_s"]
    with site.store.session() as session:
        move_report(session, uuid.UUID(killed["worker_id"]), 31.0)

    # Then it is lost, with what it executed
    (lost,) = listed(site)
    assert (lost["state"], lost["pid"], lost["threads_busy"]) == ("lost", worker.pid, 2)
    assert attempts(lost) == {"diagnosed": 1, "quiet": None}

    # When another process publishes its run, then that is not said to be running
    with bench(site.settings):
        eventually(lambda: attempts(listed(site)[-1]).keys() == {"quiet"}, "the run is published")
        assert [found["state"] for found in listed(site)] == ["live", "lost"]


def test_a_frozen_process_is_lost_and_live_again_when_it_goes_on(site: Site, worker: subprocess.Popen[str]) -> None:
    with site.store.session() as session:
        # It is frozen while this holds the lock of its row: a frozen process that holds one would block this test.
        move_report(session, uuid.UUID(listed(site)[0]["worker_id"]), 31.0)
        worker.send_signal(signal.SIGSTOP)
        eventually(lambda: psutil.Process(worker.pid).status() == psutil.STATUS_STOPPED, "it is frozen")
    (frozen,) = listed(site)
    worker.send_signal(signal.SIGCONT)

    assert frozen["state"] == "lost"
    eventually(lambda: listed(site)[0]["state"] == "live", "it reports itself again")
    assert attempts(listed(site)[0]) == {"diagnosed": 1, "quiet": None}


def test_a_run_of_a_machine_that_is_gone_says_that_its_end_is_not_known(site: Site, clock: Any) -> None:
    # Given a run whose worker is not heard of for a day
    run = run_record(task_id="t", worker_id=uuid.uuid4(), started_at=datetime.now(UTC)).as_running()
    site.store.announce([run])
    clock.ahead = timedelta(days=2)
    Cleanup(site.store).run()

    # Then nothing says that it was not collected, or goes on
    found = site.get("/tasks/t/profile_artifacts/").json
    assert (found["run"]["status"], found["run"]["finished_at"], found["urls"]) == ("interrupted", None, {})
    assert "how it ended is not known" in found["run"]["death_reason"]
    page = site.get("/tasks/t/", headers={"Accept": "text/html"}).text
    assert "Nothing of this run was published." in page
    assert "Whether memory was collected is not known" in page
    assert "so far" not in page
