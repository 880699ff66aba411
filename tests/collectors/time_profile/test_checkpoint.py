"""The time profile of a run whose worker is killed: what it had at its last checkpoint."""

from __future__ import annotations

import json

from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support import eventually

WORKER = """
import sys, threading
import dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.collectors.time_profile import collector

collector.FIRST_CHECKPOINT_S = collector.CHECKPOINT_INTERVAL_S = 0.1
broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(
    task_diagnostics=["memory", "pyinstrument", "memray"], data_dir=sys.argv[1], cleanup_interval=0,
    watchdog=False)))

def spin():
    return sum(range(1000))

def grow():
    held = [bytearray(1_000_000) for _ in range(20)]
    print("grown", flush=True)
    while held:
        spin()

dramatiq.actor(grow, broker=broker).send()
dramatiq.Worker(broker, worker_threads=1).start()
threading.Event().wait()
"""


def test_a_killed_run_has_its_profile_up_to_the_last_checkpoint(settings, stored, python, bench):
    given = settings(task_diagnostics=["memory", "pyinstrument", "memray"])

    # Given a worker that is killed once a checkpoint has seen the function at work
    process = python(WORKER, str(given.data_dir))
    assert process.stdout.readline() == "grown\n"
    eventually(
        lambda: any("spin" in path.read_text() for path in given.spool.rglob("*.part")), "a checkpoint is written"
    )
    process.kill()
    process.wait()

    # When another worker boots
    with bench(given):
        pass

    # Then the interrupted run has all three artifacts, each in part and with the reason
    (run,) = stored(given).all_runs()
    artifacts = stored(given).artifacts(run.task_id)
    assert run.status == RunStatus.INTERRUPTED
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.PARTIAL}
    assert all(artifact.reason for artifact in artifacts.values())
    session = json.loads(stored(given).data(run.task_id, "pyinstrument_profile"))
    assert any(frame.startswith("spin\0") for stack, _ in session["frame_records"] for frame in stack)
    assert session["duration"] > 0
    assert list(given.spool.iterdir()) == []
    assert not stored(given).check()


def test_a_profile_that_was_saved_takes_the_place_of_its_checkpoint(settings, stored, bench):
    given = settings(task_diagnostics=["pyinstrument"])

    def work() -> None:
        eventually(lambda: list(given.spool.rglob("*.part")), "a checkpoint is written")

    with bench(given) as tasks:
        task_id = tasks.run(work, actor_name="work")

    artifact = stored(given).artifacts(task_id)["pyinstrument_profile"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)
    assert list(given.spool.iterdir()) == []
