"""The time profile: what is in it, beside other profilers, and of async actors."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyinstrument.renderers import HTMLRenderer
from pyinstrument.session import Session

from dramatiq_diag.statuses import ArtifactStatus
from support import PATIENCE_S
from support.collectors import mixed_work, parse_pages, spin
from support.sampling import Sampled
from support.store import Stored
from support.tasks import Gate

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


@pytest.mark.parametrize("engine", ["sampler", "profiler"])
def test_the_profile_is_rooted_at_the_actors_function(bench, settings, stored, engine):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001, pyinstrument_engine=engine)
    began = time.perf_counter()

    with bench(given) as tasks:
        # The engine `profiler` looks on the thread of the task, as often as there is something to see.
        are_enough = Sampled(tasks).more(20) if engine == "sampler" else lambda: True

        def work() -> None:
            parse_pages(0.2)
            while not are_enough():
                parse_pages(0.02)
            time.sleep(0.1)

        task_id = tasks.run(work)

    session = _session(stored(given), task_id)
    root = session.root_frame()
    assert root.function == "work"
    assert {"parse_pages", "spin"} <= set(_functions(root))
    assert not {"process_message", "__call__", "run", "_bootstrap"} & set(_functions(root))
    assert 0.25 < session.duration < time.perf_counter() - began
    assert 0 < _seconds_in(root, "parse_pages") < session.duration
    assert session.sample_count > 10
    assert task_id in session.target_description


class SlowHandler(logging.Handler):
    """Takes so long for each line that the sampler sees it."""

    def emit(self, record: logging.LogRecord) -> None:
        spin(0.05)


@pytest.mark.parametrize("engine", ["sampler", "profiler"])
def test_the_lines_that_dramatiq_logs_around_the_function_are_not_in_the_profile(bench, settings, stored, engine):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001, pyinstrument_engine=engine)

    def work() -> None:
        spin(0.05)

    with bench(given) as tasks:
        task_id = tasks.run_logged(work, SlowHandler())

    assert _session(stored(given), task_id).root_frame().function == "work"


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
            parse_pages_until(are_enough)

    parser = Parser()
    parser.__module__ = __name__

    with bench(given) as tasks:
        are_enough = Sampled(tasks).more(20)
        task_id = tasks.run(parser, actor_name="parse")

    assert "parse_pages" in set(_functions(_session(stored(given), task_id).root_frame()))


def parse_pages_until(are_enough: Callable[[], bool]) -> None:
    while not are_enough():
        parse_pages(0.001)


async def fetch_row(sampled: Sampled, done: list[bool]) -> None:
    await sampled.sleep(20)
    sampled.spin(20)
    done.append(True)
    while len(done) < 2:  # Of one that has ended there are no samples.
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("with_memray", [False, True])
def test_an_async_actor_shows_its_coroutines_while_they_run_and_while_they_await(bench, settings, stored, with_memray):
    names = ["pyinstrument", "memray"] if with_memray else ["pyinstrument"]
    given = settings(task_diagnostics=names, pyinstrument_interval=0.001)

    with bench(given, threads=2) as tasks:
        sampled, done = Sampled(tasks), []

        async def fetch_page() -> None:
            await fetch_row(sampled, done)

        actor = tasks.actor(fetch_page)
        ids = [actor.send().message_id for _ in range(2)]
        tasks.finish()

    for task_id in ids:
        root = _session(stored(given), task_id).root_frame()
        functions = set(_functions(root))
        assert root.function == "fetch_page"
        assert {"fetch_row", "spin", "[await]"} <= functions
        assert not {"run_coroutine", "wrapped_coro", "select", "run_forever", "result"} & functions
        assert _seconds_in(root, "[await]") > 0
        assert _seconds_in(root, "spin") > 0


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
        task_id = tasks.run(asyncio.sleep, 0, actor_name="sleep")

    artifact = stored(given).artifacts(task_id)["pyinstrument_profile"]
    assert artifact.status == ArtifactStatus.SKIPPED
    assert "sampler" in artifact.reason


def test_the_profile_is_whole_while_memray_tracks_the_same_task(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument", "memray"], pyinstrument_interval=0.001)

    with bench(given) as tasks:
        are_enough = Sampled(tasks).more(50)  # Of a profiler that memray silences there would be no more.

        def work() -> None:
            parse_pages_until(are_enough)

        task_id = tasks.run(work)

    artifacts = stored(given).artifacts(task_id)
    assert {artifact.status for artifact in artifacts.values()} == {ArtifactStatus.STORED}
    root = _session(stored(given), task_id).root_frame()
    assert root.function == "work"
    assert _seconds_in(root, "parse_pages") > 0


def test_the_profile_is_whole_while_memray_tracks_another_thread(bench, settings, stored):
    given = settings(task_diagnostics_on_request=["pyinstrument", "memray"], pyinstrument_interval=0.001)
    tracked, profiled = threading.Event(), threading.Event()

    def tracked_task() -> None:
        assert profiled.wait(PATIENCE_S)
        tracked.set()

    def profiled_task() -> None:
        parse_pages_until(sampled.more(20))
        profiled.set()
        assert tracked.wait(PATIENCE_S)
        parse_pages_again()

    def parse_pages_again() -> None:
        parse_pages_until(sampled.more(20))

    # When memray starts and ends in one thread while another is being profiled
    with bench(given, threads=2) as tasks:
        sampled = Sampled(tasks)
        profiled_id = tasks.actor(profiled_task, diagnostics=["pyinstrument"]).send().message_id
        tracked_id = tasks.actor(tracked_task, diagnostics=["memray"]).send().message_id
        tasks.finish()

    # Then the profile goes on past the first of the two turns of its work
    assert stored(given).artifacts(tracked_id)["memray_profile"].status == ArtifactStatus.STORED
    root = _session(stored(given), profiled_id).root_frame()
    assert _seconds_in(root, "parse_pages_again") > 0


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
    gate = Gate()

    with bench(given, threads=2) as tasks:
        profiled_id = tasks.actor(gate.wait, diagnostics=["pyinstrument"]).send().message_id
        assert gate.reached.wait(PATIENCE_S)
        refused_id = tasks.actor(gate.opened.set, actor_name="refused", diagnostics=["memray"]).send().message_id
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


@pytest.mark.parametrize("is_async", [False, True])
def test_nothing_of_a_task_lives_on_because_it_was_sampled(bench, settings, is_async):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    alive: list[bool] = []

    class Page:
        pass

    def hold_and_spin() -> weakref.ref[Page]:
        page = Page()
        spin(0.01)
        return weakref.ref(page)

    def work() -> None:
        alive.extend(hold_and_spin()() is not None for _ in range(20))

    async def work_async() -> None:
        work()

    # Given that nobody collects garbage, so that whatever holds a frame holds it for good
    gc.collect()
    gc.disable()
    try:
        with bench(given) as tasks:
            tasks.run(work_async if is_async else work, actor_name="work")
    finally:
        gc.enable()

    # Then what the task let go of went at once
    assert alive == [False] * 20
