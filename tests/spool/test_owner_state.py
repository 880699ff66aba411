"""The state of a worker process: one place that is overwritten, and what a kill in the middle of that leaves."""

from __future__ import annotations

import itertools
import json
import os
import uuid
import zlib

import pytest

from dramatiq_diag.runtime.memory_state import MemoryState
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.spool.entry import ENTRY_SUFFIX
from dramatiq_diag.spool.memory_story import MemoryStory, NotedCall, NotedRun
from dramatiq_diag.spool.owner_state import STATE_FILE, StateFile, read_left
from dramatiq_diag.spool.reader import read_finished_run
from support.simulation import simulated
from support.spool import TEXT, dead_entry, start_record
from support.tasks import rss_of_runs

HOUR_S = 3600


def vitals(rss_bytes: int) -> MemoryState:
    return MemoryState(rss_bytes=rss_bytes, available_bytes=2**34, total_bytes=2**35, oom_kills=3, boot_id="b" * 36)


@pytest.fixture
def state(tmp_path):
    file = StateFile(tmp_path)
    yield file
    file.close()


def test_the_last_state_is_read_and_the_file_does_not_grow(state, tmp_path):
    for number in range(1000):
        state.write(1000.0 + number, vitals(number))

    found = read_left(tmp_path).state

    assert (found.at, found.vitals.rss_bytes) == (1999.0, 999)
    assert (tmp_path / STATE_FILE).stat().st_size == 2048
    assert (tmp_path / STATE_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("written", [1, 5, 100, 200, 300, 1023])
def test_a_state_that_was_torn_costs_itself_alone(state, tmp_path, written):
    # Given two states, and a third that was written in part over the first
    state.write(1000.0, vitals(1))
    before = (tmp_path / STATE_FILE).read_bytes()
    state.write(1001.0, vitals(22))
    state.write(1002.0, vitals(333))
    whole = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(whole[:written] + before[written:1024] + whole[1024:])

    found = read_left(tmp_path).state

    # Then the second is read, or the third where all that matters of it was written
    assert found.vitals.rss_bytes in ((22,) if written < 300 else (22, 333))


HOSTILE = [
    b"",
    b"\n" * 2048,
    b"\xff" * 5000,
    b"00000000 {}",
    b"8c736521 []",
    b"x" * 1024 + b'a8c04c0e {"number": -1}',
]


@pytest.mark.parametrize("content", HOSTILE)
def test_what_is_no_state_is_none(tmp_path, content):
    (tmp_path / STATE_FILE).write_bytes(content)

    assert read_left(tmp_path).state is None


def test_a_state_that_is_no_regular_file_is_none(tmp_path):
    assert read_left(tmp_path).state is None
    os.mkfifo(tmp_path / STATE_FILE)
    assert read_left(tmp_path).state is None
    (tmp_path / STATE_FILE).unlink()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / STATE_FILE).symlink_to(tmp_path / "secret")
    assert read_left(tmp_path).state is None


def story(at: float, runs: int = 1, name: str = "x") -> MemoryStory:
    calls = [NotedCall(function=name, file=name, line=1)] * 5
    noted = NotedRun(run_id=uuid.uuid4(), bytes_per_s=1.0, task_id=name, actor_name=name, calls=calls)
    return MemoryStory(number=0, at=at, state=vitals(7), runs=[noted] * runs)


def test_the_last_story_is_read_beside_the_state(state, tmp_path):
    state.write(1000.0, vitals(5))
    for number in range(100):
        state.write_story(story(2000.0 + number, runs=1 + 63 * (number % 2 == 0)))

    left = read_left(tmp_path)

    assert (left.story.at, len(left.story.runs), left.state.vitals.rss_bytes) == (2099.0, 1, 5)
    assert [at for at, _ in left.states()] == [1000.0, 2099.0]
    assert (tmp_path / STATE_FILE).stat().st_size < 100 * 1024


def test_a_story_with_long_names_has_fewer_calls_and_fits(state, tmp_path):
    state.write_story(story(2000.0, runs=16, name="\u20ac" * 200))

    assert [len(run.calls) for run in read_left(tmp_path).story.runs] == [1] * 16
    assert (tmp_path / STATE_FILE).stat().st_size < 100 * 1024


