"""What is attached to a running task: collected for a time, and there to be downloaded while the task goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from dramatiq.middleware import TimeLimitExceeded
from dramatiq.middleware.threading import raise_thread_exception

from dramatiq_diag.reports.profiles import read_allocations
from dramatiq_diag.settings import Settings
from dramatiq_diag.spool.delivery import Delivery
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.statuses import DOWNLOADABLE_STATUSES, ArtifactStatus, RunStatus
from dramatiq_diag.store import pins
from dramatiq_diag.store.attachments import AttachmentRequestError, AttachmentState, NothingRunsError, attach
from dramatiq_diag.store.pins import RunIsRunningError
from dramatiq_diag.worker.attachment import Attachment
from support import PATIENCE_S, eventually
from support.attachments import SOON, Attaching
from support.tasks import Bench, Gate
from support.triggers import has_function

logger = logging.getLogger("attached")
logger.propagate = False
logger.addHandler(logging.NullHandler())


@pytest.fixture
def ends_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets attachments whose time is up wait until their profile has a function.

    On a machine that is busy the time may be up before the task has come there, or has been sampled there.
    """
    end = Attachment.end_after_time

    def make(name: str) -> None:
        def end_later(attachment: Attachment) -> None:
            eventually(lambda: has_function(attachment, name), f"{name} is in the profile")
            end(attachment)

        monkeypatch.setattr(Attachment, "end_after_time", end_later)

    return make


@pytest.fixture
def attaching(store_of: Any) -> Callable[[Settings], Attaching]:
    return lambda given: Attaching(store_of(given))


class Work:
    """A task that spins until it is told to go on, in a function that is named after the phase."""

    def __init__(self) -> None:
        self.phase = "before"
        self.seen = ""
        self.held: list[bytearray] = []

    def __call__(self) -> str:
        while self.phase == "before":
            before(self)
        while self.phase == "within":
            within(self)
        while self.phase == "after":
            after(self)
        return "result"

    def __enter__(self) -> Work:
        return self

    def __exit__(self, *_: object) -> None:
        self.phase = "end"

    def go(self, phase: str) -> None:
        self.phase = phase
        eventually(lambda: phase in ("end", self.seen), f"the task is in its phase {phase}")


def collecting(tasks: Bench, count: int) -> None:
    """Waits until the collectors of an attachment have begun. It is active a moment before that."""
    runs = tasks.diagnostics.process.runs
    eventually(
        lambda: [len(each.recordings.running) for run in tuple(runs.values()) for each in run.attachments] == [count],
        "the collectors have begun",
    )


def before(work: Work) -> None:
    spin(work, "before")


def within(work: Work) -> None:
    work.held.append(bytearray(200_000))
    spin(work, "within")


def after(work: Work) -> None:
    spin(work, "after")


def spin(work: Work, phase: str) -> None:
    logger.warning(phase)
    work.seen = phase
    ends = time.perf_counter() + 0.01
    while time.perf_counter() < ends:
        pass


