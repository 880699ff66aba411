"""Call trees: the same structure for time and for allocations, with figures that are known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from dramatiq_diag.reports import calltree
from dramatiq_diag.reports.cache import format_of, open_download
from dramatiq_diag.reports.calltree import CallTree, Node, functions, tree_of
from dramatiq_diag.reports.errors import ReportError
from support.profiles import profile_of, render

THREAD = "worker\0<thread>\x007"


def frame(function: str, line: int = 1, *attributes: str) -> str:
    return "".join((f"{function}\0/srv/jobs.py\0{line}", *(f"\1{attribute}" for attribute in attributes)))


def session(*records: tuple[list[str], float], above: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "start_call_stack": [THREAD, *above, frame("root")],
        "frame_records": [[[THREAD, *above, *stack], spent_s] for stack, spent_s in records],
    }


def rendered(tmp_path: Path, stored: Any) -> CallTree:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(stored))
    tree: CallTree = json.loads(render(path, "calltree"))
    return tree


def nodes(tree: Node) -> Iterator[tuple[Node, int]]:
    line = [(tree, 0)]
    while line:
        node, depth = line.pop()
        yield node, depth
        line += [(child, depth + 1) for child in node["children"]]


def test_a_session_has_the_times_that_were_measured(tmp_path):
    tree = rendered(
        tmp_path,
        session(
            ([frame("root"), frame("parse", 3)], 0.5),
            ([frame("root"), frame("parse", 3), frame("split", 9)], 0.25),
            ([frame("root")], 0.25),
            ([frame("root"), frame("parse", 3)], 1.0),
        ),
    )

    assert (tree["unit"], tree["total"], tree["tree"]["function"]) == ("ms", 2000, "")
    [root] = tree["tree"]["children"]
    assert (root["function"], root["file"], root["value"], root["self"]) == ("root", "/srv/jobs.py", 2000, 250)
    [parse] = root["children"]
    assert (parse["line"], parse["value"], parse["self"]) == (3, 1750, 1500)
    assert [(child["function"], child["value"]) for child in parse["children"]] == [("split", 250)]


def test_what_stands_above_the_actor_is_left_out_and_what_a_coroutine_awaits_is_its_own(tmp_path):
    above = (frame("bootstrap"), frame("run"))

    tree = rendered(
        tmp_path,
        session(
            ([frame("root"), frame("fetch", 2, "cClient"), "[await]"], 3.0),
            ([frame("root"), "[self]"], 1.0),
            ([frame("root"), "[other stacks]\0\x000"], 0.5),
            above=above,
        ),
    )

    assert functions(tree["tree"]) == [
        {"function": "Client.fetch", "file": "/srv/jobs.py", "total": 3000, "self": 3000, "lines": []},
        {"function": "root", "file": "/srv/jobs.py", "total": 4500, "self": 1000, "lines": []},
        {"function": "[other stacks]", "file": "", "total": 500, "self": 500, "lines": []},
    ]


def test_the_lines_at_which_a_function_took_most_by_itself_are_named(tmp_path):
    stacks = [([frame("root") + "\1l5", frame("parse", 3) + f"\1l{line}"], seconds) for line, seconds in LINES]
    tree = rendered(tmp_path, session(*stacks, ([frame("root") + "\1l6", frame("parse", 3) + "\1l14"], 1.5)))

    parse, root = functions(tree["tree"])
    assert (parse["function"], parse["lines"]) == ("parse", [(14, 2000), (12, 400), (13, 300)])
    assert (root["function"], root["lines"]) == ("root", [])


LINES = ((11, 0.2), (12, 0.4), (13, 0.3), (14, 0.5))


def test_a_function_that_calls_itself_is_counted_once():
    stacks = [(["root", *["fib"] * depth], 10) for depth in range(1, 6)]
    stacks.append((["root", "fib", "other", "fib"], 5))

    found = {row["function"]: (row["total"], row["self"]) for row in functions(tree_of(profile_of(*stacks))["tree"])}

    assert found == {"root": (55, 0), "fib": (55, 55), "other": (5, 0)}


def test_very_deep_recursion_ends_at_the_depth_that_is_kept():
    document = tree_of(profile_of((["fib"] * 100_000, 7.0)))

    assert max(depth for _, depth in nodes(document["tree"])) == calltree.MAX_DEPTH
    assert functions(json.loads(json.dumps(document))["tree"]) == [
        {"function": "fib", "file": "/srv/jobs.py", "total": 7, "self": 7, "lines": []}
    ]


def test_only_the_largest_calls_are_kept_and_those_that_lead_to_them():
    stacks = [(["root", f"f{number % 700}", f"g{number}"], 1 + number % 13) for number in range(20_000)]

    document = tree_of(profile_of(*stacks))

    kept = [node for node, _ in nodes(document["tree"])]
    assert len(kept) <= calltree.MAX_NODES
    assert document["total"] == sum(value for _, value in stacks)
    assert min(node["value"] for node in kept) >= document["total"] * calltree.MIN_SHARE
    assert all(node["value"] >= sum(child["value"] for child in node["children"]) for node in kept)


def test_a_tree_has_no_more_calls_than_a_page_can_hold():
    stacks = [([f"f{number}_{depth}" for depth in range(150)], 1) for number in range(100)]

    assert sum(1 for _ in nodes(tree_of(profile_of(*stacks))["tree"])) == calltree.MAX_NODES


def test_small_calls_that_are_left_out_are_not_their_caller_s_own():
    stacks = [(["root", f"f{number}"], 1) for number in range(2000)]

    [root] = functions(tree_of(profile_of(*stacks))["tree"])

    assert (root["total"], root["self"]) == (2000, 0)


def test_an_empty_profile_is_an_empty_tree(tmp_path):
    assert rendered(tmp_path, session())["tree"]["children"] == []


@pytest.mark.parametrize(
    "stored",
    [
        # No session.
        None,
        [],
        {},
        {"start_call_stack": [], "frame_records": None},
        # No frames.
        {"start_call_stack": [1, 2], "frame_records": []},
        {"start_call_stack": [THREAD], "frame_records": [[[1, 2], 1.0]]},
        {"start_call_stack": [THREAD], "frame_records": [["f"]]},
        {"start_call_stack": [THREAD], "frame_records": [[["f\0g\0no line"], 1.0]]},
        # No times.
        {"start_call_stack": [THREAD], "frame_records": [[[frame("f")], "1"]]},
        {"start_call_stack": [THREAD], "frame_records": [[[frame("f")], float("nan")]]},
        {"start_call_stack": [THREAD], "frame_records": [[[frame("f")], float("inf")]]},
        {"start_call_stack": [THREAD], "frame_records": [[[frame("f")], -1]]},
    ],
    ids=repr,
)
def test_what_is_no_session_is_a_clear_error(tmp_path, stored):
    with pytest.raises(ReportError, match="cannot be rendered"):
        rendered(tmp_path, stored)


# Of real runs.


def call_tree(reader: Any, task_id: str, artifact_name: str, name: str = "calltree") -> CallTree:
    artifact = reader.artifacts(task_id)[artifact_name]
    with open_download(reader.store, artifact, format_of(artifact, name)) as file:
        tree: CallTree = json.load(file)
    return tree


def test_a_profile_of_a_run_begins_with_the_actor_s_function(bench, settings, stored):
    pytest.importorskip("pyinstrument")
    given = settings(task_diagnostics=["pyinstrument"], pyinstrument_interval=0.001)

    def work() -> None:
        sum(number for number in range(2_000_000))

    with bench(given) as tasks:
        ids = [tasks.run(work, actor_name=f"work{number}") for number in range(3)]

    parts = []
    for task_id in ids:
        tree = call_tree(stored(given), task_id, "pyinstrument_profile")
        assert [node["function"] for node in tree["tree"]["children"]] == ["work"]
        parts.append(tree["total"] / stored(given).runs(task_id)[0].duration_ms)
    assert min(parts) > 0
    assert median(parts) <= 1.01  # Any of them may have waited for a processor just before its function was called.
