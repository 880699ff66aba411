"""The demo: what it executes, what that leaves, and that it goes when it is told to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import memray
import pytest
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import AsyncIO

from dramatiq_diag import Diagnostics, Settings
from dramatiq_diag.cli import demo as command
from dramatiq_diag.demo.actors import declare
from dramatiq_diag.demo.run import demo_settings
from support import PATIENCE_S, eventually, program
from support.shared import made_once
from support.store import Stored
from support.tasks import finish

SCRIPT = "from dramatiq_diag.cli import main; main()"
ACTORS = ["index_sources", "search_index", "fill_cache", "fetch_sources", "find_definition", "deliver_report"]

ARTIFACTS = {
    "memory_profile",
    "pyinstrument_profile",
    "memray_profile",
    "task_logs",
    "resources_profile",
    "time_accounting",
}

Shown = dict[str, Any]


def clean_environment() -> dict[str, str]:
    """Returns: The environment without settings; the fixture of that name comes too late for a module's fixtures."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("TASK_DIAG", "DRAMATIQ_DIAG"))}


@pytest.fixture(scope="module")
def shown(turns: Path) -> Shown:
    """The document of `dramatiq-diag demo --exit`, which is executed once."""
    directory = made_once(turns, "demo", execute)
    document: Shown = json.loads((directory / "document.json").read_text())
    assert document["data_dir"] == str(directory / "data")
    return document


def execute(directory: Path) -> None:
    environment = clean_environment() | {"DRAMATIQ_DIAG_DATA_DIR": str(directory / "data")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "demo", "--exit"], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    (directory / "document.json").write_text(done.stdout)


@pytest.fixture
def left(shown: Shown, stored: Callable[[Settings], Stored]) -> Stored:
    """What the demo left in its data dir."""
    return stored(Settings(data_dir=shown["data_dir"]))


def run_of(shown: Shown, actor_name: str) -> dict[str, Any]:
    return next(run for run in shown["runs"] if run["actor_name"] == actor_name)


def test_the_demo_executes_one_task_of_each_actor_and_retries_the_one_that_recovers(shown: Shown) -> None:
    outcomes = [(run["actor_name"], run["attempt"], run["status"]) for run in shown["runs"]]

    assert outcomes == [
        ("index_sources", 1, "succeeded"),
        ("search_index", 1, "succeeded"),
        ("fill_cache", 1, "succeeded"),
        ("fetch_sources", 1, "succeeded"),
        ("find_definition", 1, "failed"),
        ("deliver_report", 1, "failed"),
        ("deliver_report", 2, "succeeded"),
    ]
    assert run_of(shown, "find_definition")["exception"]["type"] == "LookupError"
    assert run_of(shown, "deliver_report")["exception"]["type"] == "ConnectionError"


def test_every_run_of_the_demo_has_every_artifact(shown: Shown, left: Stored) -> None:
    for run in shown["runs"]:
        assert set(run["urls"]) == ARTIFACTS
        statuses = {artifact.status for artifact in left.artifacts(run["task_id"], run["attempt"]).values()}
        assert statuses == {"stored"}
    assert not left.check()


def test_the_growing_cache_shows_in_its_memory_log(shown: Shown, left: Stored) -> None:
    lines = left.data(run_of(shown, "fill_cache")["task_id"], "memory_profile").decode().splitlines()
    megabytes = [float(line.split()[1]) for line in lines if not line.startswith("#")]

    assert len(megabytes) > 5
    assert max(megabytes) - megabytes[0] > 30


def test_the_growing_cache_shows_in_its_memray_capture(shown: Shown, left: Stored) -> None:
    with memray.FileReader(left.path(run_of(shown, "fill_cache")["task_id"], "memray_profile")) as capture:
        held = list(capture.get_high_watermark_allocation_records(merge_threads=True))
        by_task = sum(
            record.size for record in held if any(function == "fill_cache" for function, _, _ in record.stack_trace())
        )

    assert by_task > 0.9 * sum(record.size for record in held)


def test_the_logs_have_what_their_tasks_said(shown: Shown, left: Stored) -> None:
    task_id = run_of(shown, "deliver_report")["task_id"]
    last_lines = [left.data(task_id, "task_logs", attempt).decode().splitlines()[-1] for attempt in (1, 2)]

    assert re.search(r"INFO     dramatiq_diag\.demo\.work: Counted \d+ lines\.$", last_lines[0])
    assert last_lines[1].endswith("INFO     dramatiq_diag.demo.work: The report is delivered.")


@pytest.mark.parametrize(
    ("actor_name", "function"),
    [("index_sources", "visit_FunctionDef"), ("fill_cache", "get"), ("fetch_sources", "_fetch")],
)
def test_the_profiles_name_the_functions_that_did_the_work(
    shown: Shown, left: Stored, actor_name: str, function: str
) -> None:
    session = json.loads(left.data(run_of(shown, actor_name)["task_id"], "pyinstrument_profile"))

    assert any(frame.startswith(f"{function}\0") for stack, _ in session["frame_records"] for frame in stack)