@pytest.mark.parametrize("diagnosed", [True, False])
def test_what_is_attached_has_that_window_and_is_there_before_the_task_ends(
    bench, settings, stored, attaching, ends_after, database_url, diagnosed
):
    ends_after("within")
    names = ["memory", "memray", "pyinstrument", "logs", "resources"]
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=names, database_url=database_url)
    ask = attaching(given)
    with bench(given, tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work", **({} if diagnosed else {"diagnostics": []})).send()
        work.go("before")
        attachment_id = ask.attach(message.message_id, names, for_s=1.0)
        eventually(lambda: ask.state(attachment_id) == "active", "it collects")
        work.go("within")
        found = ask.done(attachment_id)
        work.go("after")

        # Then all is there while the task goes on
        assert stored(given).runs(message.message_id)[0].status == RunStatus.RUNNING
        assert {name: (found[name].status, found[name].reason) for name in found} == dict.fromkeys(
            ("memory_profile", "memray_profile", "pyinstrument_profile", "resources_profile", "task_logs"),
            (ArtifactStatus.STORED, None),
        )
        log = ask.data(found["task_logs"]).decode()
        assert "within" in log
        assert "after" not in log
        profile = ask.data(found["pyinstrument_profile"])
        assert b"within" in profile
        assert b"after" not in profile
        path = ask.path(found["memray_profile"])
        calls = {
            frame.function for sample in read_allocations(path, whole_process=False).samples for frame in sample.frames
        }
        assert "within" in calls
        assert "after" not in calls
        assert len(ask.data(found["memory_profile"]).splitlines()) >= 3
        work.go("end")
        tasks.finish()

    # Then the run is as it would be without
    (run,) = stored(given).runs(message.message_id)
    assert (run.status, run.exception_type) == (RunStatus.SUCCEEDED, None)
    assert {*stored(given).artifacts(message.message_id)} == ({"memory_profile"} if diagnosed else set())
    assert run.duration_ms > 1000
    assert not stored(given).check()


def test_what_is_attached_ends_with_the_run(bench, settings, stored, attaching):
    names = ["memory", "memray", "pyinstrument", "logs", "resources"]
    given = settings(task_diagnostics_on_request=names)
    ask = attaching(given)
    with bench(given, tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work").send()
        work.go("within")
        attachment_id = ask.attach(message.message_id, names)
        ask.active(attachment_id)
        work.go("end")
        found = ask.done(attachment_id)
        tasks.finish()

    assert {artifact.status for artifact in found.values()} <= {ArtifactStatus.STORED, ArtifactStatus.SKIPPED}
    (run,) = stored(given).runs(message.message_id)
    assert run.status == RunStatus.SUCCEEDED
    assert {artifact.run_id for artifact in found.values()} == {run.run_id}
    assert not stored(given).check()


def test_a_second_attachment_stands_beside_the_first(bench, settings, stored, attaching):
    names = ["memory", "memray", "logs"]
    given = settings(task_diagnostics_on_request=names)
    ask = attaching(given)
    with bench(given, tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work").send()
        work.go("within")
        first = ask.attach(message.message_id, names)
        ask.active(first)
        second = ask.attach(message.message_id, names, for_s=1.0)
        found = ask.done(second)
        work.go("end")
        ask.done(first)
        tasks.finish()

    assert (found["memory_profile"].status, found["memory_profile"].reason) == (ArtifactStatus.STORED, None)
    assert found["memray_profile"].status == ArtifactStatus.SKIPPED
    assert f"held by task {message.message_id}" in found["memray_profile"].reason
    assert found["task_logs"].reason == "logs is being collected for this run already."
    assert len(stored(given).runs(message.message_id)) == 1
    assert not stored(given).check()


@pytest.mark.parametrize("diagnosed", [True, False])
def test_an_async_actor_is_attached_to(bench, settings, stored, attaching, ends_after, diagnosed):
    ends_after("naps")
    names = ["memory", "pyinstrument", "logs", "accounting"]
    given = settings(task_diagnostics_on_request=[*names, "resources"])
    ask = attaching(given)
    stop = threading.Event()

    async def waits() -> None:
        while not stop.is_set():
            sum(range(100_000))
            await naps()

    async def naps() -> None:
        await asyncio.sleep(0.01)

    with bench(given, tuning=SOON) as tasks:
        message = tasks.actor(waits, diagnostics=["resources"] if diagnosed else []).send()
        try:
            found = ask.done(ask.attach(message.message_id, names, for_s=1.0))
        finally:
            stop.set()
        tasks.finish()

    assert b"naps" in ask.data(found["pyinstrument_profile"])
    parts = {part["part"]: part["ms"] for part in json.loads(ask.data(found["time_accounting"]))["parts"]}
    assert (parts.get("cpu", 0.0) > 10.0) == diagnosed  # Only the coroutine of a diagnosed run is measured.
    assert "async actor" in found["task_logs"].reason
    assert stored(given).runs(message.message_id)[0].status == RunStatus.SUCCEEDED


@pytest.mark.parametrize("by_s", [-86400.0, 86400.0])
def test_a_clock_that_is_set_anew_changes_no_length_of_a_run(bench, settings, stored, attaching, monkeypatch, by_s):
    given = settings(task_diagnostics_on_request=["memory"])
    ask, wall = attaching(given), time.time
    with bench(given, tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work", diagnostics=[]).send()
        work.go("before")
        began = time.monotonic()
        time.sleep(0.3)
        monkeypatch.setattr(time, "time", lambda: wall() + by_s)
        ask.active(ask.attach(message.message_id, ["memory"]))
        least_ms = 1000 * (time.monotonic() - began)
        work.go("end")
        tasks.finish()

    (run,) = stored(given).runs(message.message_id)
    assert least_ms < run.duration_ms < 3_600_000
    assert abs((run.finished_at - run.started_at).total_seconds() - run.duration_ms / 1000) < 0.01


def test_what_is_not_allowed_is_refused(settings, attaching):
    given = settings(task_diagnostics_on_request=["memory"])
    ask = attaching(given)
    with pytest.raises(AttachmentRequestError, match="TASK_DIAGNOSTICS_ON_REQUEST has 'memray'"):
        attach(ask.store, "task", {"memray": {}}, 30.0)
    with pytest.raises(AttachmentRequestError, match="lasts 1 s to 1 day"):
        attach(ask.store, "task", {"memory": {}}, 0.5)
    with pytest.raises(NothingRunsError, match="worker process"):
        attach(ask.store, "task", {"memory": {}}, 30.0)


def test_what_the_worker_alone_does_not_allow_is_refused_by_it(settings, bench, attaching):
    ask = attaching(settings(task_diagnostics_on_request=["memory", "resources"]))
    with bench(settings(task_diagnostics_on_request=["memory"]), tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work").send()
        attachment_id = ask.attach(message.message_id, ["resources"])
        eventually(lambda: ask.standing(attachment_id).is_over, "the attachment is over")
    standing = ask.standing(attachment_id)
    assert standing.state is AttachmentState.REFUSED
    assert "TASK_DIAGNOSTICS_ON_REQUEST" in standing.reason
    assert standing.artifacts == ()


def test_a_task_that_has_ended_is_said_to_have(bench, settings, attaching):
    given = settings(task_diagnostics=["memory"])
    ask = attaching(given)
    with bench(given, tuning=SOON) as tasks:
        task_id = tasks.run(lambda: None, actor_name="quick")
        eventually(lambda: not ask.is_executed(task_id), "the worker has said that it ended")
        with pytest.raises(NothingRunsError, match="Its last stored run has ended: succeeded"):
            attach(ask.store, task_id, {"memory": {}}, 30.0)


def test_pins_deletion_and_the_cleanup_see_what_was_attached(bench, settings, stored, attaching):
    given = settings(task_diagnostics=["memory"])
    ask = attaching(given)
    with bench(given, tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work").send()
        work.go("within")
        first = ask.attach(message.message_id, ["memory"], for_s=1.0)
        ask.done(first)
        with pytest.raises(RunIsRunningError):
            pins.pin(ask.store, ask.standing(first).question.run_id)
        work.go("end")
        tasks.finish()

    (run,) = stored(given).runs(message.message_id)
    assert {*stored(given).artifacts(message.message_id)} == {"memory_profile"}
    (own,) = stored(given).artifacts(message.message_id).values()
    (attached,) = ask.done(first).values()
    assert attached.artifact_id != own.artifact_id
    assert attached.expires_at >= run.finished_at + timedelta(seconds=given.orphan_protection_time)
    assert pins.pin(ask.store, run.run_id).artifact_count == 2
    assert [artifact.expires_at for artifact in ask.done(first).values()] == [None]
    assert pins.unpin(ask.store, run.run_id).artifact_count == 2
    assert pins.delete(ask.store, run.run_id).artifact_count == 2
    (attached,) = ask.done(first).values()
    assert attached.status == ArtifactStatus.DELETED
    assert not stored(given).check()


_KILLED = """
import os, sys, time, dramatiq
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.worker.tuning import Tuning

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(), tuning=Tuning(attention_s=0.05, report_s=0.05)))

@dramatiq.actor(broker=broker)
def work():
    while True:
        spin()

def spin():
    ends = time.perf_counter() + 0.01
    while time.perf_counter() < ends:
        pass

worker = dramatiq.Worker(broker, worker_threads=1)
worker.start()
print(work.send().message_id, flush=True)
time.sleep(3600)
"""


def test_a_worker_that_is_killed_leaves_a_partial_attachment(python, settings, stored, attaching):
    given = settings(task_diagnostics_on_request=["memory", "memray", "pyinstrument"])
    ask = attaching(given)
    process = python(
        _KILLED,
        DRAMATIQ_DIAG_DATA_DIR=str(given.data_dir),
        TASK_DIAGNOSTICS_ON_REQUEST="memory,memray,pyinstrument",
    )
    task_id = process.stdout.readline().strip()
    attachment_id = ask.attach(task_id, ["memory", "memray", "pyinstrument"])
    ask.active(attachment_id)
    spool = Spool(given)
    eventually(
        lambda: all(
            [*given.spool.glob(f"*/{attachment_id}.{name}")] for name in ("memray_profile", "pyinstrument_profile.part")
        ),
        "there is something to salvage",
    )
    process.kill()
    process.wait()

    Delivery(spool, ask.store).salvage()

    found = ask.done(attachment_id)
    assert {artifact.status for artifact in found.values()} == {ArtifactStatus.PARTIAL}
    assert b"spin" in ask.data(found["pyinstrument_profile"])
    assert read_allocations(ask.path(found["memray_profile"]), whole_process=True) is not None
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.INTERRUPTED
    assert not stored(given).check()


def test_an_interrupt_while_something_is_attached_ends_both(bench, settings, stored, attaching):
    names = ["memory", "memray", "pyinstrument", "logs"]
    given = settings(task_diagnostics_on_request=names)
    ask = attaching(given)
    thread_ids: list[int] = []
    with bench(given, tuning=SOON) as tasks, Work() as work:

        def attached_to() -> str:
            thread_ids.append(threading.get_ident())
            return work()

        actor = tasks.actor(attached_to)
        for _ in range(2):  # The second time shows that nothing was left behind.
            message = actor.send()
            work.seen = ""
            work.go("within")
            attachment_id = ask.attach(message.message_id, names)
            collecting(tasks, len(names))
            raise_thread_exception(thread_ids[-1], TimeLimitExceeded)
            found = ask.done(attachment_id)
            assert {artifact.status for artifact in found.values()} <= set(DOWNLOADABLE_STATUSES)
            eventually(
                lambda task_id=message.message_id: stored(given).runs(task_id)[0].status != RunStatus.RUNNING,
                "it ended",
            )
            (run,) = stored(given).runs(message.message_id)
            assert (run.status, run.exception_type) == (RunStatus.FAILED, "TimeLimitExceeded")
    assert not stored(given).check()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_at_the_end_of_an_attachment_neither_loses_it_nor_changes_the_task(
    bench, settings, stored, attaching, monkeypatch, when
):
    given = settings(task_diagnostics=["memory"])
    ask = attaching(given)
    struck: list[str] = []
    end = Attachment.end_with_run

    def strike(moment: str) -> None:
        if moment == when and not struck:
            struck.append(moment)
            raise_thread_exception(threading.get_ident(), TimeLimitExceeded)

    def end_and_strike(attachment: Attachment) -> None:
        strike("before")
        end(attachment)
        strike("after")

    monkeypatch.setattr(Attachment, "end_with_run", end_and_strike)
    with bench(given, tuning=SOON) as tasks, Work() as work:
        message = tasks.actor(work, actor_name="work").send()
        work.go("within")
        attachment_id = ask.attach(message.message_id, ["memory"])
        collecting(tasks, 1)
        work.go("end")
        found = ask.done(attachment_id)
        tasks.finish()

    assert struck == [when]
    assert found["memory_profile"].status == ArtifactStatus.STORED
    assert stored(given).runs(message.message_id)[0].status == RunStatus.SUCCEEDED
    assert not stored(given).check()


def test_attachments_whose_entries_were_lost_do_not_count_for_ever(bench, settings, attaching):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["logs"])
    ask = attaching(given)
    gate = Gate()
    with bench(given) as tasks:
        process = tasks.diagnostics.process
        task_id = tasks.actor(gate.wait).send().message_id
        assert gate.reached.wait(PATIENCE_S)
        attachment_id = ask.attach(task_id, ["logs"])
        ask.active(attachment_id)

        # When somebody removes its entry, and the task ends
        next(given.spool.glob(f"*/{attachment_id}.entry")).unlink()
        process.unsaved.discard(attachment_id)
        eventually(lambda: process.attachments.find(attachment_id) is None, "it is forgotten")
        gate.opened.set()
        tasks.finish()
