"""Options of a collector: asked for by a message, an actor or a capture, and checked against what is allowed."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

import memray
import pytest

from dramatiq_diag import Settings
from dramatiq_diag.collectors.names import COLLECTOR_NAMES
from dramatiq_diag.collectors.registry import collector_class
from dramatiq_diag.policy.options import (
    OptionsError,
    parse_option,
    parse_request,
    request_value,
    validate_options,
    with_options,
)
from dramatiq_diag.policy.propagation import OPTION
from dramatiq_diag.statuses import ArtifactStatus
from dramatiq_diag.store.captures import create, find_capture
from dramatiq_diag.worker.tuning import Tuning
from support import eventually
from support.collectors import rows_in_spool

HOUR_S = 3600.0


# How they are written.


@pytest.mark.parametrize(
    ("value", "request_"),
    [
        ([], {}),
        ({}, {}),
        (("memory",), {"memory": {}}),
        ({"memory"}, {"memory": {}}),
        ({"memray": {"native_traces": True}}, {"memray": {"native_traces": True}}),
        (["memory", {"memray": {"native_traces": True}}], {"memory": {}, "memray": {"native_traces": True}}),
        ([{"memray": {"a": 1}}, {"memray": {"b": 2}}], {"memray": {"a": 1, "b": 2}}),
    ],
)
def test_a_request_is_names_or_names_with_options(value, request_):
    assert parse_request(value) == request_
    assert parse_request(json.loads(json.dumps(request_value(request_)))) == request_


@pytest.mark.parametrize("value", [None, 0, "memory", b"memory", [1], [["memory"]], {"memory": True}, {1: {}}, [None]])
def test_what_is_no_request_is_refused(value):
    with pytest.raises(ValueError, match="neither"):
        parse_request(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("memray.native_traces=true", True),
        ("memray.native_traces = 1", 1),
        ("memray.native_traces=", ""),
        ("memray.native_traces=5MiB", "5MiB"),
        ("memray.native_traces=a=b", "a=b"),
        ("memray.native_traces=" + "[" * 100_000, "[" * 100_000),
    ],
)
def test_an_option_is_read_as_a_person_writes_it(text, value):
    assert parse_option(text) == ("memray", "native_traces", value)


@pytest.mark.parametrize("text", ["", "=", ".=", "memray=1", "native_traces", ".native_traces=1", "memray.=1"])
def test_what_is_no_option_is_refused(text):
    with pytest.raises(OptionsError, match=r"write it like memray\.native_traces=true"):
        parse_option(text)


def test_an_option_of_what_is_not_asked_for_is_refused():
    assert with_options(["memray"], ["memray.native_traces=true"]) == {"memray": {"native_traces": True}}
    with pytest.raises(OptionsError, match="not asked for"):
        with_options(["memory"], ["memray.native_traces=true"])


# What is allowed.


@pytest.mark.parametrize("name", COLLECTOR_NAMES)
def test_each_option_has_a_default_and_a_description(name):
    options = collector_class(name).options_class
    assert options() == validate_options(collector_class(name), {})
    assert all(field.description for field in options.model_fields.values())


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        # Options that there are not
        ("memory", {"intervall": 1}, r"memory has no option 'intervall'; its options: interval\."),
        ("memory", {"": 1}, "no option ''"),
        ("memory", {"x" * 10_000: 1}, "no option"),
        ("memory", {"__class__": 1}, "no option"),
        ("memory", {"model_config": {}}, "no option"),
        # Values out of bounds, or of another kind
        *(("memory", {"interval": value}, "memory.interval: .* is not allowed") for value in (0, -1, 1e9, "often", [])),
        *(("memory", {"interval": value}, "memory.interval") for value in (float("nan"), float("inf"), 10**400, {})),
        *(("resources", {"interval": value}, "resources.interval") for value in (0.001, 86401)),
        *(("logs", {"max_bytes": value}, "logs.max_bytes") for value in (0, -1, "65MiB", 2**80, "much")),
        *(("memray", {"native_traces": value}, "memray.native_traces") for value in (2, "maybe", None, {"a": 1})),
        ("pyinstrument", {"engine": "rocket"}, "pyinstrument.engine"),
        ("pyinstrument", {"interval": 0.0001}, "pyinstrument.interval"),
        ("pyinstrument", {"start_after": -1}, "pyinstrument.start_after"),
    ],
)
def test_what_is_not_allowed_is_refused_in_words(name, given, said):
    with pytest.raises(OptionsError, match=said) as caught:
        validate_options(collector_class(name), given)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("allowed", "refused"),
    [
        (("all",), set()),
        (("none",), {"memray.native_traces", "memory.interval"}),
        (("memory.interval",), {"memray.native_traces"}),
        (("memray.trace_python_allocators", "memray.native_traces"), {"memory.interval"}),
    ],
)
def test_a_setting_says_which_may_be_asked_for(allowed, refused):
    for name, option, value in (("memray", "native_traces", True), ("memory", "interval", 1)):
        if f"{name}.{option}" in refused:
            with pytest.raises(OptionsError, match="DRAMATIQ_DIAG_OPTIONS_ON_REQUEST"):
                validate_options(collector_class(name), {option: value}, allowed)
        else:
            assert getattr(validate_options(collector_class(name), {option: value}, allowed), option) == value


# What they do.


def run_with(bench: Any, given: Settings, request_: Any, fn: Any = lambda: None) -> str:
    with bench(given) as tasks:
        message = tasks.actor(fn, actor_name="work").send_with_options(diagnostics=request_)
        tasks.finish()
    return message.message_id


def asked(settings: Any, *names: str, **values: Any) -> Settings:
    return settings(task_diagnostics_on_request=names, **values)


@pytest.mark.parametrize(
    ("name", "artifact_name", "setting"),
    [
        ("memory", "memory_profile", "memory_interval"),
        ("resources", "resources_profile", "resources_interval"),
    ],
)
def test_an_interval_is_that_of_the_message(bench, settings, stored, name, artifact_name, setting):
    given = asked(settings, name, **{setting: 3600})

    with bench(given) as tasks:

        def wait_for_rows() -> None:
            eventually(lambda: rows_in_spool(tasks, artifact_name) > 20, "there are rows")

        rarely = tasks.actor(lambda: time.sleep(0.2), actor_name="rarely").send_with_options(diagnostics=[name])
        often = tasks.actor(wait_for_rows).send_with_options(diagnostics={name: {"interval": 0.01}})
        tasks.finish()

    rows = stored(given).data(rarely.message_id, artifact_name).splitlines()
    # Header, start and end; the memory log has in between what comes each time that the time has doubled.
    took_s = stored(given).runs(rarely.message_id)[0].duration_ms / 1000
    early = sum(0.05 * 2**number <= took_s for number in range(20))
    assert len(rows) <= 3 + (early if name == "memory" else 0)
    rows = stored(given).data(often.message_id, artifact_name).splitlines()
    assert len(rows) > 20


@pytest.mark.parametrize("name", ["logs", "debug-logs"])
def test_a_log_ends_where_the_message_says(bench, settings, stored, name):
    given = asked(settings, name, logs_max_bytes=100)

    def talk() -> None:
        for number in range(20):
            logging.getLogger("talk").error("line %d of the log", number)

    task_id = run_with(bench, given, {name: {"max_bytes": "10KiB"}}, talk)

    artifact = stored(given).artifacts(task_id)["task_logs"]
    assert artifact.status == ArtifactStatus.STORED
    assert stored(given).data(task_id, "task_logs").count(b"of the log") == 20


def test_memray_traces_what_the_message_says(bench, settings, stored):
    given = asked(settings, "memray")

    plain = run_with(bench, given, ["memray"])
    native = run_with(bench, given, {"memray": {"native_traces": True}})
    small = run_with(bench, given, {"memray": {"trace_python_allocators": True}})

    found = {}
    for task_id in (plain, native, small):
        with memray.FileReader(str(stored(given).path(task_id, "memray_profile"))) as reader:
            found[task_id] = (reader.metadata.has_native_traces, reader.metadata.trace_python_allocators)
    assert found == {plain: (False, False), native: (True, False), small: (False, True)}


def test_a_profile_is_taken_by_the_engine_and_interval_of_the_message(bench, settings, stored):
    given = asked(settings, "pyinstrument")
    hooks: list[bool] = []

    def look() -> None:
        hooks.append(sys.getprofile() is not None)

    ids = [
        run_with(bench, given, request_, look)
        for request_ in (
            ["pyinstrument"],
            {"pyinstrument": {"interval": 0.002}},
            {"pyinstrument": {"engine": "profiler", "interval": 0.05}},
        )
    ]

    assert hooks == [False, False, True]
    sessions = [json.loads(stored(given).data(task_id, "pyinstrument_profile")) for task_id in ids]
    assert [session["min_interval"] for session in sessions] == [0.005, 0.002, 0.05]


def test_a_profile_begins_when_the_message_says(bench, settings, stored):
    given = asked(settings, "pyinstrument")
    late = run_with(bench, given, {"pyinstrument": {"start_after": 3600}})
    never = run_with(bench, given, {"pyinstrument": {"start_after": 1, "engine": "profiler"}})

    reasons = [stored(given).artifacts(task_id)["pyinstrument_profile"].reason for task_id in (late, never)]
    assert reasons == [
        "The run ended before it had lasted 3600 s.",
        "pyinstrument's own profiler cannot join later; the engine `sampler` does.",
    ]


def test_an_actor_has_options_that_a_message_replaces(bench, settings, stored):
    given = asked(settings, "memray", "memory")
    options = {OPTION: ["memory", {"memray": {"native_traces": True}}]}

    with bench(given) as tasks:
        actor = tasks.actor(lambda: None, actor_name="work", **options)
        of_actor = actor.send().message_id
        tasks.finish()
        of_message = actor.send_with_options(diagnostics=["memray"]).message_id
        tasks.finish()

    native = []
    for task_id in (of_actor, of_message):
        with memray.FileReader(str(stored(given).path(task_id, "memray_profile"))) as reader:
            native.append(reader.metadata.has_native_traces)
    assert native == [True, False]
    assert set(stored(given).artifacts(of_actor)) == {"memory_profile", "memray_profile"}


@pytest.mark.parametrize(
    ("options", "values", "said"),
    [
        ({"depth": 3}, {}, "memory has no option 'depth'"),
        ({"interval": 0}, {}, "memory.interval"),
        ({"interval": 1}, {"options_on_request": ["none"]}, "DRAMATIQ_DIAG_OPTIONS_ON_REQUEST"),
    ],
)
def test_what_a_message_may_not_ask_for_costs_that_collector_alone(bench, settings, stored, options, values, said):
    given = asked(settings, "memory", "logs", **values)

    task_id = run_with(bench, given, ["logs", {"memory": options}])

    artifacts = stored(given).artifacts(task_id)
    assert artifacts["task_logs"].status == ArtifactStatus.STORED
    assert artifacts["memory_profile"].status == ArtifactStatus.SKIPPED
    assert said in artifacts["memory_profile"].reason
    assert stored(given).runs(task_id)[0].status == "succeeded"


def test_what_cannot_work_here_says_that_and_not_that_it_has_no_options(bench, settings, stored, monkeypatch):
    monkeypatch.setitem(sys.modules, "memray", None)
    given = asked(settings, "memray")

    task_id = run_with(bench, given, {"memray": {"native_traces": 7}})

    artifact = stored(given).artifacts(task_id)["memray_profile"]
    assert (artifact.status, "pip install" in artifact.reason) == (ArtifactStatus.UNAVAILABLE, True)


def test_options_are_passed_on_to_what_the_task_sends_and_kept_by_its_retries(bench, settings, stored):
    given = asked(settings, "memory", "memray")
    seen: list[dict[str, Any]] = []

    with bench(given) as tasks:
        child = tasks.actor(lambda: None, actor_name="child")

        def top() -> None:
            seen.append(tasks.diagnostics.process.runs[next(iter(tasks.diagnostics.process.runs))].choice.request)
            if len(seen) == 1:
                raise ValueError("once")
            child.send()

        tasks.actor(top, max_retries=1).send_with_options(
            diagnostics=["memory", {"memray": {"trace_python_allocators": True}}]
        )
        tasks.finish()

    assert seen == [{"memory": {}, "memray": {"trace_python_allocators": True}}] * 2
    (run,) = (run for run in stored(given).all_runs() if run.actor_name == "child")
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile", "memray_profile"}
    with memray.FileReader(str(stored(given).path(run.task_id, "memray_profile"))) as reader:
        assert reader.metadata.trace_python_allocators


# Captures.


def test_a_captured_run_has_the_options_of_the_capture(bench, settings, stored, store_of):
    given = settings(task_diagnostics=["memory"], task_diagnostics_on_request=["memray"])
    store = store_of(given)
    wanted = {"memray": {"native_traces": True}}
    capture = create(store, "work", wanted, 1, HOUR_S, unknown_actor=True).capture

    with bench(given, tuning=Tuning(attention_s=0.1)) as tasks:
        actor = tasks.actor(lambda: None, actor_name="work")
        state = "open"
        while state == "open":
            actor.send()
            tasks.finish()
            with store.session() as session:
                state = find_capture(session, capture.capture_id).state

    (run,) = (run for run in stored(given).all_runs() if run.capture_id == capture.capture_id)
    assert capture.diagnostics == wanted
    assert set(stored(given).artifacts(run.task_id)) == {"memory_profile", "memray_profile"}
    with memray.FileReader(str(stored(given).path(run.task_id, "memray_profile"))) as reader:
        assert reader.metadata.has_native_traces
