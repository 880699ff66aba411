"""`capture` and `captures`: what they print, what they do, and how they exit."""

from __future__ import annotations

import json
import uuid

import click
import pytest

from dramatiq_diag.cli import main
from dramatiq_diag.cli.parameters import duration_s
from dramatiq_diag.store.captures import create
from support.captures import note
from support.cli import make_runner
from support.records import artifact_record, bundle, run_record


@pytest.fixture
def given(settings, monkeypatch):
    made = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"])
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(made.data_dir))
    monkeypatch.setenv("TASK_DIAGNOSTICS", "memory")
    monkeypatch.setenv("TASK_DIAGNOSTICS_ON_REQUEST", "memray")
    return made


@pytest.fixture
def command(given):
    """Runs a command on the data dir of this test."""

    def run(*arguments):
        result = make_runner().invoke(main, arguments, prog_name="dramatiq-diag")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def document(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_capture_is_asked_for_listed_and_ended(command, store):
    note(store, "resize")
    made = command("capture", "resize", "--diagnostics", "memray, memory", "--runs", "5", "--for", "2h")
    assert (made.exit_code, made.stderr) == (0, "")
    assert "the next 5 runs of resize, until 20" in made.stdout

    (listed,) = document(command("captures", "--open", "--json"))["captures"]
    assert (listed["actor_name"], listed["state"], listed["captured_runs"]) == ("resize", "open", 0)
    assert listed["diagnostics"] == {"memray": {}, "memory": {}}
    assert "0 of 5  resize  memray,memory" in command("captures", "--actor", "resize").stdout

    ended = document(command("captures", "--end", listed["capture_id"], "--json"))
    assert (ended["capture_id"], ended["state"]) == (listed["capture_id"], "ended")
    assert "No captures." in command("captures", "--open").stdout
    assert command("captures", "--end", listed["capture_id"]).exit_code == 0


def test_a_capture_says_how_its_diagnostics_work(command):
    options = ("--option", "memray.native_traces=true", "--option", "memory.interval=0.5")
    assert command("capture", "resize", "--unknown-actor", "--diagnostics", "memray,memory", *options).exit_code == 0

    (listed,) = document(command("captures", "--json"))["captures"]
    assert listed["diagnostics"] == {"memray": {"native_traces": True}, "memory": {"interval": 0.5}}
    assert "memray (native_traces=true),memory (interval=0.5)" in command("captures").stdout


def test_a_capture_of_an_actor_that_nobody_knows_has_to_be_asked_for_as_that(command, store):
    note(store, "resize")
    refused = command("capture", "resise", "--diagnostics", "memory")
    assert refused.exit_code == 2
    assert "there is 'resize'. Where its workers have not started yet" in " ".join(refused.stderr.split())
    assert "--unknown-actor" in refused.stderr
    assert command("captures").stdout.startswith("No captures.")

    made = command("capture", "resise", "--diagnostics", "memory", "--unknown-actor")
    assert (made.exit_code, made.stderr) == (
        0,
        "No worker has said that it has this actor, and no run of it is stored yet.\n",
    )
    assert "the next run of resise" in made.stdout


def test_a_capture_of_a_known_actor_has_no_note(command, store):
    store.publish([bundle(run_record(actor_name="resize"), artifact_record())])
    made = command("capture", "resize", "--diagnostics", "memory", "--json")
    assert made.stderr == ""
    assert document(made)["note"] is None


def test_the_runs_of_a_capture_are_listed(command, store):
    capture_id = create(store, "work", {"memory": {}}, 1, 60.0, unknown_actor=True).capture.capture_id
    store.publish([bundle(run_record(task_id="asked", capture_id=capture_id)), bundle(run_record(task_id="other"))])
    runs = document(command("tasks", "--capture", str(capture_id), "--json"))["runs"]
    assert [run["task_id"] for run in runs] == ["asked"]
    assert document(command("tasks", "--capture", str(uuid.uuid4()), "--json"))["runs"] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        # What the settings do not allow, or what there is not.
        (("--diagnostics", "pyinstrument"), "TASK_DIAGNOSTICS_ON_REQUEST has 'pyinstrument'"),
        (("--diagnostics", "\x1b[2J"), "TASK_DIAGNOSTICS_ON_REQUEST"),
        (("--diagnostics", ","), "The name of a diagnostic is needed"),
        ((), "--diagnostics"),
        # Options that there are not, that are not allowed, or of what is not asked for.
        (("--diagnostics", "memory", "--option", "memory.depth=1"), "no option 'depth'"),
        (("--diagnostics", "memory", "--option", "memory.interval=0"), "memory.interval"),
        (("--diagnostics", "memory", "--option", "memray.native_traces=1"), "not asked for"),
        (("--diagnostics", "memory", "--option", "\x1b[2J"), "write it like"),
        # Out of bounds.
        *(
            (("--diagnostics", "memory", "--runs", runs), "1 to 1000 runs")
            for runs in ("0", "-1", "1000000000", str(10**30))
        ),
        *((("--diagnostics", "memory", "--for", length), "1 s to 30 days") for length in ("0s", "31d", "999999999w")),
        # No numbers, and no lengths.
        (("--diagnostics", "memory", "--runs", "many"), "--runs"),
        *(
            (("--diagnostics", "memory", "--for", length), "not a duration")
            for length in ("", "1", "h", "-1h", "1y", "1.5.5h", "٣h")
        ),
    ],
)
def test_a_wrong_capture_is_refused_with_the_reason(command, arguments, said):
    result = command("capture", "work", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "\x1b" not in result.stderr
    assert command("captures").stdout.startswith("No captures.")


@pytest.mark.parametrize("name", ["", "x" * 256, "a\udcffb"])
def test_a_name_that_no_actor_can_have_is_refused(command, name):
    assert command("capture", name, "--diagnostics", "memory").exit_code == 2


def test_an_unknown_capture_cannot_be_ended(command):
    result = command("captures", "--end", str(uuid.uuid4()))
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no such capture" in result.stderr
    assert command("captures", "--end", "x").exit_code == 2


def test_a_name_that_steers_a_terminal_is_shown_harmless(command):
    refused = command("capture", "\x1b[31mred", "--diagnostics", "memory")
    assert refused.exit_code == 2
    assert "\x1b" not in refused.stderr
    made = command("capture", "\x1b[31mred", "--diagnostics", "memory", "--unknown-actor")
    assert made.exit_code == 0
    assert "\x1b" not in made.stdout
    assert "\x1b" not in command("captures").stdout


def test_lengths_of_time_are_read():
    assert [duration_s(text) for text in ("500ms", "90s", "15m", "15min", "2h", "3d", "1w")] == [
        0.5,
        90,
        900,
        900,
        7200,
        259200,
        604800,
    ]
    with pytest.raises(click.BadParameter):
        duration_s("soon")
