"""Who leaks, on windows with a known truth and fixed seeds."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dramatiq_diag.insights.leaks import ActorFinding, findings
from dramatiq_diag.statuses import LeakVerdict
from support.windows import process

ACTORS = [f"actor_{number:02}" for number in range(20)]
SEEDS = range(10)


def verdicts(found: list[ActorFinding], verdict: LeakVerdict) -> list[str]:
    return [one.actor_name for one in found if one.verdict is verdict]


def of(found: list[ActorFinding], actor_name: str) -> ActorFinding:
    return next(one for one in found if one.actor_name == actor_name)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_leaking_actor_is_named_with_what_it_keeps_and_no_other(seed: int) -> None:
    found = findings([process(seed, ACTORS, {"actor_07": 1024.0}, windows=400)])
    assert verdicts(found, LeakVerdict.LEAKS) == ["actor_07"]
    assert found[0].actor_name == "actor_07"
    assert 700 < found[0].bytes_per_run < 1400
    assert 0 < found[0].low < found[0].bytes_per_run < found[0].high
    assert found[0].runs_needed is None


def test_the_interval_has_the_truth_nearly_always() -> None:
    leaking = [findings([process(seed, ACTORS, {"actor_07": 4096.0}, windows=400)])[0] for seed in range(20)]
    assert sum(one.low <= 4096 <= one.high for one in leaking) >= 17


def test_nobody_is_accused_where_nothing_leaks() -> None:
    accused = [name for seed in range(20) for name in verdicts(findings([process(seed, ACTORS)]), LeakVerdict.LEAKS)]
    assert len(accused) <= 1


def test_actors_are_clean_after_enough_runs() -> None:
    found = findings([process(1, ACTORS, windows=3000, noise_bytes=2000.0)])
    assert len(verdicts(found, LeakVerdict.CLEAN)) >= 18
    assert all(one.high < 100 for one in found if one.verdict is LeakVerdict.CLEAN)


@pytest.mark.parametrize("fall_at", [399, 396, 385])
def test_nobody_is_clean_for_runs_of_before_memory_fell(fall_at: int) -> None:
    """A cache of 2 GB that was freed late hid that each run of an actor kept 20 KB."""
    windows = process(1, ["leaks", "other"], {"leaks": 20_000.0}, windows=400)
    high = [
        replace(window, in_use_bytes=window.in_use_bytes + 2**31) if number < fall_at else window
        for number, window in enumerate(windows)
    ]
    found = of(findings([high]), "leaks")
    assert found.verdict is not LeakVerdict.CLEAN
    assert found.high is None or found.high >= 20_000.0


def test_nobody_is_accused_of_what_every_run_keeps() -> None:
    for seed in SEEDS:
        assert verdicts(findings([process(seed, ACTORS, background_bytes=500.0)]), LeakVerdict.LEAKS) == []


def test_nobody_is_clean_where_every_run_keeps_something() -> None:
    for seed in SEEDS:
        found = findings([process(seed, ACTORS, windows=1000, background_bytes=500.0)])
        assert {one.verdict for one in found} == {LeakVerdict.UNDECIDED}
        assert all(one.low <= 500 <= one.high and one.runs_needed is None for one in found)
        assert all(one.reason.startswith("Each run of whichever actor keeps about ") for one in found)


def test_a_leak_beside_what_every_run_keeps_is_named_without_it() -> None:
    found = findings([process(3, ACTORS, {"actor_07": 3000.0}, windows=1000, background_bytes=500.0)])
    assert verdicts(found, LeakVerdict.LEAKS) == ["actor_07"]
    assert found[0].low <= 3000 <= found[0].high
    assert re.search("beside about (49|50)[0-9] B that each run of whichever actor keeps", found[0].reason)


def test_a_cache_of_all_actors_that_is_full_is_no_leak() -> None:
    fills = dict.fromkeys(ACTORS, 100)
    found = findings([process(1, ACTORS, windows=3000, noise_bytes=2000.0, fills=fills)])
    assert len(verdicts(found, LeakVerdict.CLEAN)) >= 18


def test_two_leaks_are_told_apart() -> None:
    found = findings([process(3, ACTORS, {"actor_02": 5000.0, "actor_11": 2000.0}, windows=600)])
    assert verdicts(found, LeakVerdict.LEAKS) == ["actor_02", "actor_11"]


def test_processes_are_pooled() -> None:
    one_each = [process(seed, ACTORS, {"actor_07": 1024.0}, windows=40) for seed in range(12)]
    assert verdicts(findings(one_each[:1]), LeakVerdict.LEAKS) == []
    assert verdicts(findings(one_each), LeakVerdict.LEAKS) == ["actor_07"]


def test_actors_that_always_run_together_cannot_be_told_apart() -> None:
    windows = process(1, ACTORS, {"actor_07": 3000.0}, windows=400, together={"actor_08": "actor_07"})
    found = findings([windows])
    assert verdicts(found, LeakVerdict.LEAKS) == []
    assert {of(found, "actor_07").verdict, of(found, "actor_08").verdict} == {LeakVerdict.UNDECIDED}


def test_an_actor_that_has_the_process_to_itself_is_judged() -> None:
    found = findings([process(1, ["only"], {"only": 2000.0})])
    assert verdicts(found, LeakVerdict.LEAKS) == ["only"]
    assert 1900 < found[0].bytes_per_run < 2100


def test_a_few_runs_say_nothing() -> None:
    (found,) = findings([process(1, ["only"], {"only": 2000.0}, windows=20, runs=1)])
    assert found.verdict is LeakVerdict.UNDECIDED
    assert found.bytes_per_run is None
    assert found.runs_needed == 30 - found.runs


def test_more_runs_are_needed_where_the_noise_is_large() -> None:
    found = findings([process(1, ACTORS, noise_bytes=200_000.0)])
    assert {one.verdict for one in found} == {LeakVerdict.UNDECIDED}
    assert all(one.runs_needed > 0 for one in found)


def test_a_cache_that_is_full_is_no_leak() -> None:
    found = findings([process(5, ACTORS, windows=400, fills={"actor_03": 100})])
    assert verdicts(found, LeakVerdict.LEAKS) == []


def test_a_heap_in_pieces_is_not_a_leak() -> None:
    found = findings([process(2, ACTORS, windows=400, fragments={"actor_05": 20_000.0})])
    assert verdicts(found, LeakVerdict.FRAGMENTATION) == ["actor_05"]
    assert verdicts(found, LeakVerdict.LEAKS) == []


def test_one_large_thing_that_is_loaded_late_is_no_leak() -> None:
    windows = process(4, ACTORS)
    late = [
        window if window.number < 120 else replace(window, in_use_bytes=window.in_use_bytes + 5_000_000)
        for window in windows
    ]
    assert verdicts(findings([late]), LeakVerdict.LEAKS) == []


def test_a_thousand_actors_of_which_one_leaks() -> None:
    many = [f"actor_{number:04}" for number in range(1000)]
    found = findings([process(1, many, {"actor_0500": 200_000.0}, windows=3000, runs=100)])
    assert verdicts(found, LeakVerdict.LEAKS) == ["actor_0500"]
    assert len(found) == 1000


def test_without_windows_nothing_is_known() -> None:
    assert findings([]) == []
    assert findings([[]]) == []
