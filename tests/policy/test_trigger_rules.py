"""Triggers: what begins in the middle of a run, and that neither the task nor other diagnostics notice."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import memray
import pytest

from dramatiq_diag import Settings, SettingsError
from dramatiq_diag.collectors import Recording
from dramatiq_diag.collectors.memory import _MemoryRecording
from dramatiq_diag.collectors.memray import MemrayCollector, _MemrayRecording
from dramatiq_diag.policy.propagation import TRIGGERS_OPTION
from dramatiq_diag.policy.trigger_rules import parse_triggers, trigger_text
from dramatiq_diag.reports.memray import peak_stacks
from dramatiq_diag.runtime.memory_state import MemoryState, MemoryStateReader
from dramatiq_diag.runtime.stack_dump import MAX_BYTES
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from dramatiq_diag.worker.late_start import Late
from support import PATIENCE_S, eventually

MIB = 1024 * 1024

#: Due at once, by a timer of its own.
NOW = "after 1ms"
#: Due never, as far as a test is concerned.
LATER = "after 1h"

LATE = ["memory", "pyinstrument", "memray"]
ARTIFACT_OF = {"memory": "memory_profile", "pyinstrument": "pyinstrument_profile", "memray": "memray_profile"}

GOOD = [
    ("after 30s: stacks", [("after 30s", 30.0, None, ("stacks",))]),
    ("after 100ms:pyinstrument,stacks", [("after 100ms", 0.1, None, ("pyinstrument", "stacks"))]),
    (
        " after 2 min : memory; rss > 1GiB : memray , stacks;",
        [("after 2min", 120.0, None, ("memory",)), ("rss>1GiB", None, 1024 * MIB, ("memray", "stacks"))],
    ),
    (["rss>500MB: stacks"], [("rss>500MB", None, 500_000_000, ("stacks",))]),
    ("after 30s: all", [("after 30s", 30.0, None, ("all",))]),
    ("", []),
    ([], []),
]

BAD = [
    # Conditions
    "stacks",
    ": stacks",
    "before 3s: stacks",
    "after 3: stacks",
    "after: stacks",
    "rss>5: stacks",
    "rss<1GiB: stacks",
    "rss>: stacks",
    "duration>5s: stacks",
    # Names
    "after 3s",
    "after 3s:",
    "after 3s: ,",
    "after 3s: threads",
    "after 3s: logs",
    "after 3s: stacks: memory",
    # No text
    3,
    None,
    {"after 3s": "stacks"},
    [b"after 3s: stacks"],
    ["after 3s: stacks"] * 3 + [f"after {number}s: stacks" for number in range(30)],
]


def spin_until(condition: Callable[[], Any]) -> None:
    """Works busily until something has happened elsewhere."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at


class Runs:
    """What the runs of a bench have, as seen from inside a task."""

    def __init__(self, tasks: Any) -> None:
        self.process = tasks.diagnostics.process

    def current(self) -> Any:
        return self.process.runs[threading.get_ident()]

    def begun(self, *names: str) -> Callable[[], bool]:
        """Returns: Whether the collectors were started in this run."""
        run = self.current()
        return lambda: set(names) <= {name for name, over in dict(run.late._begun).items() if over}

    def wrote_stacks(self) -> Callable[[], bool]:
        run = self.current()
        return lambda: run.late._wrote_stacks


# What is read.


