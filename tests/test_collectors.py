"""The collectors: one contract over all of them, then what each promises."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import importlib
import json
import logging
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import memray
import psutil
import pyinstrument
import pytest
from dramatiq.middleware import Middleware
from pyinstrument.renderers import HTMLRenderer
from pyinstrument.session import Session
from support import PATIENCE_S, Stored, eventually

from dramatiq_diag.collectors.names import BUILTIN, COLLECTOR_NAMES, all_names, installed
from dramatiq_diag.collectors.registry import load
from dramatiq_diag.collectors.time_profile.pruning import MAX_NODES, prune
from dramatiq_diag.collectors.time_profile.sampler import MAX_STACKS, Profile
from dramatiq_diag.runtime.stacks import OTHER
from dramatiq_diag.statuses import ArtifactStatus, RunStatus

#: Collector -> the key, the file and the media type of its artifact, and its stored form.
CONTRACT = {
    "memory": ("memory_profile", "memory.datum", "text/plain", None),
    "memray": ("memray_profile", "memray.bin", "application/octet-stream", None),
    "pyinstrument": ("pyinstrument_profile", "pyinstrument.html", "text/html", "pyinstrument.session.json"),
    "logs": ("task_logs", "task.log", "text/plain", None),
    "debug-logs": ("task_logs", "task.log", "text/plain", None),
    "resources": ("resources_profile", "resources.csv", "text/csv", None),
}

VARIANTS = [
    pytest.param("memory", {}, id="memory"),
    pytest.param("memray", {}, id="memray"),
    pytest.param("pyinstrument", {}, id="pyinstrument"),
    pytest.param("pyinstrument", {"pyinstrument_engine": "profiler"}, id="pyinstrument-profiler"),
    pytest.param("logs", {}, id="logs"),
    pytest.param("debug-logs", {}, id="debug-logs"),
    pytest.param("resources", {}, id="resources"),
]

MEGABYTE = 1024 * 1024


def spin(seconds: float) -> int:
    """Keeps the processor busy in pure Python, and says so; what other processes take of it does not count."""
    count = 0
    logging.getLogger(__name__).warning("Spins.")
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        count += 1
    return count


# One contract.


def test_every_collector_keeps_the_contract():
    assert set(CONTRACT) == set(COLLECTOR_NAMES)


@pytest.mark.parametrize(("name", "options"), VARIANTS)
class TestContract:
    def test_its_artifact_is_named_and_stored_as_promised(self, bench, settings, stored, name, options):
        given = settings(task_diagnostics=[name], **options)
        key, filename, media_type, stored_as = CONTRACT[name]

        with bench(given) as tasks:
            task_id = tasks.run(spin, 0.02)

        artifacts = stored(given).artifacts(task_id)
        assert set(artifacts) == {key}
        artifact = artifacts[key]
        data = stored(given).data(task_id, key)
        assert (artifact.status, artifact.reason) == (ArtifactStatus.STORED, None)
        assert (artifact.filename, artifact.media_type, artifact.stored_as) == (filename, media_type, stored_as)
        assert artifact.size_bytes == len(data) > 0
        assert artifact.sha256 == hashlib.sha256(data).hexdigest()
        assert stat.S_IMODE(stored(given).path(task_id, key).stat().st_mode) == 0o600

    def test_what_it_leaves_in_the_spool_is_private(self, bench, settings, monkeypatch, name, options):
        given = settings(task_diagnostics=[name], **options)
        modes: dict[str, int] = {}

        # Given a look at the spool while a run is on its way to the store
        from dramatiq_diag.store.store import Store

        publish = Store.publish

        def look_then_publish(store: Store, bundles: Any) -> None:
            modes.update({str(path): stat.S_IMODE(path.stat().st_mode) for path in given.spool.rglob("*")})
            publish(store, bundles)

        monkeypatch.setattr(Store, "publish", look_then_publish)

        with bench(given) as tasks:
            tasks.run(spin, 0.02)

        # Then directories are 0700 and files 0600
        assert len(modes) >= 3 - (name not in ("memray", "pyinstrument"))
        assert set(modes.values()) == {0o700, 0o600}

    def test_a_task_that_raises_has_its_artifact(self, bench, settings, stored, name, options):
        given = settings(task_diagnostics=[name], **options)

        def fail() -> None:
            spin(0.02)
            raise RuntimeError("after some work")

        with bench(given) as tasks:
            task_id = tasks.run(fail)

        assert stored(given).runs(task_id)[0].status == RunStatus.FAILED
        assert stored(given).artifacts(task_id)[CONTRACT[name][0]].status == ArtifactStatus.STORED

    def test_runs_on_two_threads_do_not_share_state(self, bench, settings, stored, name, options):
        given = settings(task_diagnostics=[name], memray_wait=PATIENCE_S, **options)

        with bench(given, threads=2) as tasks:
            actor = tasks.actor(spin)
            ids = [actor.send(0.02).message_id for _ in range(6)]
            tasks.finish()

        for task_id in ids:
            assert stored(given).artifacts(task_id)[CONTRACT[name][0]].status == ArtifactStatus.STORED
            data = stored(given).data(task_id, CONTRACT[name][0])
            assert [other for other in ids if other.encode() in data] == ([task_id] if name == "pyinstrument" else [])
            if name == "resources":
                assert data.count(b"\n") == 3
            if name == "memory":
                elapsed = [row[0] for row in _rows(data.decode())]
                assert elapsed == sorted(elapsed)

    @pytest.mark.parametrize("step", ["record", "start", "stop", "save"])
    def test_one_that_breaks_costs_itself_alone(
        self, bench, settings, stored, monkeypatch, caplog, name, options, step
    ):
        given = settings(task_diagnostics=[*all_names(), name], **options)
        if options:
            given = settings(task_diagnostics=["memory", "pyinstrument"], **options)
        calls: list[int] = []

        # Given a collector that raises at one step, with its work done, as a full disk or a bug would have it
        recording_class = _recording_class(name, options)
        owner = _collector_class(name) if step == "record" else recording_class
        original = getattr(owner, step)

        def broken(*args: Any) -> None:
            if step != "record":
                with contextlib.suppress(OSError):
                    original(*args)
            if step == "start":
                args[0].stop()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(owner, step, broken)

        # When three tasks run
        with bench(given) as tasks, caplog.at_level("WARNING"):
            actor = tasks.actor(lambda: calls.append(1), actor_name="counted")
            ids = [actor.send().message_id for _ in range(3)]
            tasks.finish()

        # Then the tasks are unharmed, that artifact says why it failed, the others are whole, and one warning is logged
        assert calls == [1, 1, 1]
        for task_id in ids:
            assert stored(given).runs(task_id)[0].status == RunStatus.SUCCEEDED
            for key, artifact in stored(given).artifacts(task_id).items():
                if key == CONTRACT[name][0]:
                    assert artifact.status == ArtifactStatus.FAILED
                    assert "No space left on device" in artifact.reason
                else:
                    assert (key, artifact.status, artifact.reason) == (key, ArtifactStatus.STORED, None)
        (record,) = caplog.records
        assert name in record.getMessage()
        assert record.exc_info is not None
        assert not stored(given).check()


@pytest.mark.parametrize("step", ["start", "stop", "save"])
def test_a_collector_that_hangs_costs_itself_once(bench, settings, stored, monkeypatch, caplog, step):
    given = settings(task_diagnostics=["memory", "pyinstrument"])
    recording_class, go_on = _recording_class("memory", {}), threading.Event()
    original, calls = getattr(recording_class, step), []

    # Given a collector that is not known to be quick, and hangs at one step
    def hang(recording: Any) -> None:
        original(recording)
        if step == "start":
            recording.stop()
        go_on.wait(PATIENCE_S)

    monkeypatch.setattr(recording_class, "runs_inline", False)
    monkeypatch.setattr(recording_class, step, hang)
    monkeypatch.setattr("dramatiq_diag.worker.recordings.STEP_TIMEOUT_S", 0.1)

    # When three tasks run
    with bench(given) as tasks, caplog.at_level("WARNING"):
        actor = tasks.actor(lambda: calls.append(1), actor_name="counted")
        ids = []
        for _ in range(3):
            ids.append(actor.send().message_id)
            tasks.finish()
        go_on.set()
        eventually(lambda: "dramatiq_diag.bounded" not in _thread_names(), "the abandoned thread ended")

    # Then they are unharmed, the first artifact says that it was abandoned, and the later ones that it was left out
    assert calls == [1, 1, 1]
    found = [stored(given).artifacts(task_id) for task_id in ids]
    assert {artifacts["pyinstrument_profile"].status for artifacts in found} == {ArtifactStatus.STORED}
    first, *later = [artifacts["memory_profile"] for artifacts in found]
    assert first.status == ArtifactStatus.FAILED
    assert first.reason == f"StepTimeoutError at {step}: It did not return within 0.1 s and was abandoned."
    assert {artifact.status for artifact in later} == {ArtifactStatus.SKIPPED}
    assert {artifact.reason for artifact in later} == {"It hung in another run of this process."}
    (record,) = caplog.records
    assert "'memory'" in record.getMessage()


def test_runs_beside_one_in_which_a_collector_hangs_do_not_wait_for_it_either(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory"])
    recording_class, go_on = _recording_class("memory", {}), threading.Event()
    original, waited = recording_class.stop, []
    both_run = threading.Barrier(2)

    # Given two runs at once, of a collector that hangs when it is stopped
    def hang(recording: Any) -> None:
        original(recording)
        waited.append(1)
        go_on.wait(PATIENCE_S)

    monkeypatch.setattr(recording_class, "runs_inline", False)
    monkeypatch.setattr(recording_class, "stop", hang)
    monkeypatch.setattr("dramatiq_diag.worker.recordings.STEP_TIMEOUT_S", 0.1)
    first_ended = threading.Event()

    def work(number: int) -> None:
        both_run.wait(PATIENCE_S)
        if number:
            first_ended.wait(PATIENCE_S)

    with bench(given, threads=2) as tasks:
        actor = tasks.actor(work)
        ids = [actor.send(number).message_id for number in range(2)]
        # When the first has been given up
        eventually(lambda: tasks.diagnostics.process.stuck, "the collector is known to hang")
        first_ended.set()
        tasks.finish()
        tasks.diagnostics.process.services.ticker._timers.clear()  # Of the second run: it was never told to stop.
        go_on.set()
        eventually(lambda: "dramatiq_diag.bounded" not in _thread_names(), "the abandoned thread ended")

    # Then the second did not wait
    assert waited == [1]
    reasons = {stored(given).artifacts(task_id)["memory_profile"].reason.partition(" at stop: ")[2] for task_id in ids}
    assert reasons == {"It did not return within 0.1 s and was abandoned.", "It hung in another run of this process."}


def test_a_collector_that_hangs_when_it_is_to_drop_something_costs_itself(bench, settings, stored, monkeypatch):
    given = settings(task_diagnostics=["memory", "pyinstrument"], keep_if="duration>1h")
    recording_class, go_on = _recording_class("memory", {}), threading.Event()
    monkeypatch.setattr(recording_class, "runs_inline", False)
    monkeypatch.setattr(recording_class, "discard", lambda _: go_on.wait(PATIENCE_S))
    monkeypatch.setattr("dramatiq_diag.worker.recordings.STEP_TIMEOUT_S", 0.1)

    with bench(given) as tasks:
        ids = [tasks.run(lambda: None, actor_name=name) for name in ("first", "second")]
        go_on.set()
        eventually(lambda: "dramatiq_diag.bounded" not in _thread_names(), "the abandoned thread ended")

    first, second = (stored(given).artifacts(task_id) for task_id in ids)
    assert (
        first["memory_profile"].reason
        == "StepTimeoutError at discard: It did not return within 0.1 s and was abandoned."
    )
    assert second["memory_profile"].reason == "It hung in another run of this process."
    assert {found["pyinstrument_profile"].status for found in (first, second)} == {ArtifactStatus.DROPPED}


@pytest.mark.parametrize("error", [RuntimeError("broken"), SystemExit(3)])
def test_what_a_slow_collector_raises_is_told_as_ever(bench, settings, stored, monkeypatch, error):
    given = settings(task_diagnostics=["memory"])
    recording_class = _recording_class("memory", {})

    def fail(_recording: Any) -> None:
        raise error

    monkeypatch.setattr(recording_class, "runs_inline", False)
    monkeypatch.setattr(recording_class, "save", fail)
    with bench(given) as tasks:
        task_id = tasks.run(lambda: None, actor_name="work")

    artifact = stored(given).artifacts(task_id)["memory_profile"]
    assert (artifact.status, artifact.reason) == (ArtifactStatus.FAILED, f"{type(error).__name__} at save: {error}")


def _thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def _collector_class(name: str) -> Any:
    return getattr(_module(name), "".join(map(str.capitalize, name.split("-"))) + "Collector")


def _module(name: str) -> Any:
    return importlib.import_module(f"dramatiq_diag.collectors{BUILTIN[name].target.partition(':')[0]}")


def _recording_class(name: str, options: dict[str, str]) -> Any:
    if name == "pyinstrument":
        return getattr(_module(name), "ProfilerRecording" if options else "_SamplerRecording")
    return getattr(_module(name), f"_{name.removeprefix('debug-').capitalize()}Recording")


# Not installed.


@pytest.mark.parametrize("package", ["memray", "pyinstrument"])
def test_a_missing_package_gives_unavailable_and_the_remedy(bench, settings, stored, monkeypatch, package):
    given = settings(task_diagnostics=["memory", package])
    calls: list[int] = []

    # Given a package that cannot be imported
    monkeypatch.setitem(sys.modules, package, None)

    # When a task runs
    with bench(given) as tasks:
        task_id = tasks.run(lambda: calls.append(1), actor_name="counted")

    # Then it is unharmed, and its artifact names the command that mends it
    monkeypatch.undo()
    artifacts = stored(given).artifacts(task_id)
    missing = artifacts[CONTRACT[package][0]]
    assert calls == [1]
    assert missing.status == ArtifactStatus.UNAVAILABLE
    assert f"pip install 'dramatiq_diag[{package}]'" in missing.reason
    assert (missing.filename, missing.media_type) == CONTRACT[package][1:3]
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED


@pytest.mark.parametrize("package", ["memray", "pyinstrument"])
def test_all_means_all_that_are_installed(bench, settings, stored, monkeypatch, package):
    given = settings(task_diagnostics="all")
    monkeypatch.setitem(sys.modules, package, None)

    with bench(given) as tasks:
        task_id = tasks.run(spin, 0)

    monkeypatch.undo()
    assert set(stored(given).artifacts(task_id)) == {CONTRACT[name][0] for name in all_names() if name != package}
    assert not installed("memray") or installed("pyinstrument")


def test_a_package_that_breaks_at_import_is_unavailable(settings, monkeypatch):
    def explode(self: Any, settings: Any) -> None:
        raise OSError("libunwind.so.8: cannot open shared object file")

    monkeypatch.setattr("dramatiq_diag.collectors.memray.MemrayCollector.__init__", explode)

    collectors = load(["memray", "memory"], settings())

    assert list(collectors) == ["memray", "memory"]
    assert "libunwind" in collectors["memray"].reason  # type: ignore[attr-defined]


# memory.


def _rows(text: str) -> list[tuple[float, float]]:
    return [tuple(map(float, line.split("\t"))) for line in text.splitlines() if not line.startswith("#")]  # type: ignore[misc]


def test_the_memory_log_is_what_gnuplot_plots(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], memory_interval=0.05)

    with bench(given) as tasks:
        task_id = tasks.run(time.sleep, 0.4, actor_name="sleep")

    text = stored(given).data(task_id, "memory_profile").decode("ascii")
    lines = text.splitlines()
    assert text.endswith("\n")
    assert [line for line in lines if line.startswith("#")] == [lines[0]]
    assert all(line.count("\t") == 1 for line in lines)
    assert all(len(line.split()) == 2 for line in lines[1:])
    rows = _rows(text)
    elapsed = [row[0] for row in rows]
    # A sample at the start, every interval and at the end, at true elapsed seconds
    assert elapsed == sorted(elapsed)
    assert elapsed[0] < 0.05
    assert elapsed[-1] >= 0.4
    early = [moment_s for moment_s in (0.05, 0.1, 0.2, 0.4) if moment_s <= elapsed[-1]]
    assert 4 <= len(rows) <= 10 + len(early)
    rss_mb = psutil.Process().memory_info().rss / MEGABYTE
    assert all(rss_mb / 3 < row[1] < rss_mb * 3 for row in rows)


def test_the_memory_log_has_the_interval_that_was_set(bench, settings, stored):
    given = settings(task_diagnostics=["memory"])

    with bench(given) as tasks:
        task_id = tasks.run(spin, 0.02)

    # Then there are a sample at each end, and of those in between the early ones alone: the interval is two seconds
    rows = _rows(stored(given).data(task_id, "memory_profile").decode())
    early = [moment_s for moment_s in (0.05, 0.1, 0.2, 0.4, 0.8, 1.6) if moment_s <= rows[-1][0]]
    assert 2 <= len(rows) <= 2 + len(early)


def test_rss_rises_with_what_is_held_and_falls_with_what_is_freed(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], memory_interval=0.02)
    log: list[int] = []

    def hold_and_free() -> None:
        process = psutil.Process()
        held = bytearray(200 * MEGABYTE)
        for start in range(0, len(held), 4096):
            held[start] = 1
        log.append(process.memory_info().rss)
        time.sleep(0.1)
        del held
        time.sleep(0.1)
        log.append(process.memory_info().rss)

    with bench(given) as tasks:
        task_id = tasks.run(hold_and_free)

    column = [row[1] for row in _rows(stored(given).data(task_id, "memory_profile").decode())]
    peak, last = max(column), column[-1]
    assert peak - column[0] > 150
    assert peak - last > 150
    assert abs(peak - log[0] / MEGABYTE) < 20
    run = stored(given).runs(task_id)[0]
    assert abs(run.peak_rss_bytes / MEGABYTE - peak) < 0.01


def test_one_thread_samples_for_all_tasks(bench, settings, stored):
    given = settings(task_diagnostics=["memory"], memory_interval=0.01)
    together = threading.Barrier(4)

    def meet() -> None:
        together.wait(PATIENCE_S)
        names.append([thread.name for thread in threading.enumerate() if thread.name.startswith("dramatiq_diag")])
        together.wait(PATIENCE_S)

    names: list[list[str]] = []
    with bench(given, threads=4) as tasks:
        actor = tasks.actor(meet)
        for _ in range(4):
            actor.send()
        tasks.finish()

    threads = ("captures", "publisher", "saver", "ticker")
    assert sorted(names[0]) == [f"dramatiq_diag.{name}" for name in threads]


# pyinstrument.


def _session(reader: Stored, task_id: str) -> Session:
    return Session.from_json(json.loads(reader.data(task_id, "pyinstrument_profile")))


def _functions(frame: Any) -> Iterator[str]:
    if frame is not None:
        yield frame.function
        for child in frame.children:
            yield from _functions(child)


def _seconds_in(frame: Any, function: str) -> float:
    if frame.function == function:
        return float(frame.time)
    return sum(_seconds_in(child, function) for child in frame.children)


def parse_pages(seconds: float) -> None:
    spin(seconds)


def mixed_work() -> None:
    parse_pages(0.2)
    time.sleep(0.1)


@pytest.mark.parametrize("engine", ["sampler", "profiler"])
def test_the_profile_is_rooted_at_the_actors_function(bench, settings, stored, engine):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001, pyinstrument_engine=engine)

    with bench(given) as tasks:
        task_id = tasks.run(mixed_work)

    session = _session(stored(given), task_id)
    root = session.root_frame()
    assert root.function == "mixed_work"
    assert {"parse_pages", "spin"} <= set(_functions(root))
    assert not {"process_message", "__call__", "run", "_bootstrap"} & set(_functions(root))
    assert 0.25 < session.duration < 5
    assert 0.15 < _seconds_in(root, "parse_pages") < session.duration
    assert session.sample_count > 10
    assert task_id in session.target_description


@pytest.mark.parametrize("engine", ["sampler", "profiler"])
def test_the_profile_renders_as_html(bench, settings, stored, engine):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001, pyinstrument_engine=engine)

    with bench(given) as tasks:
        task_id = tasks.run(mixed_work)

    html = HTMLRenderer().render(_session(stored(given), task_id))
    assert html.startswith("<!DOCTYPE html>")
    assert "parse_pages" in html


@pytest.mark.parametrize("engine", ["sampler", "profiler"])
def test_a_task_shorter_than_a_sample_still_has_its_root(bench, settings, stored, engine):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.5, pyinstrument_engine=engine)

    def quick() -> None:
        return None

    with bench(given) as tasks:
        task_id = tasks.run(quick)

    assert _session(stored(given), task_id).root_frame().function == "quick"


def test_a_callable_that_is_no_function_has_a_root_as_well(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)

    class Parser:
        def __call__(self) -> None:
            parse_pages(0.05)

    parser = Parser()
    parser.__module__ = __name__

    with bench(given) as tasks:
        task_id = tasks.run(parser, actor_name="parse")

    assert "parse_pages" in set(_functions(_session(stored(given), task_id).root_frame()))


async def fetch_row(seconds: float) -> None:
    await asyncio.sleep(seconds)
    spin(seconds)


async def fetch_page(seconds: float) -> None:
    await fetch_row(seconds)


@pytest.mark.parametrize("with_memray", [False, True])
def test_an_async_actor_shows_its_coroutines_while_they_run_and_while_they_await(bench, settings, stored, with_memray):
    names = ["pyinstrument", "memray"] if with_memray else ["pyinstrument"]
    given = settings(task_diagnostics=names, pyinstrument_interval=0.001)

    with bench(given, threads=2) as tasks:
        actor = tasks.actor(fetch_page)
        ids = [actor.send(0.2).message_id for _ in range(2)]
        tasks.finish()

    for task_id in ids:
        root = _session(stored(given), task_id).root_frame()
        functions = set(_functions(root))
        assert root.function == "fetch_page"
        assert {"fetch_row", "spin", "[await]"} <= functions
        assert not {"run_coroutine", "wrapped_coro", "select", "run_forever", "result"} & functions
        assert _seconds_in(root, "[await]") > 0.1
        assert _seconds_in(root, "spin") > 0.1


def test_an_async_actor_that_fails_has_its_profile(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)

    async def fail_after_a_while() -> None:
        await asyncio.sleep(0.05)
        raise ValueError("no row")

    with bench(given) as tasks:
        task_id = tasks.run(fail_after_a_while)

    assert stored(given).runs(task_id)[0].exception_type == "ValueError"
    assert _session(stored(given), task_id).root_frame().function == "fail_after_a_while"


def test_pyinstruments_own_profiler_declines_an_async_actor(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_engine="profiler")

    with bench(given) as tasks:
        task_id = tasks.run(fetch_page, 0.001)

    artifact = stored(given).artifacts(task_id)["pyinstrument_profile"]
    assert artifact.status == ArtifactStatus.SKIPPED
    assert "sampler" in artifact.reason


def test_the_profile_is_whole_while_memray_tracks_the_same_task(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument", "memray"], pyinstrument_interval=0.001)

    with bench(given) as tasks:
        task_id = tasks.run(mixed_work)

    artifacts = stored(given).artifacts(task_id)
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}
    session = _session(stored(given), task_id)
    root = session.root_frame()
    assert root.function == "mixed_work"
    assert _seconds_in(root, "parse_pages") > 0.15
    assert root.time > 0.7 * session.duration  # A profiler that memray silences stops at once.


def test_the_profile_is_whole_while_memray_tracks_another_thread(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["pyinstrument", "memray"], pyinstrument_interval=0.001)
    tracked, profiled = threading.Event(), threading.Event()

    def tracked_task() -> None:
        assert profiled.wait(PATIENCE_S)
        tracked.set()

    def profiled_task() -> None:
        parse_pages(0.1)
        profiled.set()
        assert tracked.wait(PATIENCE_S)
        parse_pages(0.2)

    # When memray starts and ends in one thread while another is being profiled
    with bench(given, threads=2) as tasks:
        profiled_id = tasks.actor(profiled_task, diagnostics=["pyinstrument"]).send().message_id
        tracked_id = tasks.actor(tracked_task, diagnostics=["memray"]).send().message_id
        tasks.finish()

    # Then the profile goes on well past the first of the two turns of its work
    assert stored(given).artifacts(tracked_id)["memray_profile"].status == ArtifactStatus.STORED
    root = _session(stored(given), profiled_id).root_frame()
    assert _seconds_in(root, "parse_pages") > 0.15


def test_pyinstruments_own_profiler_and_memray_keep_out_of_each_others_way(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument", "memray"], pyinstrument_engine="profiler")

    # When both are asked for, twice
    with bench(given) as tasks:
        ids = [tasks.run(spin, 0.05, actor_name=f"spin{number}") for number in range(2)]

    # Then one of them is declined, with a reason that names the other, and nothing breaks for the next
    for task_id in ids:
        artifacts = stored(given).artifacts(task_id)
        assert artifacts["memray_profile"].status == ArtifactStatus.STORED
        assert artifacts["pyinstrument_profile"].status == ArtifactStatus.SKIPPED
        assert "memray" in artifacts["pyinstrument_profile"].reason
        assert task_id in artifacts["pyinstrument_profile"].reason


def test_memray_is_declined_while_pyinstruments_own_profiler_runs(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["pyinstrument", "memray"], pyinstrument_engine="profiler")
    started, done = threading.Event(), threading.Event()

    def profiled_task() -> None:
        started.set()
        assert done.wait(PATIENCE_S)

    with bench(given, threads=2) as tasks:
        profiled_id = tasks.actor(profiled_task, diagnostics=["pyinstrument"]).send().message_id
        assert started.wait(PATIENCE_S)
        refused_id = tasks.actor(done.set, actor_name="refused", diagnostics=["memray"]).send().message_id
        tasks.finish()

    refused = stored(given).artifacts(refused_id)["memray_profile"]
    assert refused.status == ArtifactStatus.SKIPPED
    assert profiled_id in refused.reason
    assert stored(given).artifacts(profiled_id)["pyinstrument_profile"].status == ArtifactStatus.STORED


def test_the_switch_interval_is_the_applications_again_after_a_task(bench, settings):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    seen: list[float] = []
    found = sys.getswitchinterval()

    def look() -> None:
        spin(0.05)
        seen.append(sys.getswitchinterval())

    with bench(given) as tasks:
        tasks.run(look)

    assert seen[0] <= found
    assert sys.getswitchinterval() == found


def test_a_switch_interval_that_the_application_chose_stays(bench, settings):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    seen: list[float] = []
    found = sys.getswitchinterval()

    def look() -> None:
        spin(0.05)
        seen.append(sys.getswitchinterval())

    sys.setswitchinterval(0.02)
    try:
        with bench(given) as tasks:
            tasks.run(look)
        assert (seen, sys.getswitchinterval()) == ([0.02], 0.02)
    finally:
        sys.setswitchinterval(found)


def test_the_memory_of_a_profile_is_bounded_and_its_lightest_stacks_are_folded():
    # Given a profile with one heavy stack, and more light ones below one caller than a profile may hold.
    profile = Profile(1, spin.__code__, is_async=False)
    profile.add(("root", 1, "heavy", 1), 10.0)
    for number in range(3 * MAX_STACKS):
        profile.add(("root", 1, "caller", 1, f"light_{number}", 1, "leaf", 1), 0.001)

    # Then the heavy one is as it was, no time is lost, and the caller of what was folded is still known.
    assert len(profile.seconds) <= MAX_STACKS
    assert profile.seconds["root", 1, "heavy", 1] == pytest.approx(10.0)
    assert sum(profile.seconds.values()) == pytest.approx(10.0 + 3 * MAX_STACKS * 0.001)
    assert profile.seconds["root", 1, "caller", 1, OTHER, 0] > 0.001


def test_a_large_profile_is_cut_down_to_its_heaviest_calls():
    records = [(["thread", "root", f"caller_{n % 50}", f"leaf_{n}"], 0.001 * (n % 7)) for n in range(3 * MAX_NODES)]
    records.append((["thread", "root", "heavy\x01cClass\x01l7"], 100.0))

    pruned = prune(records)

    calls = {tuple(stack[:depth]) for stack, _ in pruned for depth in range(1, len(stack) + 1)}
    assert len(calls) <= MAX_NODES + 50 + 1  # Each caller may have one bucket, and so may the root.
    assert sum(spent for _, spent in pruned) == pytest.approx(sum(spent for _, spent in records))
    assert (["thread", "root", "heavy\x01cClass\x01l7"], 100.0) in pruned


def test_a_small_profile_is_stored_as_it_is():
    records = [(["thread", "root\x01l1", f"leaf_{n}\x01l2"], 0.001) for n in range(100)]

    assert prune(records) == records


# memray.


def allocate_pages(megabytes: int) -> list[bytes]:
    return [b"x" * MEGABYTE for _ in range(megabytes)]


def _peak(path: Any) -> tuple[Any, dict[str, int], dict[int, int]]:
    """Returns: The metadata, function -> bytes held at the peak below it, thread -> bytes held at the peak."""
    by_function: dict[str, int] = {}
    by_thread: dict[int, int] = {}
    with memray.FileReader(path) as reader:
        for record in reader.get_high_watermark_allocation_records(merge_threads=False):
            by_thread[record.tid] = by_thread.get(record.tid, 0) + record.size
            for function in {frame[0] for frame in record.stack_trace()}:
                by_function[function] = by_function.get(function, 0) + record.size
        return reader.metadata, by_function, by_thread


def test_the_capture_names_the_line_that_allocated(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])

    def hold_pages() -> None:
        pages = allocate_pages(30)
        assert len(pages) == 30

    with bench(given) as tasks:
        task_id = tasks.run(hold_pages)

    path = stored(given).path(task_id, "memray_profile")
    _, by_function, _ = _peak(path)
    assert by_function["allocate_pages"] >= 30 * MEGABYTE
    assert by_function["hold_pages"] >= 30 * MEGABYTE
    with memray.FileReader(path) as reader:
        records = list(reader.get_high_watermark_allocation_records())
        biggest = max(records, key=lambda record: record.size)
        # memray hides the frames above the Tracker's start; the task's own must all be there
        assert biggest.stack_trace()[-1][0] == "hold_pages"
        lines = {(frame[0], frame[1], frame[2]) for frame in biggest.stack_trace()}
    assert ("allocate_pages", __file__, allocate_pages.__code__.co_firstlineno + 1) in lines


def test_the_tasks_thread_can_be_told_from_the_others(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["memray"])
    started, allocated = threading.Event(), threading.Event()

    def tracked_task() -> None:
        started.set()
        assert allocated.wait(PATIENCE_S)
        assert len(allocate_pages(40)) == 40

    def neighbour() -> None:
        assert started.wait(PATIENCE_S)
        kept.extend(allocate_pages(20))
        allocated.set()

    kept: list[bytes] = []
    with bench(given, threads=2) as tasks:
        task_id = tasks.actor(tracked_task, diagnostics=["memray"]).send().message_id
        tasks.actor(neighbour).send()
        tasks.finish()

    metadata, _, by_thread = _peak(stored(given).path(task_id, "memray_profile"))
    own = by_thread.pop(metadata.main_thread_id)
    assert 40 * MEGABYTE <= own < 50 * MEGABYTE
    assert max(by_thread.values()) >= 20 * MEGABYTE


def test_a_second_task_is_skipped_with_the_id_of_the_holder(bench, settings, stored):
    given = settings(task_diagnostics=["memray", "memory"])
    started, done = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert done.wait(PATIENCE_S)

    # Given a task that holds the process's one Tracker
    with bench(given, threads=2) as tasks:
        holder = tasks.actor(hold).send().message_id
        assert started.wait(PATIENCE_S)
        # When another runs meanwhile
        skipped = tasks.actor(done.set, actor_name="second").send().message_id
        tasks.finish()

    # Then it is skipped and says which task held it; its other artifact is whole
    artifacts = stored(given).artifacts(skipped)
    assert artifacts["memray_profile"].status == ArtifactStatus.SKIPPED
    assert holder in artifacts["memray_profile"].reason
    assert artifacts["memory_profile"].status == ArtifactStatus.STORED
    assert stored(given).artifacts(holder)["memray_profile"].status == ArtifactStatus.STORED


def test_with_memray_wait_tasks_take_turns(bench, settings, stored):
    given = settings(task_diagnostics=["memray"], memray_wait=PATIENCE_S)

    with bench(given, threads=4) as tasks:
        actor = tasks.actor(spin)
        ids = [actor.send(0.02).message_id for _ in range(8)]
        tasks.finish()

    assert {stored(given).artifacts(task_id)["memray_profile"].status for task_id in ids} == {ArtifactStatus.STORED}


def test_a_task_that_waited_in_vain_names_the_holder(bench, settings, stored):
    given = settings(task_diagnostics=["memray"], memray_wait=0.05)
    started, done = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        assert done.wait(PATIENCE_S)

    with bench(given, threads=2) as tasks:
        holder = tasks.actor(hold).send().message_id
        assert started.wait(PATIENCE_S)
        skipped = tasks.actor(done.set, actor_name="second").send().message_id
        tasks.finish()

    assert holder in stored(given).artifacts(skipped)["memray_profile"].reason


def test_a_capture_ends_at_its_limit_and_is_partial(bench, settings, stored):
    given = settings(task_diagnostics=["memray", "pyinstrument"], memray_max_bytes=200_000)
    process: list[Any] = []

    def allocate_until_it_ends() -> None:
        run = next(iter(process[0].runs.values()))
        recording = next(r for c, r in run.recordings._running if c.name == "memray")
        until = time.monotonic() + PATIENCE_S
        while recording.tracker is not None and time.monotonic() < until:
            allocate_pages(1)
            [str(number) + "x" for number in range(5000)]
        profile_functions.append(sys.getprofile())

    profile_functions: list[Any] = []
    with bench(given) as tasks:
        process.append(tasks.diagnostics.process)
        # When a task allocates past the limit
        task_id = tasks.run(allocate_until_it_ends)
        after = tasks.run(spin, 0.0)

    # Then the capture is partial, says so, and can be read
    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert artifact.status == ArtifactStatus.PARTIAL
    assert "200000" in artifact.reason
    assert artifact.size_bytes > 200_000
    _, by_function, _ = _peak(stored(given).path(task_id, "memray_profile"))
    assert "allocate_until_it_ends" in by_function
    # And the next task has the Tracker to itself
    assert stored(given).artifacts(after)["memray_profile"].status == ArtifactStatus.STORED


def test_a_task_that_uses_memray_itself_keeps_it(bench, settings, stored, tmp_path):
    given = settings(task_diagnostics=["memray"])

    with bench(given) as tasks, memray.Tracker(tmp_path / "application.bin"):
        task_id = tasks.run(spin, 0.01)

    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert artifact.status == ArtifactStatus.SKIPPED
    assert "The application itself uses memray" in artifact.reason
    with memray.FileReader(tmp_path / "application.bin") as reader:
        assert reader.metadata.total_allocations > 0


def test_a_capture_of_a_task_that_replaces_the_profile_function_is_partial_and_says_why(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])

    def profile_itself() -> None:
        sys.setprofile(lambda *_: None)
        sys.setprofile(None)

    with bench(given) as tasks:
        ids = [tasks.run(fn) for fn in (profile_itself, mixed_work)]

    replaced, whole = (stored(given).artifacts(task_id)["memray_profile"] for task_id in ids)
    assert replaced.status == ArtifactStatus.PARTIAL
    assert replaced.reason.startswith("The task replaced memray's profile function on its thread")
    assert (whole.status, whole.reason) == (ArtifactStatus.STORED, None)


def test_memray_is_declined_within_another_profiler_and_works_after_it(bench, settings, stored):
    given = settings(task_diagnostics=["memray"])

    class Profiled(Middleware):
        """The application's own profiling of some tasks."""

        def before_process_message(self, broker: Any, message: Any) -> None:
            self.profiler = pyinstrument.Profiler() if message.actor_name == "profiled" else None
            if self.profiler is not None:
                self.profiler.start()

        def after_process_message(self, broker: Any, message: Any, **outcome: Any) -> None:
            if self.profiler is not None:
                self.profiler.stop()

    with bench(given, Profiled()) as tasks:
        ids = [tasks.run(mixed_work, actor_name=name) for name in ("profiled", "bare")]

    profiled, bare = (stored(given).artifacts(task_id)["memray_profile"] for task_id in ids)
    assert profiled.status == ArtifactStatus.SKIPPED
    assert profiled.reason.startswith("Another profiler is active on this thread")
    assert bare.status == ArtifactStatus.STORED


