"""The `dramatiq-diag` command: what it prints, what it writes, and how it exits."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from falcon.testing import TestClient

from dramatiq_diag import Settings
from dramatiq_diag.cli import doctor_checks as doctor
from dramatiq_diag.cli import main
from dramatiq_diag.spool.directory import Spool
from dramatiq_diag.store.store import Store
from dramatiq_diag.store.worker_actors import note_actors
from dramatiq_diag.web import create_app
from support import eventually
from support.store import Postgres, Stored

COMMANDS = (
    *("demo", "serve", "migrate", "cleanup", "tasks", "artifacts", "report", "recover", "doctor", "check"),
    *("capture", "captures", "uninstall"),
)
SCRIPT = "from dramatiq_diag.cli import main; main()"

Command = Callable[..., Result]


def add_up(count: int = 1000) -> None:
    sum(range(count))


def add_up_a_lot() -> None:
    sum(number for number in range(2_000_000))


def fail() -> None:
    raise ValueError("no such file: \x1b[2Jreport")


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "data"
    monkeypatch.setenv("DRAMATIQ_DIAG_DATA_DIR", str(directory))
    return directory


@pytest.fixture
def command(data_dir: Path) -> Command:
    """Runs the command on the data dir of this test, in this process."""

    def run(*arguments: str, **environment: str) -> Result:
        result = CliRunner().invoke(main, arguments, env=environment, prog_name="dramatiq-diag")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.stderr
        return result

    return run


@pytest.fixture
def execute(data_dir: Path, bench: Any, settings: Any) -> Callable[..., str]:
    """Executes a function as a task under `memory` and `pyinstrument`. Returns: The task's id."""

    def run(fn: Callable[..., None] = add_up, **options: Any) -> str:
        with bench(settings(task_diagnostics=["memory", "pyinstrument"])) as tasks:
            return str(tasks.run(fn, **options))

    return run


@pytest.fixture
def web(data_dir: Path) -> Iterator[TestClient]:
    """The web app of the data dir."""
    app = create_app(insecure=True)
    yield TestClient(app, headers={"Host": "localhost"})
    app.close()


def document(result: Result, exit_code: int = 0) -> Any:
    assert result.exit_code == exit_code, result.output
    assert result.stderr == ""
    return json.loads(result.stdout)


# Help, and errors in words.


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_shows_an_example(command: Command, name: str) -> None:
    result = command(name, "--help")

    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"dramatiq-diag {name}" in result.stdout


def test_help_names_the_commands_the_settings_and_the_exit_codes(command: Command) -> None:
    text = command("--help").stdout

    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "TASK_DIAGNOSTICS" in text
    assert "Exit codes" in text


def test_the_version_is_the_package_s(command: Command) -> None:
    assert command("--version").stdout == "dramatiq-diag, version 0.1.0\n"


