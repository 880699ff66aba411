"""Triggers: what is read out of them, and what is refused."""

from __future__ import annotations

import pytest

from dramatiq_diag import Settings, SettingsError
from dramatiq_diag.policy.trigger_rules import parse_triggers, trigger_text
from dramatiq_diag.text import MIB

GOOD = [
    ("after 30s: stacks", [("after 30s", 30.0, None, ("stacks",))]),
    ("after 100ms:pyinstrument,stacks", [("after 100ms", 0.1, None, ("pyinstrument", "stacks"))]),
    (
        " after 2 min : memory; rss > 1GiB : memray , stacks;",
        [("after 2min", 120.0, None, ("memory",)), ("rss>1GiB", None, 1024 * MIB, ("memray", "stacks"))],
    ),
    (["rss>500MB: stacks"], [("rss>500MB", None, 500_000_000, ("stacks",))]),
    ("after 30s: all", [("after 30s", 30.0, None, ("all",))]),
    ("", []),
    ([], []),
]

BAD = [
    # Conditions
    "stacks",
    ": stacks",
    "before 3s: stacks",
    "after 3: stacks",
    "after: stacks",
    "rss>5: stacks",
    "rss<1GiB: stacks",
    "rss>: stacks",
    "duration>5s: stacks",
    # Names
    "after 3s",
    "after 3s:",
    "after 3s: ,",
    "after 3s: threads",
    "after 3s: logs",
    "after 3s: stacks: memory",
    # No text
    3,
    None,
    {"after 3s": "stacks"},
    [b"after 3s: stacks"],
    ["after 3s: stacks"] * 3 + [f"after {number}s: stacks" for number in range(30)],
]


@pytest.mark.parametrize(("value", "expected"), GOOD)
def test_triggers_are_read(value, expected):
    found = parse_triggers(value)

    assert [(t.condition, t.after_s, t.rss_bytes, t.names) for t in found] == expected
    assert parse_triggers([trigger_text(trigger) for trigger in found]) == found


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"task_diagnostics": "memory,logs"}, "after 30s: memory, stacks"),
        ({"task_diagnostics_on_request": "all"}, "after 30s: memray, memory, accounting, pyinstrument, stacks"),
        (
            {"task_diagnostics": "all", "pyinstrument_engine": "profiler"},
            "after 30s: memray, memory, accounting, stacks",
        ),
    ],
)
def test_all_is_what_is_chosen_and_can_begin_in_the_middle_of_a_run(values, expected):
    assert Settings(triggers="after 30s: all, stacks", **values).triggers == (expected,)


@pytest.mark.parametrize("value", BAD)
def test_what_is_no_trigger_is_refused(value):
    with pytest.raises(ValueError):  # noqa: PT011 - its text is part of a longer one.
        parse_triggers(value)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (
            {"task_diagnostics": ["memory"], "triggers": "after 3s: memray"},
            "nor TASK_DIAGNOSTICS_ON_REQUEST has memray",
        ),
        ({"task_diagnostics": ["logs"], "triggers": "after 3s: all"}, "all stands for none here"),
        ({"task_diagnostics": ["memory"], "triggers": "after 3s: logs"}, "'logs' cannot begin in the middle of a run"),
        (
            {
                "task_diagnostics": ["pyinstrument"],
                "triggers": "after 3s: pyinstrument",
                "pyinstrument_engine": "profiler",
            },
            "cannot join later",
        ),
    ],
)
def test_triggers_that_cannot_work_are_refused(values, text):
    with pytest.raises(SettingsError, match="DRAMATIQ_DIAG_TRIGGERS") as caught:
        Settings(**values)
    assert text in str(caught.value)
    assert "allowed: conditions" in str(caught.value)


def test_triggers_do_not_stand_in_the_way_of_turning_everything_off():
    assert Settings(triggers="after 3s: memray").off
