"""What is said of a process that died: why, which run grew it, and which were victims."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

from dramatiq_diag.runtime.memory_state import MemoryState
from dramatiq_diag.spool.death import death_of
from dramatiq_diag.spool.memory_story import MemoryStory, NotedCall, NotedRun
from dramatiq_diag.spool.owner_state import Left, State, StateFile
from dramatiq_diag.spool.reader import read_finished_run
from dramatiq_diag.statuses import MemoryRole
from dramatiq_diag.text import MIB
from support.spool import TEXT, dead_entry, start_record

EATER, NEIGHBOUR = uuid.uuid4(), uuid.uuid4()
EATING = NotedRun(
    run_id=EATER,
    touched_bytes=3100 * MIB,
    bytes_per_s=210.0 * MIB,
    task_id="task-eat",
    actor_name="eat",
    calls=[
        NotedCall(function="eat", file="/app/work.py", line=12),
        NotedCall(function="run", file="/app/m.py", line=3),
    ],
)
RESTING = NotedRun(run_id=NEIGHBOUR, touched_bytes=5 * MIB)


def memory(used_mib: int, **changes: Any) -> MemoryState:
    given = {"rss_bytes": used_mib * MIB, "available_bytes": 9000 * MIB, "total_bytes": 10_000 * MIB}
    return MemoryState(**given | {"cgroup_bytes": used_mib * MIB, "cgroup_limit_bytes": 1000 * MIB} | changes)


def story(used_mib: int = 980, at: float = 1000.0, **changes: Any) -> MemoryStory:
    given = {"state": memory(used_mib), "seconds": 0.4, "bytes_per_s": 210.0 * MIB, "runs": [EATING, RESTING]}
    return MemoryStory(number=1, at=at, **given | changes)


def left(found: MemoryStory | None, used_mib: int = 950, at: float = 999.5, **changes: Any) -> Left:
    return Left(State(number=1, at=at, vitals=memory(used_mib, **changes)), found)


def test_the_run_that_grew_the_process_is_told_how_and_where(tmp_path):
    death = death_of(EATER, 900.0, left(story()), tmp_path)

    assert death.role == MemoryRole.GROWER
    assert death.touched_bytes == 3100 * MIB
    assert death.reason == (
        "Its process was killed, as it seems for lack of memory. At the last look this task was growing by "
        "210.0 MiB/s, averaged over the last 0.4 s, and had touched 3.0 GiB; it was at eat (/app/work.py:12), called "
        "by run (/app/m.py:3)."
    )


def test_its_neighbours_are_victims(tmp_path):
    death = death_of(NEIGHBOUR, 900.0, left(story()), tmp_path)

    assert (death.role, death.touched_bytes) == (MemoryRole.VICTIM, 5 * MIB)
    assert "the task task-eat (actor eat) was growing by 210.0 MiB/s at eat (/app/work.py:12)" in death.reason
    assert death.reason.endswith("This task was a victim.")


def test_one_that_began_after_the_last_look_may_have_had_a_part(tmp_path):
    death = death_of(uuid.uuid4(), 1000.2, left(story()), tmp_path)

    assert (death.role, death.touched_bytes) == (None, None)
    assert "the task task-eat (actor eat) was growing by 210.0 MiB/s" in death.reason
    assert death.reason.endswith(" This task began after that look.")


def test_one_that_touched_much_itself_is_not_called_a_victim(tmp_path):
    """Threads hand memory to each other through the heap; the kernel counts who touched it, not who keeps it."""
    much = RESTING.model_copy(update={"touched_bytes": 1000 * MIB})

    death = death_of(NEIGHBOUR, 900.0, left(story(runs=[EATING, much])), tmp_path)

    assert death.role is None
    assert "the task task-eat (actor eat) was growing by 210.0 MiB/s" in death.reason
    assert death.reason.endswith(" This task had touched 1000.0 MiB itself; how much of it was kept is not known.")


def test_two_that_grew_it_name_each_other(tmp_path):
    other = EATING.model_copy(update={"run_id": NEIGHBOUR, "task_id": "task-2", "calls": []})

    death = death_of(EATER, 900.0, left(story(runs=[EATING, other])), tmp_path)

    assert death.role == MemoryRole.GROWER
    assert death.reason.endswith(" So was the task task-2 (actor eat).")


def test_a_process_far_from_its_limits_was_not_killed_for_its_memory(tmp_path):
    death = death_of(EATER, 900.0, left(story(used_mib=200), used_mib=200), tmp_path)

    assert (death.role, death.touched_bytes) == (None, 3100 * MIB)
    assert death.reason == "Its process died; at the last look its memory was far from its limits."


@pytest.mark.parametrize(
    ("kills_now", "expected"),
    [(7, " was used; since then the kernel has killed no process for lack of memory."), (None, " was used.")],
)
def test_near_a_limit_it_is_said_whether_the_kernel_has_killed(tmp_path, kills_now, expected):
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("this")
    if kills_now is not None:
        (tmp_path / "proc/vmstat").write_text(f"oom_kill {kills_now}\n")
    found = left(None, used_mib=850, oom_kills=7, boot_id="this")

    death = death_of(EATER, 900.0, found, tmp_path)

    assert death.role is None
    assert death.reason == f"Its process died; at the last look 85% of the memory{expected}"


def killed_since(root: Path) -> dict[str, Any]:
    """Has the kernel kill a process after the last look. Returns: What the look had of it."""
    (root / "proc/sys/kernel/random").mkdir(parents=True)
    (root / "proc/sys/kernel/random/boot_id").write_text("this")
    (root / "proc/vmstat").write_text("oom_kill 8\n")
    return {"oom_kills": 7, "boot_id": "this"}


@pytest.mark.parametrize(
    ("used_mib", "more_before_mib", "role"),
    [
        (480, None, MemoryRole.GROWER),
        (470, None, None),
        (470, 0, None),
        (470, 10, MemoryRole.GROWER),  # Its neighbours fill and free that much at any moment.
        (470, -10, None),
    ],
)
def test_one_whose_growth_would_have_lasted_for_more_looks_did_not_fill_the_memory(
    tmp_path, used_mib, more_before_mib, role
):
    state = memory(used_mib, **killed_since(tmp_path))
    highest_bytes = None if more_before_mib is None else state.rss_bytes + more_before_mib * MIB
    found = story(state=state, highest_rss_bytes=highest_bytes)

    death = death_of(EATER, 900.0, left(found, used_mib), tmp_path)

    assert death.role == role
    if role is None:
        assert death.reason.endswith(
            "At the last look the process was growing by 210.0 MiB/s, and had 530.0 MiB left: "
            "what filled these was not seen."
        )


def test_files_that_nobody_uses_do_not_count_as_used(tmp_path):
    found = left(None, used_mib=990, cgroup_file_bytes=700 * MIB)

    assert "far from its limits" in death_of(EATER, 900.0, found, tmp_path).reason


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"runs": [RESTING], "other_grows": True},
            "threads that executed no diagnosed task were growing the process by 210",
        ),
        ({"runs": [RESTING]}, "the process was growing by 210.0 MiB/s; which of its tasks did cannot be told."),
        (
            {"runs": [RESTING], "bytes_per_s": None},
            "It is not known which task grew the process: no look",
        ),
    ],
)
def test_what_cannot_be_told_accuses_nobody(tmp_path, changes, expected):
    death = death_of(NEIGHBOUR, 900.0, left(story(**changes)), tmp_path)

    assert death.role is None
    assert expected in death.reason


@pytest.mark.parametrize(("shares_thread", "role"), [(True, None), (False, MemoryRole.VICTIM)])
def test_coroutines_that_cannot_be_told_apart_are_not_accused(tmp_path, shares_thread, role):
    run = RESTING.model_copy(update={"shares_thread": shares_thread})

    death = death_of(NEIGHBOUR, 900.0, left(story(runs=[run], shared_grows=True)), tmp_path)

    assert death.role == role
    assert "the event loop's thread was growing the process by 210.0 MiB/s" in death.reason


def test_a_story_that_was_not_renewed_does_not_count(tmp_path):
    death = death_of(EATER, 900.0, left(story(at=1000.0), at=1010.0), tmp_path)

    assert (death.role, death.touched_bytes) == (None, None)


def test_without_a_look_nothing_is_known(tmp_path):
    assert death_of(EATER, 900.0, Left(None, None), tmp_path).reason == (
        "Its process died before there was a look at its memory."
    )


def test_an_interrupted_run_has_its_part_and_what_it_touched(settings):
    entry = dead_entry(settings().spool, [start_record(EATER, started_at="1970-01-01T00:10:00+00:00"), TEXT], EATER)
    file = StateFile(Path(entry.owner))
    file.write(999.5, memory(950))
    file.write_story(story())
    file.close()

    finished = read_finished_run(entry)

    assert (finished.run.memory_role, finished.run.touched_bytes) == (MemoryRole.GROWER, 3100 * MIB)
    assert "eat (/app/work.py:12)" in finished.run.death_reason
    # And the reason of its artifact has the state of the last note
    assert "its cgroup used 980.0 MiB of 1000.0 MiB: it looks like an OOM kill." in finished.artifacts[0].reason
