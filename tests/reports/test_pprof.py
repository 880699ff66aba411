"""pprof's own reader, of Go's tools, finds in our files what our reports show."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.reports.cache import format_of, open_download
from dramatiq_diag.reports.calltree import functions
from dramatiq_diag.reports.errors import ReportError
from dramatiq_diag.text import MIB
from support import PATIENCE_S, missing
from support.profiles import render, session_of_stacks

#: A row of `-top`: its own value, its share, the sum of the shares, the value with calls, its share, and the name.
_ROW = re.compile(
    r" *(?P<own>[0-9.]+)(?:ms|B)? +[0-9.]+% +[0-9.]+% +(?P<total>[0-9.]+)(?:ms|B)? +[0-9.]+% +(?P<name>.*)"
)

STACKS = [
    (["root"], 0.25),
    (["root", "parse:5"], 1.5),
    (["root", "parse:6"], 0.5),
    (["root", "Client.fetch:9", "[await]"], 3.0),
    (["root", "<genexpr>:21"], 0.9),
    (["root", "<genexpr>:21", "<lambda>:22"], 0.01),
    (["root", *["fib:30"] * 50], 0.6),
    (["root", 'vector<int>::push("x")'], 0.3),
    (["root", "naïve_\ud800"], 0.2),
]

#: Functions that work and allocate by themselves, each under a name of its own.
PARTS: dict[str, Any] = {}
for number in range(1, 7):
    exec(f"def spin_{number}(now, until):\n while now() < until: pass", PARTS)
    exec(f"def hold_{number}(size_bytes):\n return bytearray(size_bytes)", PARTS)


@pytest.fixture
def top(tmp_path: Path) -> Callable[..., list[tuple[str, float, float]]]:
    """Reads a file with `go tool pprof -top`. Returns: Name, own value and value with calls, the largest first."""
    if shutil.which("go") is None:
        missing("No `go tool pprof` reads pprof files", "apt-get install golang-go")

    def read(data: bytes, unit: str, *options: str) -> list[tuple[str, float, float]]:
        path = tmp_path / "profile.pb.gz"
        path.write_bytes(data)
        command = ["go", "tool", "pprof", "-top", f"-unit={unit}", "-nodefraction=0", *options, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        rows = map(_ROW.fullmatch, done.stdout.splitlines())
        return [(row["name"], float(row["own"]), float(row["total"])) for row in rows if row]

    return read


@pytest.fixture
def stored_session(tmp_path: Path) -> Path:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(session_of_stacks(STACKS)))
    return path


def test_go_reads_the_times_that_our_call_tree_has(stored_session: Path, top: Any) -> None:
    tree = json.loads(render(stored_session, "calltree"))
    ours = [(found["function"], found["self"], found["total"]) for found in functions(tree["tree"])]
    read = top(render(stored_session, "pprof"), "ms")
    named = [("naïve_?" if name.startswith("naïve") else name, own, total) for name, own, total in ours]
    assert read == named
    assert len(read) == 8


def test_go_reads_lines_title_and_times(stored_session: Path, top: Any, tmp_path: Path) -> None:
    top(render(stored_session, "pprof"), "ms")  # It leaves the file.
    raw = subprocess.run(
        ["go", "tool", "pprof", "-raw", str(tmp_path / "profile.pb.gz")], capture_output=True, text=True, check=True
    ).stdout
    assert "Comment: dramatiq_diag: crunch" in raw
    assert "PeriodType: wall nanoseconds\nPeriod: 5000000\nTime: 2026-01-02 03:04:05" in raw
    assert "wall/nanoseconds[dflt]" in raw
    assert {"parse /srv/jobs.py:5", "parse /srv/jobs.py:6", "fib /srv/jobs.py:30"} <= {
        match[0] for match in re.findall(r"M=1 ((\w+) /srv/jobs.py:\d+)", raw)
    }


def test_go_shows_the_same_top_five_of_a_real_run_as_our_reports(
    bench: Any, settings: Any, stored: Any, top: Any
) -> None:
    pytest.importorskip("pyinstrument")
    pytest.importorskip("memray")

    def work() -> None:
        kept = []
        for number in range(1, 7):
            kept.append(PARTS[f"hold_{number}"](number * MIB))
            PARTS[f"spin_{number}"](time.thread_time, time.thread_time() + 0.05 * number)

    given = settings(task_diagnostics=["pyinstrument", "memray"], pyinstrument_interval=0.001)
    with bench(given) as tasks:
        task_id = tasks.run(work)
    reader = stored(given)
    for name, unit in (("pyinstrument_profile", "ms"), ("memray_profile", "B")):
        artifact = reader.artifacts(task_id)[name]
        with open_download(reader.store, artifact, format_of(artifact, "calltree")) as file:
            ours = functions(json.load(file)["tree"])[:5]
        with open_download(reader.store, artifact, format_of(artifact, "pprof")) as file:
            theirs = top(file.read(), unit)[:5]
        assert [row[:2] for row in theirs] == [
            (found["function"], pytest.approx(found["self"], abs=0.01)) for found in ours
        ]
        assert {row[0] for row in theirs} <= PARTS.keys()


@pytest.mark.parametrize(
    "change",
    [
        {"duration": 1e300},
        {"start_time": 1e300},
        {"start_time": -1},
        {"min_interval": "x"},
        {"frame_records": [[["f\0/f.py\x00-1"], 1.0]]},
        {"frame_records": [[[f"f\0/f.py\x00{2**63}"], 1.0]]},
        {"frame_records": [[["f\0/f.py\x001\1l-5"], 1.0]]},
        {"frame_records": [[["f\0/f.py\x001"], 1e300]]},
    ],
    ids=repr,
)
def test_a_number_that_pprof_cannot_hold_is_a_clear_error(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "session.json"
    path.write_text(json.dumps(session_of_stacks(STACKS) | change))
    with pytest.raises(ReportError, match="cannot be rendered"):
        render(path, "pprof")


def test_the_same_profile_is_the_same_file(stored_session: Path) -> None:
    data = render(stored_session, "pprof")
    assert data == render(stored_session, "pprof")
    assert b"/srv/jobs.py" in gzip.decompress(data)
