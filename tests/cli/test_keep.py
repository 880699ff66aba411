"""`pin`, `unpin`, `delete`, and what `tasks` is asked for: what they print, what they do, and how they exit."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import click
import pytest

from dramatiq_diag.cli.group import Commands
from dramatiq_diag.cli.keep import delete, pin, unpin
from dramatiq_diag.cli.parameters import moment, number
from dramatiq_diag.cli.tasks import tasks
from dramatiq_diag.statuses import ArtifactStatus, RunStatus
from support.cli import make_runner
from support.records import artifact_record, bundle, run_record


@pytest.fixture
def given(settings, monkeypatch):
    made = settings()
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(made.data_dir))
    return made


@pytest.fixture
def command():
    """Runs a command on the data dir of this test."""
    group = Commands(commands=[pin, unpin, delete, tasks])

    def run(*arguments, answer=None):
        result = make_runner(at_terminal=answer is not None).invoke(
            group, arguments, input=answer, prog_name="dramatiq-diag"
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def publish(store, *statuses, task_id="task"):
    now = datetime.now(UTC)
    for number_, status in enumerate(statuses):
        started_at = now - timedelta(seconds=60 - number_)
        run = run_record(task_id=task_id, status=status, started_at=started_at, finished_at=now)
        store.publish([bundle(run, artifact_record(), artifact_record(b"x" * 1000, name="pyinstrument_profile"))])


def test_a_run_is_pinned_and_unpinned(command, store, given, stored):
    publish(store, RunStatus.FAILED, RunStatus.SUCCEEDED)

    pinned = command("pin", "task", "--attempt", "1")
    assert (pinned.exit_code, pinned.stdout) == (
        0,
        "Pinned attempt 1 of task task with 2 artifacts: the cleanup leaves it alone.\n",
    )
    assert [run.pinned_at is None for run in stored(given).runs("task")] == [False, True]

    unpinned = command("unpin", "task", "--attempt", "1")
    assert unpinned.exit_code == 0
    assert unpinned.stdout.startswith("Attempt 1 of task task is not pinned; it has 2 artifacts, kept until 20")
    assert [run.pinned_at for run in stored(given).runs("task")] == [None, None]


def test_a_run_without_files_is_pinned_with_a_note(command, store):
    publish(store, RunStatus.SUCCEEDED)
    command("delete", "task", "--yes")

    assert "None of its artifacts can be downloaded any more" in command("pin", "task").stdout
    assert command("unpin", "task").stdout == "Attempt 1 of task task is not pinned; it has 0 artifacts.\n"


def test_the_latest_run_is_deleted_and_says_what_was_freed(command, store, given, stored):
    publish(store, RunStatus.FAILED, RunStatus.SUCCEEDED)

    result = command("delete", "task", "--yes")

    assert (result.exit_code, result.stdout) == (0, "Deleted 2 artifacts of attempt 2 of task task; 1012 B freed.\n")
    assert stored(given).artifacts("task", 1)["memory_profile"].status == ArtifactStatus.STORED
    assert stored(given).artifacts("task", 2)["memory_profile"].status == ArtifactStatus.DELETED
    assert command("delete", "task", "--yes").stdout == "Deleted 0 artifacts of attempt 2 of task task; 0 B freed.\n"


@pytest.mark.parametrize(
    ("answer", "exit_code", "left"), [("y\n", 0, "deleted"), ("n\n", 1, "stored"), ("", 1, "stored")]
)
def test_a_deletion_is_asked_for_at_a_terminal(command, store, given, stored, answer, exit_code, left):
    publish(store, RunStatus.SUCCEEDED)

    result = command("delete", "task", answer=answer)

    assert result.exit_code == exit_code
    assert "Delete 2 artifacts (1012 B) of attempt 1 of task task for good?" in result.output
    assert stored(given).artifacts("task")["memory_profile"].status == left


def test_without_a_terminal_a_deletion_needs_a_yes(command, store, given, stored):
    publish(store, RunStatus.SUCCEEDED)

    result = command("delete", "task")

    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert stored(given).data("task", "memory_profile")


def test_a_pinned_run_is_not_deleted(command, store, given, stored):
    publish(store, RunStatus.SUCCEEDED)
    command("pin", "task")

    result = command("delete", "task", "--yes")

    assert result.exit_code == 1
    assert "unpin it first" in result.stderr
    assert stored(given).data("task", "memory_profile")


@pytest.mark.parametrize("arguments", [("pin",), ("unpin",), ("delete", "--yes")])
def test_a_run_that_has_not_ended_is_left_alone(command, store, arguments):
    store.announce([run_record(task_id="task", status=RunStatus.RUNNING, finished_at=None, duration_ms=None)])

    result = command(arguments[0], "task", *arguments[1:])

    assert result.exit_code == 1
    assert "not ended" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [("pin",), ("unpin",), ("delete", "--yes")])
def test_the_beginning_of_an_id_changes_nothing_and_the_whole_id_is_named(command, store, arguments):
    publish(store, RunStatus.SUCCEEDED)

    result = command(*arguments, "tas")

    assert result.exit_code == 1
    assert "for task 'tas'. Give the whole id: task begins with it." in result.stderr


@pytest.mark.parametrize("arguments", [("pin",), ("unpin",), ("delete", "--yes")])
@pytest.mark.parametrize("which", [("nobody\x1b[2J",), ("task", "--attempt", "2")])
def test_an_unknown_run_is_an_error(command, store, arguments, which):
    publish(store, RunStatus.SUCCEEDED)

    result = command(*arguments, *which)

    assert result.exit_code == 1
    assert "Nothing was ever collected for" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["pin", "unpin", "delete", "tasks"])
def test_help_shows_an_example(command, name):
    result = command(name, "--help")

    assert result.exit_code == 0
    assert f"dramatiq-diag {name}" in result.stdout


# What `tasks` is asked for.


def listed(result):
    assert result.exit_code == 0, result.output
    return [run["task_id"] for run in json.loads(result.stdout)["runs"]]


@pytest.fixture
def three(store):
    now = datetime.now(UTC)
    store.publish(
        [
            bundle(run_record(task_id="old", started_at=now - timedelta(days=5), duration_ms=9000.0, peak_rss_bytes=1)),
            bundle(run_record(task_id="odd", started_at=now - timedelta(hours=5), duration_ms=100.0)),
            bundle(run_record(task_id="new", started_at=now, duration_ms=2000.0, peak_rss_bytes=300 * 1024**2)),
        ]
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ["new", "odd", "old"]),
        (("--task-id", "o"), ["odd", "old"]),
        (("--task-id", "old"), ["old"]),
        (("--since", "1d"), ["new", "odd"]),
        (("--since", "1d", "--until", "60m"), ["odd"]),
        (("--since", "2026-01-01", "--until", "2026-01-02T00:00+02:00"), []),
        (("--min-duration-s", "2"), ["new", "old"]),
        (("--max-duration-s", "2"), ["new", "odd"]),
        (("--min-duration-s", "0.1", "--max-duration-s", "0.1"), ["odd"]),
        (("--min-peak-rss-mib", "300"), ["new"]),
        (("--min-peak-rss-mib", "300.5"), []),
        (("--sort", "slowest"), ["old", "new", "odd"]),
        (("--sort", "memory"), ["new", "old"]),
        (("--sort", "newest", "--limit", "1"), ["new"]),
    ],
)
def test_runs_are_filtered_and_sorted(command, three, arguments, expected):
    assert listed(command("tasks", "--json", *arguments)) == expected


def test_a_list_goes_on_where_it_stopped(command, three):
    first = command("tasks", "--json", "--sort", "slowest", "--limit", "1")
    cursor = json.loads(first.stdout)["next"]

    assert listed(command("tasks", "--json", "--sort", "slowest", "--cursor", cursor)) == ["new", "odd"]
    assert command("tasks", "--cursor", cursor).exit_code == 2


def test_an_empty_list_says_why_it_may_be(command, three, store):
    assert command("tasks", "--since", "0s").stdout == "No runs match.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--since", "yesterday"),
        ("--since", ""),
        ("--since", "2x"),
        ("--until", "999999999w"),
        ("--until", "9" * 5000 + "d"),
        ("--since", "0001-01-01T00:00+14:00"),
        ("--min-duration-s", "nan"),
        ("--min-duration-s", "-1"),
        ("--max-duration-s", "inf"),
        ("--max-duration-s", "2s"),
        ("--min-peak-rss-mib", "1e300"),
        ("--sort", "oldest"),
    ],
)
def test_a_wrong_value_of_an_option_is_a_usage_error(command, store, arguments):
    result = command("tasks", *arguments)

    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_ages_and_times_are_read():
    now = datetime.now(UTC)

    for text, age in {"90s": 90, "15m": 900, "2h": 7200, "3d": 259_200, "1w": 604_800}.items():
        assert abs((now - moment(text)).total_seconds() - age) < 60
    assert moment("2026-11-22T13:40") == moment("2026-11-22T14:40+01:00") == datetime(2026, 11, 22, 13, 40, tzinfo=UTC)
    assert number("1.5") == 1.5
    with pytest.raises(click.BadParameter):
        moment("soon")