def test_nothing_is_written_after_the_end(tmp_path):
    """The number of the closed descriptor may be that of a file of the application by then."""
    file = StateFile(tmp_path)
    file.write(1000.0, vitals(1))
    file.close()
    descriptors = [os.open(tmp_path / f"other {number}", os.O_RDWR | os.O_CREAT) for number in range(20)]
    file.write(1001.0, vitals(2))
    file.write_story(story(1002.0))
    for number, descriptor in enumerate(descriptors):
        os.close(descriptor)
        assert (tmp_path / f"other {number}").read_bytes() == b""
    assert read_left(tmp_path).state.at == 1000.0


@pytest.mark.parametrize("written", [0, 5, 20])
def test_a_story_that_was_torn_costs_itself_alone(state, tmp_path, written):
    # Given two stories, and a third of which only the beginning was written over the first
    state.write_story(story(1000.0))
    before = (tmp_path / STATE_FILE).read_bytes()
    state.write_story(story(1001.0))
    state.write_story(story(1002.0))
    whole = (tmp_path / STATE_FILE).read_bytes()
    (tmp_path / STATE_FILE).write_bytes(whole[: 2048 + written] + before[2048 + written :] + whole[len(before) :])

    assert read_left(tmp_path).story.at == 1001.0


@pytest.mark.parametrize(
    "changes",
    [
        {"at": "soon"},
        {"runs": [{"run_id": "me"}]},
        {"runs": [{"run_id": str(uuid.UUID(int=1)), "calls": [{"function": "f" * 201, "file": "f", "line": 1}]}]},
        {"runs": [{"run_id": str(uuid.UUID(int=1)), "touched_bytes": 2**63}]},
        {"runs": [{"run_id": str(uuid.UUID(int=1))}] * 65},
        {"seconds": "NaN"},
    ],
)
def test_a_story_that_lies_about_its_types_is_none(tmp_path, changes):
    data = json.dumps(json.loads(story(5.0).model_dump_json()) | changes).encode()
    (tmp_path / STATE_FILE).write_bytes(b"\n" * 2048 + b"%08x %b\n" % (zlib.crc32(data), data))

    assert read_left(tmp_path).story is None


def dead_run_with_state(root, at: float):
    """An entry of a run that began at 1000 s, and the state of its process at another time."""
    run_id = uuid.uuid4()
    entry = dead_entry(root, [start_record(run_id, started_at="1970-01-01T00:16:40+00:00"), TEXT], run_id)
    os.utime(entry.path(ENTRY_SUFFIX), (1001, 1001))
    state = StateFile(entry.owner)
    state.write(at, vitals(2**33))
    state.close()
    return entry


def test_an_interrupted_run_lived_until_the_last_look_at_its_process(settings):
    entry = dead_run_with_state(settings().spool, at=5000.0)

    run = read_finished_run(entry).run

    assert run.finished_at.timestamp() == 5000.0
    assert run.duration_ms == 4_000_000.0
    assert run.peak_rss_bytes == 2**33


def test_a_look_from_before_a_run_says_nothing_of_it(settings):
    entry = dead_run_with_state(settings().spool, at=999.0)

    bundle = read_finished_run(entry)

    assert bundle.run.finished_at.timestamp() == 1001.0
    assert bundle.run.peak_rss_bytes == TEXT["peak_rss_bytes"]
    assert "At the last look" not in bundle.artifacts[0].reason


def test_a_dead_owner_is_removed_with_its_state(settings):
    spool = Spool(settings())
    spool.open()
    spool.write_state(1000.0, vitals(1))
    assert (spool.owner / STATE_FILE).exists()

    spool.close()

    assert list(spool.root.iterdir()) == []


def test_the_entry_of_a_task_of_a_day_stays_below_4_mib(settings, monkeypatch):
    # Given a task that has run for 23 hours, and grows with each look at it
    rss_bytes = itertools.count(2**31)
    rss_of_runs(monkeypatch, lambda: next(rss_bytes))
    with simulated(settings(task_diagnostics=["memory"], stuck_after=0)) as simulation:
        run = simulation.begin(simulation.actor())
        simulation.pass_time(23 * HOUR_S, step_s=23 * HOUR_S)
        before_bytes = run.entry.size_bytes(ENTRY_SUFFIX)
        # When it runs for an hour beside one new task a second, with samples and looks at their usual intervals
        for _ in range(HOUR_S):
            run.overlap(f"{uuid.uuid4()}")
            simulation.pass_time(1.0, step_s=1.0)
        size_bytes = run.entry.size_bytes(ENTRY_SUFFIX) - before_bytes
        simulation.end(run)
        simulation.flush()

    # Then 24 such hours fit
    assert 10_000 < size_bytes < 4 * 1024**2 // 24