@pytest.mark.parametrize(
    ("name", "value"),
    [("DRAMATIQ_DIAG_MEMORY_INTERVAL", "0"), ("TASK_DIAGNOSTICS", "memoy"), ("DRAMATIQ_DIAG_DATABASE_URL", "x://")],
)
def test_a_wrong_setting_exits_2_with_one_line_that_names_it(command: Command, name: str, value: str) -> None:
    result = command("tasks", **{name: value})

    assert result.exit_code == 2
    assert result.stdout == ""
    assert name in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks", "--cursor", "made-up"),
        ("tasks", "--limit", "0"),
        ("tasks", "--status", "sleeping"),
        ("artifacts",),
        ("artifacts", "task", "--attempt", "0"),
        ("serve", "--port", "65536"),
        ("no-such-command",),
    ],
)
def test_wrong_usage_exits_2(command: Command, arguments: tuple[str, ...]) -> None:
    result = command(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""


def test_a_database_out_of_reach_exits_1_and_keeps_its_password_to_itself(command: Command) -> None:
    result = command("tasks", DRAMATIQ_DIAG_DATABASE_URL="postgresql://me:secret@127.0.0.1:1/none")

    assert result.exit_code == 1
    assert "cannot be used" in result.stderr
    assert "secret" not in result.output


# tasks


def test_tasks_lists_runs_newest_first_as_the_json_of_http(command: Command, execute: Any, web: TestClient) -> None:
    first, second = execute(add_up), execute(fail)

    answer = document(command("tasks", "--json"))

    assert answer == web.simulate_get("/tasks/").json
    assert [run["task_id"] for run in answer["runs"]] == [second, first]
    assert answer["next"] is None


def test_tasks_filters_and_pages(command: Command, execute: Any) -> None:
    execute(add_up), execute(fail), execute(add_up)

    assert len(document(command("tasks", "--json", "--actor", "add_up"))["runs"]) == 2
    assert len(document(command("tasks", "--json", "--status", "failed"))["runs"]) == 1
    assert document(command("tasks", "--json", "--queue", "elsewhere"))["runs"] == []
    page = document(command("tasks", "--json", "--limit", "2"))
    rest = document(command("tasks", "--json", "--limit", "2", "--cursor", page["next"]))
    assert (len(page["runs"]), len(rest["runs"]), rest["next"]) == (2, 1, None)


def test_tasks_of_an_empty_store_is_an_empty_list(command: Command) -> None:
    assert document(command("tasks", "--json")) == {"runs": [], "next": None}
    assert "No runs" in command("tasks").stdout


def test_tasks_is_a_table_for_people(command: Command, execute: Any) -> None:
    task_id = execute(add_up)

    heading, row = command("tasks").stdout.splitlines()

    assert heading.split()[:2] == ["STARTED", "STATUS"]
    assert "succeeded" in row
    assert row.endswith(task_id)


def test_what_a_message_says_cannot_steer_the_terminal(command: Command, execute: Any) -> None:
    task_id = execute(fail)

    assert "\x1b" not in command("artifacts", task_id).stdout
    assert document(command("artifacts", task_id, "--json"))["run"]["exception"]["message"].count("\x1b") == 1


# artifacts


def test_artifacts_gives_urls_that_the_web_app_answers(command: Command, execute: Any, web: TestClient) -> None:
    task_id = execute(add_up)

    answer = document(command("artifacts", task_id, "--json", DRAMATIQ_DIAG_PUBLIC_URL="https://diag.example/at"))

    assert set(answer["urls"]) == {"memory_profile", "pyinstrument_profile"}
    for url in answer["urls"].values():
        parts = urlsplit(url)
        assert url.startswith("https://diag.example/at/artifacts/")
        assert web.simulate_get(parts.path.removeprefix("/at"), query_string=parts.query).status_code == 200


def test_artifacts_of_a_task_shows_names_statuses_and_urls(command: Command, execute: Any) -> None:
    text = command("artifacts", execute(add_up)).stdout

    assert "memory_profile: stored, memory.datum" in text
    assert "http://127.0.0.1:8321/artifacts/" in text


@pytest.mark.parametrize("arguments", [("unknown",), ("unknown\udcff",), ("--", "--json")])
def test_an_unknown_task_exits_1(command: Command, arguments: tuple[str, ...]) -> None:
    result = command("artifacts", *arguments)

    assert result.exit_code == 1
    assert "Nothing was ever collected" in result.stderr


def test_an_attempt_that_does_not_exist_exits_1(command: Command, execute: Any) -> None:
    task_id = execute(add_up)

    assert command("artifacts", task_id, "--attempt", "1").exit_code == 0
    assert command("artifacts", task_id, "--attempt", "2").exit_code == 1


def test_download_writes_the_files_in_their_download_form(
    command: Command, execute: Any, stored: Callable[[Settings], Stored], tmp_path: Path
) -> None:
    task_id, directory = execute(add_up), tmp_path / "made" / "here"

    answer = command("artifacts", task_id, "--download", str(directory), "--json")

    assert json.loads(answer.stdout)["run"]["task_id"] == task_id
    assert sorted(path.name for path in directory.iterdir()) == ["memory.datum", "pyinstrument.html"]
    assert (directory / "memory.datum").read_bytes() == stored(Settings()).data(task_id, "memory_profile")
    assert "<html" in (directory / "pyinstrument.html").read_text()


def test_download_never_writes_over_a_file(command: Command, execute: Any, tmp_path: Path) -> None:
    task_id = execute(add_up)
    (tmp_path / "pyinstrument.html").symlink_to("nowhere")

    result = command("artifacts", task_id, "--download", str(tmp_path))

    assert result.exit_code == 1
    assert "already" in result.stderr
    assert not (tmp_path / "memory.datum").exists()
    assert (tmp_path / "pyinstrument.html").is_symlink()


def test_download_refuses_what_differs_from_its_row_and_writes_the_rest(
    command: Command, execute: Any, stored: Callable[[Settings], Stored], tmp_path: Path
) -> None:
    task_id = execute(add_up)
    blob = stored(Settings()).path(task_id, "memory_profile")
    blob.write_bytes(blob.read_bytes().replace(b"0", b"1"))

    result = command("artifacts", task_id, "--download", str(tmp_path))

    assert result.exit_code == 1
    assert "dramatiq-diag check" in result.stderr
    assert not (tmp_path / "memory.datum").exists()
    assert (tmp_path / "pyinstrument.html").exists()


# The store's upkeep.


def test_report_prints_where_the_time_went(command: Command, execute: Any) -> None:
    task_id = execute(add_up_a_lot)

    result = command("report", task_id)

    assert result.exit_code == 0
    assert "add_up_a_lot" in result.stdout
    assert "_     ._   __/__" in result.stdout  # pyinstrument's head.


def test_report_writes_each_format_and_never_over_a_file(command: Command, execute: Any, tmp_path: Path) -> None:
    task_id = execute(add_up_a_lot)
    written = {}
    for name in ("html", "text", "speedscope", "session"):
        target = tmp_path / name
        result = command("report", task_id, "time", "--format", name, "-o", str(target))
        assert (result.exit_code, result.stdout) == (0, "")
        written[name] = target.read_text("utf-8")

    assert written["html"].lower().startswith("<!doctype html>")
    assert all("add_up_a_lot" in text for text in written.values())
    assert json.loads(written["speedscope"])["exporter"] == "pyinstrument"
    assert json.loads(written["session"])["target_description"].startswith(f"Task {task_id}")
    again = command("report", task_id, "-o", str(tmp_path / "text"))
    assert again.exit_code == 1
    assert "exists" in again.output
    assert (tmp_path / "text").read_text("utf-8") == written["text"]


def test_report_of_what_was_not_collected_says_so(command: Command, bench: Any, settings: Any) -> None:
    with bench(settings(task_diagnostics=["memory"])) as tasks:
        task_id = tasks.run(add_up)

    for arguments, said in (
        ((task_id,), "pyinstrument_profile was not collected for this run"),
        (("no-such-task",), "Nothing was ever collected for task 'no-such-task'"),
        ((task_id, "--attempt", "7"), "Nothing was ever collected for attempt 7 of task"),
    ):
        result = command("report", *arguments)
        assert result.exit_code == 1
        assert said in result.output


def test_report_of_what_is_gone_gives_the_reason(command: Command, bench: Any, settings: Any) -> None:
    with bench(settings(task_diagnostics=["pyinstrument"], pyinstrument_start_after=60)) as tasks:
        task_id = tasks.run(add_up)

    result = command("report", task_id)

    assert result.exit_code == 1
    assert "pyinstrument_profile is skipped: The run ended before it had lasted 60 s." in result.output


def test_cleanup_prints_the_counts_by_their_names(command: Command, execute: Any) -> None:
    execute(add_up)

    counts = document(command("cleanup", "--json"))

    names = ["expired_artifacts", "removed_blobs", "freed_bytes", "removed_runs", "removed_spool_entries"]
    assert counts == dict.fromkeys(names, 0)
    assert "expired artifacts" in command("cleanup").stdout


def test_cleanup_removes_what_is_past_its_time_unless_it_is_a_dry_run(
    command: Command, data_dir: Path, bench: Any, settings: Any
) -> None:
    with bench(settings(task_diagnostics=["memory"], orphan_protection_time=0)) as tasks:
        task_id = tasks.run(add_up)

    planned = document(command("cleanup", "--dry-run", "--json"))
    assert document(command("artifacts", task_id, "--json"))["urls"]
    done = document(command("cleanup", "--json"))

    assert planned == done
    assert done["expired_artifacts"] == done["removed_blobs"] == 1
    assert done["freed_bytes"] > 0
    after = document(command("artifacts", task_id, "--json"))
    assert after["urls"] == {}
    assert [artifact["status"] for artifact in after["artifacts"]] == ["expired"]


def test_check_exits_1_when_it_finds_something_and_mends_it_when_asked(
    command: Command, execute: Any, stored: Callable[[Settings], Stored]
) -> None:
    task_id = execute(add_up)
    assert command("check").exit_code == 0
    artifact = stored(Settings()).artifacts(task_id)["memory_profile"]
    stored(Settings()).path(task_id, "memory_profile").unlink()
    found = {"missing_blobs": [str(artifact.artifact_id)], "damaged_blobs": [], "unknown_blobs": []}

    assert document(command("check", "--json"), exit_code=1) == found
    assert document(command("check", "--fix", "--json"), exit_code=1) == found
    assert document(command("check", "--json")) == {name: [] for name in found}


@pytest.mark.parametrize("arguments", [("cleanup",), ("check", "--fix"), ("check",)])
def test_blobs_of_another_store_are_left_alone_with_exit_2(
    command: Command, execute: Any, data_dir: Path, arguments: tuple[str, ...]
) -> None:
    execute(add_up)
    (data_dir / "blobs" / ".store-id").write_text(f"{uuid.uuid4()}\n")
    before = sorted(data_dir.glob("blobs/*/*"))

    result = command(*arguments)

    assert result.exit_code == 2
    assert "belong to store" in result.stderr
    assert sorted(data_dir.glob("blobs/*/*")) == before


def test_migrate_makes_the_schema_of_an_empty_database(command: Command, postgres: Postgres) -> None:
    with postgres.database("template0") as name:
        url = postgres.url(name)

        before = command("tasks", DRAMATIQ_DIAG_DATABASE_URL=url)
        migrated = [command("migrate", DRAMATIQ_DIAG_DATABASE_URL=url).exit_code for _ in range(2)]

        assert (before.exit_code, migrated) == (1, [0, 0])
        assert "dramatiq-diag migrate" in before.stderr
        assert command("tasks", DRAMATIQ_DIAG_DATABASE_URL=url).exit_code == 0


def test_progress_is_shown_to_a_terminal_only(command: Command, execute: Any, tmp_path: Path) -> None:
    task_id = execute(add_up)
    assert command("check").stderr == ""

    terminal, standard_error = os.openpty()
    arguments = ["artifacts", task_id, "--download", str(tmp_path / "files"), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=standard_error, check=True
    )
    os.close(standard_error)
    shown = os.read(terminal, 100_000).decode()
    os.close(terminal)

    assert "memory_profile" in shown
    assert "100%" in shown
    assert json.loads(done.stdout)["run"]["task_id"] == task_id


# serve


def test_serve_asks_for_a_token_before_it_is_open_to_others(command: Command) -> None:
    result = command("serve", "--host", "0.0.0.0", "--port", "0")

    assert result.exit_code == 2
    assert "DRAMATIQ_DIAG_API_TOKEN" in result.stderr


def test_serve_says_that_its_port_is_taken(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = command("serve", "--port", str(taken.getsockname()[1]))

    assert result.exit_code == 1
    assert "--port" in result.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_serve_answers_until_it_is_stopped_and_then_exits_0(data_dir: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "-c", SCRIPT, "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = next(word for word in server.stderr.readline().split() if word.startswith("http"))
        with urllib.request.urlopen(f"{url}/healthz") as answer:
            assert json.load(answer) == {"status": "ok"}

        server.send_signal(stop)
        rest = server.stderr.read()

    assert server.returncode == 0
    assert "Traceback" not in rest


# doctor


def checks_of(result: Result) -> dict[str, dict[str, Any]]:
    found = document(result, exit_code=result.exit_code)
    assert result.exit_code == (1 if found["findings"] else 0)
    return {check["name"]: check for check in found["checks"]}


def test_doctor_finds_nothing_in_a_fresh_place_and_leaves_nothing_there(command: Command, data_dir: Path) -> None:
    result = command("doctor", "--json", TASK_DIAGNOSTICS="all")

    assert result.exit_code == 0, result.output
    assert {"python", "dramatiq", "memory", "spool", "blobs", "database"} <= set(checks_of(result))
    assert not data_dir.exists()


def test_doctor_compares_schema_and_store_ids_of_a_store_in_use(command: Command, execute: Any, data_dir: Path) -> None:
    execute(add_up)
    assert {check["status"] for check in checks_of(command("doctor", "--json")).values()} == {"ok", "info"}

    (data_dir / "blobs" / ".store-id").write_text(f"{uuid.uuid4()}\n")

    assert checks_of(command("doctor", "--json"))["store id"]["status"] == "finding"


def test_doctor_in_the_shell_of_the_web_part_says_what_workers_told_the_database(
    command: Command, data_dir: Path
) -> None:
    # Given a store that no worker has used yet, and an environment that selects nothing
    assert command("tasks").exit_code == 0
    checks = checks_of(command("doctor", "--json"))
    assert "workers may have another" in checks["selection"]["detail"]
    assert checks["workers"]["status"] == "info"

    # When a worker has said which actors it has, then that is told, whatever is selected here
    with closing(Store(Settings(data_dir=data_dir))) as store, store.session() as session:
        note_actors(session, {"resize": "default", "mail": "default"})
    workers = checks_of(command("doctor", "--json"))["workers"]
    assert workers["status"] == "ok"
    assert workers["detail"].startswith("they have named 2 actors, the last of them at 20")


def test_doctor_names_a_misspelt_variable_and_what_was_meant(command: Command) -> None:
    result = command("doctor", "--json", DRAMATIQ_DIAG_MEMORY_INTERVALL="1", TASK_DIAGNOSTIC="memory")

    checks = checks_of(result)
    assert checks["variable DRAMATIQ_DIAG_MEMORY_INTERVALL"]["remedy"] == "Did you mean DRAMATIQ_DIAG_MEMORY_INTERVAL?"
    assert checks["variable TASK_DIAGNOSTIC"]["remedy"] == "Did you mean TASK_DIAGNOSTICS?"


def test_doctor_names_a_directory_that_cannot_be_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    result = command("doctor", DRAMATIQ_DIAG_SPOOL_DIR=str(tmp_path / "file" / "spool"))

    assert result.exit_code == 1
    assert "DRAMATIQ_DIAG_SPOOL_DIR" in result.stdout


def test_doctor_names_a_disk_that_is_full(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", lambda **_: io.FileIO("/dev/full", "w"))

    blobs = checks_of(command("doctor", "--json"))["blobs"]

    assert (blobs["status"], blobs["detail"].rpartition(": ")[2]) == ("finding", "No space left on device")


def test_doctor_names_what_a_selected_collector_lacks(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda name: name == "memory")

    missing = checks_of(command("doctor", "--json", TASK_DIAGNOSTICS="memory,memray"))

    assert missing["memray"]["status"] == "finding"
    assert missing["memray"]["remedy"] == "pip install 'dramatiq_diag[memray]'"
    assert missing["pyinstrument"]["status"] == "info"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [("sqlite:////{tmp_path}/none.db", "dramatiq-diag migrate"), ("postgresql://me@127.0.0.1:1/none", "right")],
)
def test_doctor_names_a_database_that_cannot_be_used(command: Command, tmp_path: Path, url: str, remedy: str) -> None:
    result = command("doctor", "--json", DRAMATIQ_DIAG_DATABASE_URL=url.format(tmp_path=tmp_path))

    check = checks_of(result)["database"]
    assert check["status"] == "finding"
    assert remedy in check["remedy"]


_DIES = """
import dramatiq, os, signal, time
from dramatiq.brokers.stub import StubBroker
from dramatiq_diag import Diagnostics, Settings
broker = StubBroker()
broker.add_middleware(Diagnostics(Settings(task_diagnostics=["memory"])))
dramatiq.actor(lambda: os.kill(os.getpid(), signal.SIGKILL), broker=broker, actor_name="die").send()
worker = dramatiq.Worker(broker)
worker.start()
worker.join()
"""


@pytest.fixture
def killed_worker(data_dir: Path, python: Any) -> None:
    """A worker was killed while it ran a task, and left it in the spool."""
    killed = python(_DIES)
    eventually(lambda: killed.poll() is not None, "the worker was killed")


def test_doctor_counts_the_runs_that_dead_workers_left(command: Command, killed_worker: None) -> None:
    check = checks_of(command("doctor", "--json"))["backlog"]

    assert check["status"] == "finding"
    assert "1 runs, " in check["detail"]
    assert " bytes, the oldest written to " in check["detail"]
    assert "1 of the runs were left by workers that died" in check["detail"]
    assert "dramatiq-diag recover" in check["remedy"]


def test_doctor_tells_runs_that_wait_for_the_store_from_those_that_run(command: Command, data_dir: Path) -> None:
    spool = Spool(Settings(data_dir=data_dir))
    spool.open()
    entry = spool.entry()
    entry.append({"a": "run"})
    entry.flush()
    entry.close()
    assert checks_of(command("doctor", "--json"))["backlog"]["status"] == "ok"

    # When nobody has written to it for long, though its worker lives
    os.utime(entry.path("entry"), (1, 1))

    check = checks_of(command("doctor", "--json"))["backlog"]
    assert check["status"] == "finding"
    assert "runs that ended wait for the store" in check["detail"]
    entry.remove(())
    spool.close()


def test_recover_publishes_what_dead_workers_left_once(command: Command, killed_worker: None) -> None:
    assert document(command("recover", "--json")) == {"recovered_runs": 1, "refused_runs": 0}

    (run,) = document(command("tasks", "--json"))["runs"]
    assert (run["actor_name"], run["status"]) == ("die", "interrupted")
    assert document(command("recover", "--json")) == {"recovered_runs": 0, "refused_runs": 0}
    assert document(command("check", "--json")) == {"missing_blobs": [], "damaged_blobs": [], "unknown_blobs": []}
    assert checks_of(command("doctor", "--json"))["backlog"]["detail"] == "0 runs, 0 bytes"


def test_recover_leaves_what_it_cannot_publish_and_says_so(
    command: Command, data_dir: Path, killed_worker: None
) -> None:
    (entry,) = (path for path in (data_dir / "spool").glob("*/*.entry") if path.stat().st_size)
    entry.write_text("no record of ours\n")

    result = command("recover")

    assert result.exit_code == 1
    assert "Recovered 0 runs" in result.output
    assert "1 entries could not be published" in result.output
    assert entry.exists()


def test_recover_leaves_the_runs_of_a_living_worker_alone(
    command: Command, data_dir: Path, bench: Any, settings: Any
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        go_on.wait(60)

    with bench(settings(task_diagnostics=["memory"])) as tasks:
        tasks.actor(wait).send()
        assert begun.wait(60)
        script = subprocess.run(
            [sys.executable, "-c", SCRIPT, "recover", "--json"], capture_output=True, text=True, timeout=60
        )
        go_on.set()
        tasks.finish()

    assert (script.returncode, json.loads(script.stdout)) == (0, {"recovered_runs": 0, "refused_runs": 0})
