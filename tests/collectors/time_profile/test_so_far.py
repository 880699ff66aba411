"""What a profile tells before its end: the heaviest functions and calls, with bounds."""

from __future__ import annotations

import json
from typing import Any

from dramatiq_diag.collectors.time_profile.so_far import MAX_FUNCTIONS, MAX_NODES, sum_up
from dramatiq_diag.runtime.stacks import AWAIT, OTHER


def code(name: str) -> Any:
    scope: dict[str, Any] = {}
    exec(f"def {name}(): pass", scope)
    return scope[name].__code__


CODES = {id(made): made for made in map(code, ("outer", "inner", "leaf"))}
OUTER, INNER, LEAF = CODES


def names(listed: list[dict[str, Any]]) -> list[str]:
    return [item["function"] for item in listed]


def test_functions_and_calls_are_summed_up() -> None:
    stacks = [((OUTER, 1, INNER, 2), 1.0), ((OUTER, 1, INNER, 3, AWAIT, 0), 2.0), ((OUTER, 1, LEAF, 1), 0.5)]
    found = sum_up(stacks, CODES, 7)
    assert (found["seconds"], found["samples"]) == (3.5, 7)
    assert names(found["functions"]) == ["inner", "leaf", "outer"]
    inner, _, outer = found["functions"]
    assert (inner["self_s"], inner["total_s"], inner["share"]) == (3.0, 3.0, 0.8571)
    assert (outer["self_s"], outer["total_s"]) == (0.0, 3.5)
    (root,) = found["tree"]
    assert (root["function"], root["total_s"], names(root["children"])) == ("outer", 3.5, ["inner", "leaf"])


def test_recursive_calls_count_once() -> None:
    found = sum_up([((OUTER, 1, OUTER, 1, OUTER, 1), 2.0)], CODES, 1)
    assert [(function["self_s"], function["total_s"]) for function in found["functions"]] == [(2.0, 2.0)]


def test_a_large_profile_stays_small_and_loses_no_time() -> None:
    codes = {id(made): made for made in (code(f"f{number}") for number in range(600))}
    keys = list(codes)
    stacks = [((*[OUTER, 1] * 200, keys[number % 600], number, OTHER, 0), 1.0) for number in range(6000)]
    found = sum_up(stacks, codes | CODES, 6000)
    assert found["seconds"] == 6000.0
    assert len(found["functions"]) <= MAX_FUNCTIONS
    assert names(found["functions"])[0] == "[other stacks]"
    text = json.dumps(found)
    assert text.count('"children"') <= MAX_NODES
    assert len(text) < 64 * 1024


def test_a_profile_without_samples_is_empty() -> None:
    assert sum_up([], {}, 0) == {"seconds": 0, "samples": 0, "functions": [], "tree": []}