@pytest.mark.parametrize(("value", "expected"), GOOD)
def test_triggers_are_read(value, expected):
    found = parse_triggers(value)

    assert [(t.condition, t.after_s, t.rss_bytes, t.names) for t in found] == expected
    assert parse_triggers([trigger_text(trigger) for trigger in found]) == found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"task_diagnostics": "memory,logs"}, "after 30s: memory, stacks"),
        ({"task_diagnostics_on_request": "all"}, "after 30s: memray, memory, pyinstrument, stacks"),
        ({"task_diagnostics": "all", "pyinstrument_engine": "profiler"}, "after 30s: memray, memory, stacks"),
    ],
)
def test_all_is_what_is_chosen_and_can_begin_in_the_middle_of_a_run(values, expected):
    assert Settings(triggers="after 30s: all, stacks", **values).triggers == (expected,)


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_trigger_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011 - its text is part of a longer one.
        parse_triggers(value)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"task_diagnostics": ["memory"], "triggers": "after 3s: memray"},
            "nor TASK_DIAGNOSTICS_ON_REQUEST has memray",
        ),
        ({"task_diagnostics": ["logs"], "triggers": "after 3s: all"}, "all stands for none here"),
        ({"task_diagnostics": ["memory"], "triggers": "after 3s: logs"}, "'logs' cannot begin in the middle of a run"),
        (
            {
                "task_diagnostics": ["pyinstrument"],
                "triggers": "after 3s: pyinstrument",
                "pyinstrument_engine": "profiler",
            },
            "cannot join later",
        ),
    ],
)
def test_triggers_that_cannot_work_are_refused(values, text):
    with pytest.raises(SettingsError, match="DRAMATIQ_DIAG_TRIGGERS") as caught:
        Settings(**values)
    assert text in str(caught.value)
    assert "allowed: conditions" in str(caught.value)


def test_triggers_do_not_stand_in_the_way_of_turning_everything_off():
    assert Settings(triggers="after 3s: memray").off


# What begins late.


@pytest.mark.parametrize("name", LATE)
def test_a_collector_begins_when_its_trigger_fires(bench, settings, stored, name):
    given = settings(task_diagnostics_on_request=[name], triggers=f"{NOW}: {name}")

    # When a task goes on after its trigger fired
    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> int:
            spin_until(runs.begun(name))
            return after_the_trigger()

        def after_the_trigger() -> int:
            held = [bytearray(1000) for _ in range(20_000)]
            ends = time.perf_counter() + 0.1
            while time.perf_counter() < ends:
                pass
            return len(held)

        task_id = tasks.run(work)

    # Then its artifact has what came after
    (artifact,) = stored(given).artifacts(task_id).values()
    assert (artifact.name, artifact.status, artifact.reason) == (ARTIFACT_OF[name], ArtifactStatus.STORED, None)
    data = stored(given).data(task_id, artifact.name)
    if name == "memory":
        elapsed_s = [float(line.split()[0]) for line in data.decode().splitlines()[1:]]
        assert elapsed_s[0] > 0
        assert len(elapsed_s) >= 2
    if name == "pyinstrument":
        assert b"after_the_trigger" in data
        assert f"Task {task_id}: work, from " in json.loads(data)["target_description"]
    assert not stored(given).check()


