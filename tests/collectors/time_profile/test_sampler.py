"""The time profile's sampler: what it keeps, and what it leaves as it was."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from pyinstrument.session import Session

from dramatiq_diag import Settings
from dramatiq_diag.collectors.time_profile.sampler import MAX_FRAMES, MAX_STACKS, MAX_TIMELINE_FRAMES, Profile
from dramatiq_diag.errors import SettingsError
from dramatiq_diag.runtime.frames import Look
from dramatiq_diag.runtime.stacks import OTHER
from dramatiq_diag.runtime.switch_interval import SwitchInterval
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.testing.harness import change_recordings
from support import PATIENCE_S, eventually
from support.profiles import KEY, session_dict, shares, spin
from support.sampling import Sampled
from support.store import Stored


def hottest(reader: Stored, task_id: str) -> list[str]:
    """The five functions with most time of their own, the hottest first."""
    spent: Counter[str] = Counter()

    def visit(frame: Any) -> None:
        if not frame.is_synthetic:
            spent[frame.function] += frame.time - sum(c.time for c in frame.children if not c.is_synthetic)
        for child in frame.children:
            visit(child)

    visit(Session.from_json(session_dict(reader, task_id)).root_frame())
    return [function for function, _ in spent.most_common(5)]


def loop(count: int) -> int:
    total = 0
    for number in range(count):
        total += number * number % 7
    return total


def sort(count: int) -> int:
    total = 0
    for number in range(count * 2):
        total += number * number % 7
    return total


def render(count: int) -> int:
    total = 0
    for number in range(count * 4):
        total += number * number % 7
    return total


def parse(count: int) -> int:
    return read(count * 8)


def read(count: int) -> int:
    total = 0
    for number in range(count):
        total += number * number % 7
    return total


def index(count: int) -> int:
    total = 0
    for number in range(count * 16):
        total += number * number % 7
    return total


def tidy(count: int) -> int:
    return sum(call(number) for number in range(count // 20))


def call(number: int) -> int:
    return number + 1


STEPS = (index, parse, render, sort, loop, tidy)


def varied(are_enough: Callable[[], bool]) -> None:
    """Takes its steps until each has taken clearly more time than the next, and there are samples enough.

    Nominally that is twice as much. But the clock goes on while other processes have the processor, and a step that
    they struck a few times more often than the others was as long as a hotter one, or longer: the engines say so too.
    """
    spent: Counter[str] = Counter()
    rounds = 0
    while (
        rounds < 15
        or not are_enough()
        or any(spent[one.__name__] < 1.6 * spent[next_.__name__] for one, next_ in pairwise(STEPS))
    ):
        rounds += 1
        for step in STEPS:
            began = time.perf_counter()
            step(30_000)
            spent[step.__name__] += time.perf_counter() - began


@pytest.mark.alone
def test_both_engines_agree_on_the_hottest_five_functions(bench, settings, stored):
    found = {}
    for engine in ("sampler", "profiler"):
        given = settings(
            data_dir=settings().data_dir / engine,
            task_diagnostics=["pyinstrument"],
            pyinstrument_engine=engine,
            pyinstrument_interval=0.001,
        )
        with bench(given) as tasks:
            # The engine `profiler` looks on the thread of the task, as often as there is something to see.
            are_enough = Sampled(tasks).more(1000) if engine == "sampler" else lambda: True
            task_id = tasks.run(partial(varied, are_enough), actor_name="work")
        found[engine] = hottest(stored(given), task_id)

    assert found["sampler"] == found["profiler"] == ["index", "read", "render", "sort", "loop"]


# Beginning late.


def test_a_run_that_ends_early_is_not_profiled_and_says_so(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_start_after=30)

    with bench(given) as tasks:
        task_id = tasks.run(spin, 0.01)

    artifact = stored(given).artifacts(task_id)[KEY]
    assert (artifact.status, artifact.blob_name) == (ArtifactStatus.SKIPPED, None)
    assert artifact.reason == "The run ended before it had lasted 30 s."


def first_part(seconds: float) -> None:
    spin(seconds)


def second_part(sampled: Sampled) -> None:
    sampled.spin(20)


async def second_part_async(sampled: Sampled) -> None:
    await sampled.sleep(20)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_run_that_goes_on_is_profiled_from_then_on(bench, settings, stored, is_async):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_start_after=0.2)
    is_past_first = threading.Event()

    def begin_after_first_part(recording: Any) -> None:
        join = recording._join

        def wait_and_join() -> None:
            if threading.current_thread().name == "dramatiq_diag.ticker":
                is_past_first.wait(PATIENCE_S)
            join()

        recording._join = wait_and_join

    with bench(given) as tasks:
        change_recordings(tasks.diagnostics.process.collectors["pyinstrument"], begin_after_first_part)
        sampled = Sampled(tasks)

        def two_parts() -> None:
            first_part(0.1)
            is_past_first.set()
            second_part(sampled)

        async def two_parts_async() -> None:
            first_part(0.1)
            is_past_first.set()
            await second_part_async(sampled)

        task_id = tasks.run(two_parts_async if is_async else two_parts)

    session = session_dict(stored(given), task_id)
    found = shares(stored(given), task_id)
    assert found["second_part_async" if is_async else "second_part"] > 0
    assert "first_part" not in found
    assert session["duration"] < stored(given).runs(task_id)[0].duration_ms / 1000 - 0.15
    assert session["target_description"].endswith(", from 0.2 s on")
    if is_async:
        assert session["cpu_time"] is None
    else:
        assert 0 < session["cpu_time"] <= session["duration"] * 1.1


def test_a_late_beginning_is_for_the_sampler_alone():
    with pytest.raises(SettingsError, match=r"DRAMATIQ_DIAG_PYINSTRUMENT_START_AFTER: 5 is not allowed.*sampler"):
        Settings(pyinstrument_start_after=5, pyinstrument_engine="profiler")


# What is kept.


def _profile() -> Profile:
    return Profile(1, spin.__code__, is_async=False)


def test_a_short_profile_keeps_its_order(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)

    with bench(given) as tasks:
        sampled = Sampled(tasks)

        def there_and_back() -> None:
            second_part_of(sampled)
            first_part_of(sampled)
            second_part_of(sampled)

        task_id = tasks.run(there_and_back)

    order: list[str] = []
    for stack, _ in session_dict(stored(given), task_id)["frame_records"]:
        for frame in stack:
            name = frame.partition("\0")[0]
            if name.endswith("_part_of") and order[-1:] != [name]:
                order.append(name)
    assert order == ["second_part_of", "first_part_of", "second_part_of"]


def first_part_of(sampled: Sampled) -> None:
    sampled.spin(5)


def second_part_of(sampled: Sampled) -> None:
    sampled.spin(5)


def test_a_long_profile_keeps_its_sums_and_drops_the_order():
    profile = _profile()
    turns = MAX_TIMELINE_FRAMES // 2 + 1
    for number in range(turns):
        profile.add((1000 + number % 2, 1, 2000, 1), 0.5)

    assert profile.timeline is None
    assert profile.seconds == {(1000, 1, 2000, 1): (turns + 1) // 2 * 0.5, (1001, 1, 2000, 1): turns // 2 * 0.5}


def test_a_task_that_stays_where_it_is_has_one_entry_in_its_timeline():
    profile = _profile()
    for _ in range(10 * MAX_TIMELINE_FRAMES):
        profile.add((1000, 1), 0.5)

    assert profile.timeline == [((1000, 1), 5 * MAX_TIMELINE_FRAMES)]


def test_code_that_no_stack_has_any_more_is_let_go_of():
    """A task may make functions as it goes, by templates or dataclasses."""
    profile = _profile()
    names: dict[str, Any] = {}
    exec("def call(code):\n    code()\n", names)
    inner = threading.Event(), threading.Event()

    def hold() -> None:
        inner[0].set()
        inner[1].wait(PATIENCE_S)

    thread = threading.Thread(target=spin_in, args=(names["call"], hold))
    thread.start()
    try:
        inner[0].wait(PATIENCE_S)
        profile.anchor = spin_in.__code__
        made = [spin.__code__.replace(co_name=f"made_{number}") for number in range(MAX_STACKS + 10)]
        for number, code in enumerate(made):
            profile.codes[id(code)] = code
            profile.seconds[id(code), number] = 1e-6
        profile.thread_id = thread.ident or 0
        look = Look()
        asked = profile.ask(look, None)
        look.take()
        profile.sample(profile.last_s + 1.0, asked)
    finally:
        inner[1].set()
        thread.join()

    assert len(profile.codes) < MAX_STACKS
    assert {"call", "hold"} <= {code.co_name for code in profile.codes.values()}
    assert {key for stack in profile.seconds for key in stack[::2] if key > 2} <= set(profile.codes)


def spin_in(call: Any, function: Any) -> None:
    call(function)


# What is left as it was.


def test_the_sampler_rests_and_the_interval_is_back_while_no_task_is_profiled(bench, settings, stored):
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)
    found = sys.getswitchinterval(), sys.getprofile(), threading.getprofile(), threading.stack_size()

    with bench(given) as tasks:
        tasks.run(spin, 0.05)
        tasks.finish()
        eventually(lambda: sys.getswitchinterval() == found[0], "the switch interval is the application's again")
        sampler = tasks.diagnostics.process.collectors["pyinstrument"].sampler
        assert sampler.profiles == frozenset()
        assert (sys.getswitchinterval(), sys.getprofile(), threading.getprofile(), threading.stack_size()) == found


def test_the_shortest_wish_counts_and_the_end_restores():
    switching, found = SwitchInterval(), sys.getswitchinterval()
    with switching.short(0.0005):
        assert sys.getswitchinterval() == pytest.approx(0.0005, abs=2e-6)
        switching.want(switching, 0.0001)
        assert sys.getswitchinterval() == pytest.approx(0.0001, abs=2e-6)
        switching.want(switching, None)
        assert sys.getswitchinterval() == pytest.approx(0.0005, abs=2e-6)
    assert sys.getswitchinterval() == found


def test_an_interval_that_the_application_sets_meanwhile_stays():
    switching, found = SwitchInterval(), sys.getswitchinterval()
    try:
        with switching.short(0.0005):
            sys.setswitchinterval(0.02)
            switching.want(switching, 0.0001)
            assert sys.getswitchinterval() == 0.02
            switching.want(switching, None)
        assert sys.getswitchinterval() == 0.02
    finally:
        sys.setswitchinterval(found)


def test_the_frames_of_deep_stacks_are_bounded_and_their_numbers_shared():
    profile = Profile(1, spin.__code__, is_async=False)
    depth, count = 250, 2 * MAX_FRAMES // 250
    heavy = tuple(range(1000, 1000 + 2 * depth))
    profile.add(heavy, 10.0)
    for number in range(count):
        rest = (place for frame in range(depth - 2) for place in (2000 + frame, 3000 + frame))
        profile.add((1000, 1001, *rest, 10**6 + number, 1), 0.001)

    assert sum(map(len, profile.seconds)) // 2 <= MAX_FRAMES
    assert profile.seconds[heavy] == pytest.approx(10.0)
    assert sum(profile.seconds.values()) == pytest.approx(10.0 + count * 0.001)
    numbers = [number for stack in profile.seconds for number in stack]
    assert len({id(number) for number in numbers}) == len(set(numbers))


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
