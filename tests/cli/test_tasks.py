"""`tasks`, `artifacts` and `download`: what they print, what they write, and how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from falcon.testing import TestClient

from dramatiq_diag import Settings
from support.cli import Command, add_up, document
from support.store import Stored


def fail() -> None:
    raise ValueError("no such file: \x1b[2Jreport")


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


def test_tasks_lists_the_runs_of_a_trace(command: Command, data_dir: Path, bench: Any, settings: Any) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    with bench(settings(task_diagnostics=["memory"])) as tasks:
        actor = tasks.actor(add_up)
        actor.send()
        traced = actor.send_with_options(traceparent=f"00-{trace_id}-b7ad6b7169203331-01").message_id
        tasks.finish()

    [run] = document(command("tasks", "--json", "--trace-id", trace_id.upper()))["runs"]

    assert (run["task_id"], run["trace_id"], run["span_id"]) == (traced, trace_id, "b7ad6b7169203331")
    refused = command("tasks", "--trace-id", "x")
    assert (refused.exit_code, "32 hexadecimal digits" in refused.stderr) == (2, True)


def test_tasks_of_an_empty_store_is_an_empty_list(command: Command) -> None:
    assert document(command("tasks", "--json")) == {"runs": [], "next": None}
    assert "No runs" in command("tasks").stdout


def test_tasks_is_a_table_for_people(command: Command, execute: Any) -> None:
    task_id = execute(add_up)

    heading, row = command("tasks").stdout.splitlines()

    assert heading.split()[:2] == ["STARTED", "STATUS"]
    assert "succeeded" in row
    assert row.endswith(task_id)


def test_the_text_of_an_exception_cannot_control_the_terminal(command: Command, execute: Any) -> None:
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


def test_download_into_a_place_that_cannot_be_is_a_clear_error(command: Command, execute: Any, tmp_path: Path) -> None:
    result = command("artifacts", execute(add_up), "--download", str(tmp_path / ("x" * 300)))
    assert result.exit_code == 1
    assert "cannot be written: File name too long" in result.stderr


def test_download_refuses_a_file_that_differs_from_its_row_and_writes_the_others(
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