def test_a_capture_that_begins_late_has_the_tasks_own_stacks(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")
    stop = threading.Event()

    def noise() -> None:
        held = []
        while not stop.wait(0.001):
            held.append(bytearray(100_000))

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> int:
            spin_until(runs.begun("memray"))
            return outer()

        def outer() -> int:
            return len(inner())

        def inner() -> bytearray:
            return bytearray(30 * MIB)

        # When a task allocates after its capture began, and another thread does so as well
        thread = threading.Thread(target=noise)
        thread.start()
        task_id = tasks.run(work)
        stop.set()
        thread.join()

    # Then a report of the task's own thread has the calls that were running when it began, and no other thread's
    path = str(stored(given).path(task_id, "memray_profile"))
    stacks = [([call[0] for call in stack], size) for stack, size in peak_stacks(path, whole_process=False)[0]]
    largest = max(stacks, key=lambda found: found[1])
    assert largest[0] == ["work", "outer", "inner"]
    assert largest[1] >= 30 * MIB
    assert not any("noise" in calls for calls, _ in stacks)
    assert any("noise" in [call[0] for call in stack] for stack, _ in peak_stacks(path, whole_process=True)[0])


def test_captures_begin_late_over_and_over_and_leave_the_interpreter_as_it_was(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")
    profiles: list[Any] = []

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            spin_until(runs.begun("memray"))

        def look() -> None:
            profiles.append((sys.getprofile(), threading.getprofile()))

        actor, after = tasks.actor(work), tasks.actor(look, **{TRIGGERS_OPTION: []})
        ids = []
        for _ in range(10):
            ids.append(actor.send().message_id)
            after.send()
        tasks.finish()

    assert {stored(given).artifacts(task_id)["memray_profile"].status for task_id in ids} == {ArtifactStatus.STORED}
    assert profiles == [(None, None)] * 10


def test_an_async_actor_is_profiled_late(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["pyinstrument"], triggers=f"{NOW}: pyinstrument, stacks")

    with bench(given) as tasks:
        runs = Runs(tasks)

        async def work() -> None:
            (run,) = runs.process.runs.values()
            begun = run.late._begun
            while not begun.get("pyinstrument"):
                await asyncio.sleep(0.001)
            await rest()

        async def rest() -> None:
            await asyncio.sleep(0.1)

        task_id = tasks.run(work)

    artifacts = stored(given).artifacts(task_id)
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}
    assert b"rest" in stored(given).data(task_id, "pyinstrument_profile")
    text = stored(given).data(task_id, "task_logs").decode()
    coroutine = text.partition("coroutine of the task, ")[2].partition("\n\n")[0]
    assert "in test_an_async_actor_is_profiled_late.<locals>.work" in coroutine


def test_a_trigger_of_memory_fires_when_the_process_has_grown(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"], triggers="rss>1GiB: stacks; rss>2GiB: stacks")
    rss_bytes = [100 * MIB]
    looks: list[int] = []
    read = MemoryStateReader.read

    def read_and_note(reader: MemoryStateReader) -> MemoryState:
        looks.append(rss_bytes[0])
        return read(reader).model_copy(update={"rss_bytes": rss_bytes[0]})

    monkeypatch.setattr(MemoryStateReader, "read", read_and_note)

    with bench(given) as tasks:
        runs = Runs(tasks)

        def grow() -> None:
            (run,) = runs.process.runs.values()
            eventually(lambda: len(looks) >= 2, "it was looked at while it is small")
            assert not run.late._wrote_stacks
            rss_bytes[0] = 1025 * MIB
            eventually(runs.wrote_stacks(), "the trigger fired")

        task_id = tasks.run(grow)

    text = stored(given).data(task_id, "task_logs").decode()
    assert text.count("# Stacks of all threads") == 1
    assert "(rss>1GiB)" in text


def test_each_trigger_fires_once(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks; rss>1KB: stacks")
    looks: list[int] = []
    look = Late.look

    def count_and_look(late: Late, rss_bytes: int) -> None:
        look(late, rss_bytes)
        looks.append(rss_bytes)

    monkeypatch.setattr(Late, "look", count_and_look)
    with bench(given) as tasks:
        task_id = tasks.run(lambda: eventually(lambda: len(looks) > 2, "it was looked at three times"), actor_name="a")

    text = stored(given).data(task_id, "task_logs").decode()
    assert text.count("# Stacks of all threads") == 2


# What is said of those that did not fire.


def test_a_run_that_is_shorter_than_its_triggers_says_so(bench, settings, stored):
    given = settings(
        task_diagnostics=["memory"],
        task_diagnostics_on_request=["pyinstrument", "memray"],
        triggers="after 30s: pyinstrument, stacks; rss>1000GiB: memray, stacks",
    )

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1])

    artifacts = stored(given).artifacts(task_id)
    assert {name: (artifact.status, artifact.reason) for name, artifact in artifacts.items()} == {
        "memory_profile": ("stored", None),
        "pyinstrument_profile": ("skipped", "Its trigger did not fire: after 30s."),
        "memray_profile": ("skipped", "Its trigger did not fire: rss>1000GiB."),
        "task_logs": ("skipped", "Its trigger did not fire: after 30s, rss>1000GiB."),
    }


def test_a_collector_that_runs_from_the_start_has_no_use_for_its_trigger(bench, settings, stored):
    given = settings(task_diagnostics=["memory", "pyinstrument"], triggers=f"{NOW}: pyinstrument; {LATER}: memory")

    with bench(given) as tasks:
        task_id = tasks.run(time.sleep, 0.05)

    artifacts = stored(given).artifacts(task_id)
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}
    assert "from " not in json.loads(stored(given).data(task_id, "pyinstrument_profile"))["target_description"]


