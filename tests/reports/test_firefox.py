"""The JSON for the Firefox Profiler: its tables fit together, and say what our call tree says."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.reports.cache import format_of, open_download
from dramatiq_diag.reports.calltree import functions
from support.profiles import render, session_of_stacks

STACKS = [
    (["root"], 0.25),
    (["root", "parse:5"], 1.5),
    (["root", "parse:6"], 0.5),
    (["root", "fib:30", "fib:30"], 0.6),
    (["root", "</script>\ud800"], 0.2),
]

#: The columns of each table, and what a cell of it is: the type of a value, or the table that a number is a row of.
#: The first version that has them is 61; the profiler's src/types/profile.ts describes them.
_NUMBER, _FLAG, _NOTHING = (int, float), (bool,), ()
_COLUMNS: dict[str, dict[str, Any]] = {
    "sources": {"filename": "stringArray", "id": _NOTHING, "startLine": _NUMBER, "startColumn": _NUMBER},
    "funcTable": {
        "name": "stringArray",
        "source": "sources",
        "isJS": _FLAG,
        "relevantForJS": _FLAG,
        "resource": _NUMBER,
    },
    "frameTable": {"func": "funcTable", "address": _NUMBER, "inlineDepth": _NUMBER, "category": _NUMBER},
    "stackTable": {"frame": "frameTable", "prefix": "stackTable"},
    "resourceTable": {"lib": _NUMBER, "name": "stringArray", "host": "stringArray", "type": _NUMBER},
    "nativeSymbols": {"libIndex": _NUMBER, "address": _NUMBER, "name": "stringArray", "functionSize": _NUMBER},
}
_MAY_BE_NULL = {("funcTable", "source"), ("stackTable", "prefix")}


def document(path: Path, name: str = "firefox") -> Any:
    return json.loads(render(path, name))


@pytest.fixture
def stored_session(tmp_path: Path) -> Path:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(session_of_stacks(STACKS)))
    return path


def assert_consistent(profile: Any) -> None:
    """Checks that every column is as long as its table, and that every number of a row is one of an existing row."""
    shared = profile["shared"]
    for name, columns in _COLUMNS.items():
        table = shared[name]
        assert {len(column) for key, column in table.items() if key != "length"} == {table["length"]}, name
        for key, kind in columns.items():
            for at, cell in enumerate(table[key]):
                if cell is None:
                    assert kind is _NOTHING or (name, key) in _MAY_BE_NULL, (name, key)
                elif isinstance(kind, str):
                    rows = len(shared[kind]) if kind == "stringArray" else shared[kind]["length"]
                    assert 0 <= cell < (at if (name, key) == ("stackTable", "prefix") else rows), (name, key, at)
                else:
                    assert isinstance(cell, kind), (name, key, at)
    assert all(isinstance(text, str) for text in shared["stringArray"])
    for thread in profile["threads"]:
        samples, markers = thread["samples"], thread["markers"]
        assert {len(samples[name]) for name in ("stack", "time", "weight")} == {samples["length"]}
        assert samples["time"] == sorted(samples["time"])
        assert all(cell is None or 0 <= cell < shared["stackTable"]["length"] for cell in samples["stack"])
        assert markers["length"] == len(markers["data"]) == 0
        assert isinstance(thread["pid"], str)
    assert isinstance(profile["meta"]["interval"], int | float)
    assert profile["meta"]["interval"] > 0
    assert [category["color"] for category in profile["meta"]["categories"]] == ["grey"]  # The default one.


def values_of(profile: Any) -> dict[tuple[str, str], tuple[float, float]]:
    """Returns: Function and file -> its own value and the one with its calls."""
    shared = profile["shared"]
    texts, stacks, frames = shared["stringArray"], shared["stackTable"], shared["frameTable"]
    own: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    samples = profile["threads"][0]["samples"]
    for stack, weight in zip(samples["stack"], samples["weight"], strict=True):
        names = []
        while stack is not None:
            function = frames["func"][stacks["frame"][stack]]
            source = shared["funcTable"]["source"][function]
            file = "" if source is None else texts[shared["sources"]["filename"][source]]
            names.append((texts[shared["funcTable"]["name"][function]], file))
            stack = stacks["prefix"][stack]
        own.update(dict.fromkeys(names[:1], weight))
        total.update(dict.fromkeys(names, weight))
    return {name: (own[name], total[name]) for name in total}


def assert_like_our_tree(profile: Any, tree: Any) -> None:
    found = {(row["function"], row["file"]): (row["self"], row["total"]) for row in functions(tree["tree"])}
    values = values_of(profile)
    assert {name: pytest.approx(value, abs=0.01) for name, value in found.items()} == {
        name: values[name] for name in found
    }


def test_a_session_is_a_consistent_profile_with_the_times_of_our_call_tree(stored_session: Path) -> None:
    profile = document(stored_session)
    assert_consistent(profile)
    assert_like_our_tree(profile, document(stored_session, "calltree"))
    assert len(values_of(profile)) == 4
    assert profile["meta"]["product"] == "crunch"
    assert profile["meta"]["startTime"] == 1767323045000.0
    assert profile["threads"][0]["samples"]["weightType"] == "tracing-ms"
    assert profile["threads"][0]["samples"]["time"] == [0, 250, 1750, 2250, 2850]
    assert sorted(filter(None, profile["shared"]["frameTable"]["line"])) == [5, 6, 30]


def test_an_empty_session_is_a_consistent_profile(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(session_of_stacks([])))
    assert_consistent(document(path))
    path.write_text(json.dumps(session_of_stacks([([], 1.0)])))
    profile = document(path)
    assert_consistent(profile)
    assert profile["threads"][0]["samples"]["stack"] == [None]


def test_the_allocations_of_a_run_are_a_consistent_profile(bench: Any, settings: Any, stored: Any) -> None:
    pytest.importorskip("memray")

    def hold(megabytes: int) -> bytes:
        return b"h" * (megabytes << 20)

    def work() -> None:
        kept = [hold(5), bytearray(3 << 20)]
        del kept

    given = settings(task_diagnostics=["memray"])
    with bench(given) as tasks:
        task_id = tasks.run(work)
    reader = stored(given)
    artifact = reader.artifacts(task_id)["memray_profile"]
    for suffix in ("", "-process"):
        with open_download(reader.store, artifact, format_of(artifact, f"firefox{suffix}")) as file:
            profile = json.load(file)
        with open_download(reader.store, artifact, format_of(artifact, f"calltree{suffix}")) as file:
            tree = json.load(file)
        assert_consistent(profile)
        assert_like_our_tree(profile, tree)
        assert profile["threads"][0]["samples"]["weightType"] == "bytes"