def test_the_demo_keeps_its_data_in_a_fresh_directory_unless_it_is_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    first, second = demo_settings().data_dir, demo_settings().data_dir
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path / "given"))

    assert first != second
    assert first.parent == second.parent == tmp_path
    assert demo_settings().data_dir == tmp_path / "given"


def test_the_demo_takes_the_settings_of_the_environment_but_not_its_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DRAMATIQ_DIAG_DATABASE_URL", "postgresql://me@db/production")
    monkeypatch.setenv("DRAMATIQ_DIAG_BLOB_URL", "/srv/production")
    monkeypatch.setenv("DRAMATIQ_DIAG_MEMORY_INTERVAL", "0.5")
    monkeypatch.setenv("DRAMATIQ_DIAG_API_TOKEN", "a-token-of-the-tests")

    settings = demo_settings()

    assert settings.database.database == str(tmp_path / "diagnostics.db")
    assert settings.blob_dir == tmp_path / "blobs"
    assert settings.memory_interval == 0.5
    assert settings.api_token is not None


# Serving.


@pytest.fixture
def occupied_port() -> Iterator[int]:
    """The demo's default port, taken by this test if it was free."""
    with ExitStack() as stack:
        with suppress(OSError):  # If somebody else has it, that is as good.
            stack.enter_context(socket.create_server((command.DEFAULT_HOST, command.DEFAULT_PORT)))
        yield command.DEFAULT_PORT


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_serves_while_it_works_on_a_free_port_and_goes_when_told(
    tmp_path: Path, occupied_port: int, stop: signal.Signals
) -> None:
    environment = os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(tmp_path)}
    # Given a demo whose usual port is taken
    arguments = [sys.executable, "-c", SCRIPT, "demo"]
    with program(arguments, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        # When its first task is done
        url = next(match[0] for line in demo.stdout if (match := re.search(r"http\S+/memory\.datum\S+", line)))
        with urllib.request.urlopen(url) as answer:
            log = answer.read().decode()
        # And it is told to stop
        demo.send_signal(stop)
        rest, errors = demo.stdout.read(), demo.stderr.read()

    # Then it has served that task's artifact elsewhere, and ends well
    assert log.startswith("#")
    assert f"Port {occupied_port} is taken" in errors
    assert "Traceback" not in errors
    assert str(tmp_path) in rest
    assert demo.returncode == 0


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "demo", "--port", str(taken.getsockname()[1])],
            env=os.environ | {"DRAMATIQ_DIAG_DATA_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    assert done.returncode == 1
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


# The actors elsewhere.


def test_importing_the_demo_declares_nothing() -> None:
    script = """
import sys, threading
import dramatiq_diag.demo.actors, dramatiq_diag.demo.run
from dramatiq import broker
assert broker.global_broker is None
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_the_actors_can_be_declared_on_any_broker(
    stub_broker: StubBroker,
    settings: Callable[..., Settings],
    stored: Callable[[Settings], Stored],
    run_worker: Any,
    queue_name: str,
) -> None:
    chosen = settings(task_diagnostics=["memory"])
    actors = {actor.actor_name: actor for actor in declare(stub_broker, queue_name)}
    diagnostics = Diagnostics(chosen)
    stub_broker.add_middleware(diagnostics)
    with run_worker(stub_broker) as worker:
        message = actors["deliver_report"].send(count=3)
        finish(stub_broker, worker, queue_name)
        assert diagnostics.flush(PATIENCE_S)

    assert list(actors) == ACTORS
    assert [run.status for run in stored(chosen).runs(message.message_id)] == ["failed", "succeeded"]
    assert len([m for m in stub_broker.middleware if isinstance(m, AsyncIO)]) == 1


def test_the_worker_module_works_for_dramatiq_s_command_line(
    tmp_path: Path, redis_url: str, stored: Callable[[Settings], Stored]
) -> None:
    environment = os.environ | {
        "DRAMATIQ_DIAG_DEMO_BROKER": redis_url,
        "DRAMATIQ_DIAG_DATA_DIR": str(tmp_path),
        "TASK_DIAGNOSTICS": "memory",
    }
    arguments = ["dramatiq", "dramatiq_diag.demo.worker", "--processes", "2", "--threads", "4"]
    with subprocess.Popen([sys.executable, "-m", *arguments], env=environment, stderr=subprocess.DEVNULL) as worker:
        try:
            sent = subprocess.run(
                [sys.executable, "-m", "dramatiq_diag.demo.worker"],
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            store = stored(Settings(data_dir=tmp_path))
            eventually(
                lambda: len([run for run in store.all_runs() if run.status != "running"]) == len(ACTORS) + 1,
                "all runs are published",
            )
        finally:
            worker.send_signal(signal.SIGTERM)

    assert worker.returncode == 0
    assert [line.split()[1] for line in sent.stdout.splitlines()] == ACTORS


@pytest.mark.parametrize("url", ["", "http://127.0.0.1", "redis"])
def test_the_worker_module_names_the_variable_that_it_needs(url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dramatiq_diag.demo.worker"],
        env=os.environ | {"DRAMATIQ_DIAG_DEMO_BROKER": url},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 1
    assert "DRAMATIQ_DIAG_DEMO_BROKER" in done.stderr