def test_two_triggers_begin_a_collector_once(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{NOW}: memory; after 2ms: memory, stacks")
    started: list[Recording] = []
    start = _MemoryRecording.start

    def start_and_note(recording: _MemoryRecording) -> None:
        started.append(recording)
        start(recording)

    monkeypatch.setattr(_MemoryRecording, "start", start_and_note)
    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: eventually(runs.wrote_stacks(), "both fired"), actor_name="a")

    assert len(started) == 1
    assert stored(given).artifacts(task_id)["memory_profile"].status == ArtifactStatus.STORED


def test_runs_without_any_selection_have_triggers_unless_they_want_nothing(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{LATER}: memory")

    with bench(given) as tasks:
        watched = tasks.run(sum, [1], actor_name="watched")
        tasks.run(sum, [1], actor_name="nothing", diagnostics=[])
        tasks.run(sum, [1], actor_name="none", diagnostics_triggers="")
        tasks.actor(sum, actor_name="other").send_with_options(args=([1],), diagnostics=[])
        tasks.finish()

    assert [run.task_id for run in stored(given).all_runs()] == [watched]
    assert stored(given).artifacts(watched)["memory_profile"].status == ArtifactStatus.SKIPPED


def test_the_triggers_of_an_actor_replace_the_others(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        own = tasks.run(sum, [1], actor_name="own", diagnostics_triggers="rss>1000GiB: memray")
        none = tasks.run(sum, [1], actor_name="none", diagnostics_triggers=[])
        by_settings = tasks.run(sum, [1])

    assert set(stored(given).artifacts(own)) == {"memory_profile", "memray_profile"}
    assert set(stored(given).artifacts(none)) == {"memory_profile"}
    assert set(stored(given).artifacts(by_settings)) == {"memory_profile", "task_logs"}


@pytest.mark.parametrize("option", ["after 3: stacks", "after 3s: memray", "after 3s: logs", 17])
def test_a_wrong_trigger_of_an_actor_is_none_and_said_once(bench, settings, stored, caplog, option):
    given = settings(task_diagnostics=["memory"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        actor = tasks.actor(sum, diagnostics_triggers=option)
        ids = [actor.send([1]).message_id for _ in range(3)]
        tasks.finish()

    assert [set(stored(given).artifacts(task_id)) for task_id in ids] == [{"memory_profile"}] * 3
    (record,) = [record for record in caplog.records if TRIGGERS_OPTION in record.getMessage()]
    assert "after 30s: pyinstrument" in record.getMessage()


def test_an_actor_cannot_have_the_other_engine_begin_late_either(bench, settings, stored, caplog):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_engine="profiler")

    with bench(given) as tasks:
        task_id = tasks.run(sum, [1], diagnostics_triggers=f"{NOW}: pyinstrument")

    (record,) = [record for record in caplog.records if TRIGGERS_OPTION in record.getMessage()]
    assert "cannot join later" in record.getMessage()
    assert stored(given).artifacts(task_id)["pyinstrument_profile"].status == ArtifactStatus.STORED


def test_what_a_message_says_of_the_engine_holds_for_what_begins_late_too(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory", "pyinstrument", "memray"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        actor = tasks.actor(sum, actor_name="work")
        message = actor.send_with_options(args=([1],), diagnostics={"pyinstrument": {"engine": "profiler"}})
        tasks.finish()
        after = actor.send_with_options(args=([1],), diagnostics=["memray"])
        tasks.finish()

    assert stored(given).artifacts(message.message_id)["pyinstrument_profile"].status == ArtifactStatus.STORED
    assert stored(given).artifacts(after.message_id)["memray_profile"].status == ArtifactStatus.STORED


def test_the_timer_of_a_trigger_rings_once(bench, settings, monkeypatch):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")
    rung: list[int] = []
    ring = Late._ring
    monkeypatch.setattr(Late, "_ring", lambda *arguments: (rung.append(1), ring(*arguments)))

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            eventually(runs.wrote_stacks(), "the trigger fired")
            time.sleep(0.1)

        tasks.run(work)

    assert rung == [1]


def test_a_look_that_fails_costs_that_look_alone(bench, settings, stored, monkeypatch, caplog):
    given = settings(task_diagnostics=["memory"], triggers="after 1s: stacks")
    read, fails = MemoryStateReader.read, [True]

    def out_of_descriptors(reader: MemoryStateReader) -> Any:
        if fails:
            raise OSError(24, "Too many open files")
        return read(reader)

    monkeypatch.setattr(MemoryStateReader, "read", out_of_descriptors)

    with bench(given) as tasks, caplog.at_level(logging.WARNING):
        runs = Runs(tasks)

        def work() -> None:
            eventually(lambda: "could not be noted" in caplog.text, "a look failed")
            fails.clear()
            eventually(runs.wrote_stacks(), "a later look fired the trigger")

        task_id = tasks.run(work)

    assert stored(given).artifacts(task_id)["task_logs"].status == ArtifactStatus.STORED


def test_a_run_of_triggers_alone_knows_its_parent(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{LATER}: stacks")

    with bench(given) as tasks:
        child = tasks.actor(lambda: None, actor_name="child")
        tasks.actor(lambda: child.send() and None, actor_name="top").send()
        tasks.finish()

    runs = {run.actor_name: run for run in stored(given).all_runs()}
    assert runs["child"].parent_run_id == runs["top"].run_id


def test_one_that_is_not_installed_says_so(bench, settings, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "memray", None)
    given = settings(task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")

    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: spin_until(runs.begun("memray")), actor_name="a")

    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert artifact.status == ArtifactStatus.UNAVAILABLE
    assert "pip install" in artifact.reason


# That one run does not notice the other, and no task any of it.


@pytest.mark.parametrize("step", ["record", "start", "entered", "stop", "save"])
def test_one_that_breaks_late_costs_itself_alone(bench, settings, stored, monkeypatch, caplog, step):
    given = settings(
        task_diagnostics=["pyinstrument"], task_diagnostics_on_request=LATE, triggers=f"{NOW}: memray, memory"
    )
    owner = MemrayCollector if step == "record" else _MemrayRecording
    original = getattr(owner, step)

    def broken(*arguments: Any) -> Any:
        if step != "record":
            original(*arguments)
        raise OSError("no room")

    monkeypatch.setattr(owner, step, broken)
    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: spin_until(runs.begun("memray", "memory")), actor_name="a")
        monkeypatch.undo()
        after = tasks.run(lambda: spin_until(runs.begun("memray", "memory")), actor_name="b")

    assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
    artifacts = stored(given).artifacts(task_id)
    statuses = {name: artifact.status for name, artifact in artifacts.items()}
    assert statuses.pop("memray_profile") == ArtifactStatus.FAILED
    assert set(statuses.values()) == {ArtifactStatus.STORED}
    assert "OSError at " in artifacts["memray_profile"].reason
    assert [r.levelno for r in caplog.records if "'memray'" in r.getMessage()] == [logging.WARNING]
    if step in ("record", "save"):  # The others leave a Tracker behind, as they may when started early.
        assert stored(given).artifacts(after)["memray_profile"].status == ArtifactStatus.STORED


def test_a_run_that_ends_while_its_trigger_starts_something_does_not_wait(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray")
    starting, ended = threading.Event(), threading.Event()
    start = _MemrayRecording.start

    def start_slowly(recording: _MemrayRecording) -> None:
        starting.set()
        assert ended.wait(PATIENCE_S)
        start(recording)

    monkeypatch.setattr(_MemrayRecording, "start", start_slowly)

    # When a run ends, and is published, while the ticker's thread is still about to start a Tracker
    with bench(given) as tasks:
        task_id = tasks.run(lambda: starting.wait(PATIENCE_S), actor_name="a")
        artifact = stored(given).artifacts(task_id)["memray_profile"]
        ended.set()
        # Then the Tracker is taken back, and the next one can have it
        monkeypatch.undo()
        hook = tasks.diagnostics.process.services.profile_hook
        runs = Runs(tasks)
        eventually(lambda: hook._tracker is None and memray_is_idle(), "the Tracker was stopped")
        after = tasks.run(lambda: spin_until(runs.begun("memray")), actor_name="b")
        left = [path.name for path in given.spool.rglob("*memray*")]

    assert (artifact.status, artifact.reason) == ("skipped", "The run ended while its trigger was starting it.")
    assert stored(given).artifacts(after)["memray_profile"].status == ArtifactStatus.STORED
    assert left == []


def memray_is_idle() -> bool:
    try:
        with memray.Tracker(os.devnull):
            return True
    except RuntimeError:
        return False


def test_many_runs_end_at_about_the_moment_their_triggers_fire(bench, settings, stored, caplog):
    names = ["memory", "pyinstrument", "memray"]
    given = settings(task_diagnostics_on_request=names, triggers="after 2ms: memory, pyinstrument, memray, stacks")

    # When tasks of 0 to 6 ms run side by side
    with bench(given, threads=4) as tasks, caplog.at_level(logging.WARNING):
        actor = tasks.actor(time.sleep)
        ids = [actor.send(number % 7 / 1000).message_id for number in range(200)]
        tasks.finish()

    # Then each artifact has a status that is true
    for task_id in ids:
        for artifact in stored(given).artifacts(task_id).values():
            assert artifact.status in (ArtifactStatus.STORED, ArtifactStatus.SKIPPED)
            assert (artifact.reason is None) == (artifact.status == ArtifactStatus.STORED)
    assert caplog.records == []
    assert not stored(given).check()


def test_a_tracker_that_another_run_has_is_not_waited_for(bench, settings, stored):
    given = settings(
        task_diagnostics_on_request=["memray"], triggers=f"{NOW}: memray, stacks", memray_wait=PATIENCE_S * 10
    )
    both = threading.Barrier(2)

    with bench(given, threads=2) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            spin_until(runs.begun("memray"))
            both.wait(PATIENCE_S)

        actor = tasks.actor(work)
        ids = [actor.send().message_id for _ in range(2)]
        tasks.finish()

    statuses = {stored(given).artifacts(task_id)["memray_profile"].status for task_id in ids}
    assert statuses == {ArtifactStatus.STORED, ArtifactStatus.SKIPPED}


def test_an_interrupt_in_the_end_of_what_began_late_changes_nothing(bench, settings, stored, monkeypatch):
    from dramatiq.middleware import Interrupt

    given = settings(task_diagnostics_on_request=["memory"], triggers=f"{NOW}: memory; {LATER}: stacks")
    end = Late.end
    struck: list[int] = []

    def end_and_strike(late: Late) -> None:
        end(late)
        if not struck:
            struck.append(1)
            raise Interrupt

    monkeypatch.setattr(Late, "end", end_and_strike)
    with bench(given) as tasks:
        runs = Runs(tasks)
        task_id = tasks.run(lambda: spin_until(runs.begun("memory")), actor_name="a")

    assert struck
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.SUCCEEDED
    statuses = {name: artifact.status for name, artifact in stored(given).artifacts(task_id).items()}
    assert statuses == {"memory_profile": ArtifactStatus.STORED, "task_logs": ArtifactStatus.SKIPPED}


def test_a_run_that_has_triggers_registers_nothing_unless_one_is_due_soon(bench, settings):
    given = settings(
        task_diagnostics=["pyinstrument"],
        triggers="after 1s: memory; rss>1GiB: stacks; after 2h: stacks",
        task_diagnostics_on_request=["memory"],
    )

    with bench(given) as tasks:
        seen: list[Any] = []
        runs = Runs(tasks)
        tasks.run(lambda: seen.append(runs.current().late), actor_name="a")

    (late,) = seen
    assert late._timers == []


# Stacks.


def test_stacks_are_those_of_all_threads_the_tasks_own_first(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")
    release = threading.Event()

    def wait_beside() -> None:
        release.wait(PATIENCE_S)

    beside = threading.Thread(target=wait_beside, name="beside\nthe task")
    beside.start()
    try:
        with bench(given) as tasks:
            runs = Runs(tasks)

            def wait_for_stacks() -> None:
                spin_until(runs.wrote_stacks())

            task_id = tasks.run(wait_for_stacks)
    finally:
        release.set()
        beside.join()

    text = stored(given).data(task_id, "task_logs").decode()
    artifact = stored(given).artifacts(task_id)["task_logs"]
    assert (artifact.filename, artifact.media_type) == ("task.log", "text/plain")
    head, own, *others = text.split("\n\n")
    assert f"({NOW})" in head
    assert "the task's own" in own
    assert "in test_stacks_are_those_of_all_threads_the_tasks_own_first.<locals>.wait_for_stacks" in own
    assert not any("dramatiq_diag.ticker" in other for other in others)
    (other,) = [other for other in others if "wait_beside" in other]
    assert "'beside\\nthe task'" in other


def test_stacks_go_into_the_log_of_a_run_that_has_one(bench, settings, stored):
    given = settings(task_diagnostics=["logs"], triggers=f"{NOW}: stacks; {LATER}: stacks")

    with bench(given) as tasks:
        runs = Runs(tasks)

        def work() -> None:
            logging.getLogger("work").warning("before")
            spin_until(runs.wrote_stacks())
            logging.getLogger("work").warning("after")

        task_id = tasks.run(work)
        quiet = tasks.run(sum, [1], diagnostics_triggers=f"{LATER}: stacks")

    text = stored(given).data(task_id, "task_logs").decode()
    assert text.index("before") < text.index("# Stacks of all threads") < text.index("after")
    artifact = stored(given).artifacts(quiet)["task_logs"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)


def test_stacks_are_bounded(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")
    release = threading.Event()

    def deep(levels: int) -> None:
        release.wait(PATIENCE_S) if levels == 0 else deep(levels - 1)

    threads = [threading.Thread(target=deep, args=(200,), name="n" * 5000) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        with bench(given) as tasks:
            runs = Runs(tasks)
            task_id = tasks.run(lambda: spin_until(runs.wrote_stacks()), actor_name="a")
    finally:
        release.set()
        for thread in threads:
            thread.join()

    data = stored(given).data(task_id, "task_logs")
    assert len(data) <= MAX_BYTES
    assert b"the task's own" in data
    assert data.endswith(b"... The rest is cut off.\n")


def test_stacks_keep_no_object_alive(bench, settings):
    given = settings(task_diagnostics=["memory"], triggers=f"{NOW}: stacks")

    class Held:
        pass

    with bench(given) as tasks:
        runs = Runs(tasks)
        references: list[Any] = []

        def inner() -> None:
            held = Held()
            references.append(weakref.ref(held))
            spin_until(runs.wrote_stacks())

        def work() -> bool:
            inner()
            return references[0]() is None

        gc.disable()
        try:
            gone: list[bool] = []
            tasks.run(lambda: gone.append(work()), actor_name="a")
        finally:
            gc.enable()

    assert gone == [True]