# Killed.

_KILLED = """
import sys, threading, time
from dramatiq import Worker, actor
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings

broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(
    task_diagnostics=["memory", "memray", "pyinstrument"], data_dir=sys.argv[1], memory_interval=0.02,
    pyinstrument_interval=0.001, cleanup_interval=0)))

def allocate_pages(megabytes):
    return [b"x" * (1 << 20) for _ in range(megabytes)]

@actor(broker=broker)
def hang():
    pages = allocate_pages(30)
    time.sleep(0.2)
    print("hanging", flush=True)
    while True:
        time.sleep(1)

message = hang.send()
print(message.message_id, flush=True)
Worker(broker, worker_threads=1).start()
threading.Event().wait()
"""


def test_what_a_killed_worker_left_is_published_by_another(settings, stored, python, run_worker, bench):
    given = settings(task_diagnostics=["memory"], memory_interval=0.02)

    # Given a worker that is killed while it runs a task
    process = python(_KILLED, str(given.data_dir))
    task_id = process.stdout.readline().strip()
    assert process.stdout.readline() == "hanging\n"
    process.kill()
    process.wait(PATIENCE_S)

    # When another worker comes by on the same disk
    with bench(given):
        pass

    # Then the run is interrupted, and each artifact is what was there, or says why there is none
    (run,) = stored(given).runs(task_id)
    assert run.status == RunStatus.INTERRUPTED
    assert run.pid == process.pid
    assert run.duration_ms >= 200
    assert run.peak_rss_bytes > 30 * MEGABYTE
    artifacts = stored(given).artifacts(task_id)
    assert set(artifacts) == {"memory_profile", "memray_profile", "pyinstrument_profile"}
    assert all("died" in artifact.reason for artifact in artifacts.values())
    # The memory log goes up to the last sample
    rows = _rows(stored(given).data(task_id, "memory_profile").decode())
    assert artifacts["memory_profile"].status == ArtifactStatus.PARTIAL
    assert rows[-1][0] >= 0.15
    assert rows[-1][1] - rows[0][1] > 25
    # The capture can be read and names the line
    assert artifacts["memray_profile"].status == ArtifactStatus.PARTIAL
    _, by_function, _ = _peak(stored(given).path(task_id, "memray_profile"))
    assert by_function["allocate_pages"] >= 30 * MEGABYTE
    # And nothing is left in the spool
    assert list(given.spool.iterdir()) == []
    assert not stored(given).check()


@pytest.mark.alone
@pytest.mark.parametrize("is_async", [False, True])
def test_nothing_of_a_task_lives_on_because_it_was_sampled(bench, settings, is_async):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    alive: list[bool] = []
    turns = []

    class Page:
        pass

    def hold_and_spin() -> weakref.ref[Page]:
        page = Page()
        spin(0.05)
        return weakref.ref(page)

    def work() -> None:
        alive.extend(hold_and_spin()() is not None for _ in range(5))

    async def work_async() -> None:
        work()

    # Given that nobody collects garbage, so that whatever holds a frame holds it for good
    gc.collect()
    gc.disable()
    try:
        with bench(given) as tasks:
            for number in range(5):
                tasks.run(work_async if is_async else work, actor_name=f"work{number}")
                turns.append(alive[:])
                alive.clear()
                if not any(turns[-1]):
                    break
    finally:
        gc.enable()

    # Then what the task let go of went at once. A kernel that takes the processor from the sampler while it holds a
    # frame, and gives it to the task, spoils a turn, and hardly one after the other.
    assert turns[-1] == [False] * 5
