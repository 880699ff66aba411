"""`leaks`: whose runs keep memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from falcon.testing import TestClient

from dramatiq_diag import Settings
from support.cli import Command, document
from support.windows import process, store_windows

ACTORS = ["clean", "other", "leaky\x1b[2J"]


@pytest.fixture
def windows(data_dir: Path, store_of: Any) -> None:
    store_windows(store_of(Settings(data_dir=data_dir)), process(1, ACTORS, {ACTORS[2]: 3000.0}))


@pytest.mark.usefixtures("windows")
def test_leaks_prints_the_document_of_the_route(command: Command, web: TestClient) -> None:
    found = document(command("leaks", "--json"))
    assert found == web.simulate_get("/leaks/").json
    assert found["actors"][0]["verdict"] == "leaks"
    assert document(command("leaks", "--json", "--since", "2020-01-01")) == found


@pytest.mark.usefixtures("windows")
def test_leaks_prints_a_table_for_people(command: Command) -> None:
    lines = command("leaks").stdout.splitlines()
    assert lines[0].split() == ["VERDICT", "KEPT", "OF", "A", "RUN", "FROM", "TO", "RUNS", "MORE", "NEEDED", "ACTOR"]
    assert lines[1].startswith("leaks ")
    assert lines[1].endswith("leaky\ufffd[2J")
    assert "KiB" in lines[1]


@pytest.mark.usefixtures("windows")
def test_leaks_captures_the_suspects_once(command: Command) -> None:
    pytest.importorskip("memray")
    asked = {"TASK_DIAGNOSTICS_ON_REQUEST": "memray"}
    assert "the next runs of leaky" in command("leaks", "--capture", **asked).stderr
    assert "No capture was made" in command("leaks", "--capture", **asked).stderr
    (capture,) = document(command("captures", "--json"))["captures"]
    assert (capture["actor_name"], capture["run_limit"]) == (ACTORS[2], 3)


@pytest.mark.usefixtures("windows")
def test_leaks_fails_where_a_capture_is_not_allowed(command: Command) -> None:
    refused = command("leaks", "--capture")
    assert refused.exit_code == 1
    assert refused.stdout.startswith("VERDICT")
    assert "no allocation profile of it can be asked for" in refused.stderr
    assert document(command("captures", "--json"))["captures"] == []


@pytest.mark.usefixtures("windows")
def test_the_cleanup_captures_the_suspects_if_the_setting_says_so(command: Command) -> None:
    pytest.importorskip("memray")
    asked = {"TASK_DIAGNOSTICS_ON_REQUEST": "memray", "DRAMATIQ_DIAG_LEAK_CAPTURES": "true"}
    assert command("cleanup", "--dry-run", **asked).stderr == ""
    assert command("cleanup", **asked | {"DRAMATIQ_DIAG_LEAK_CAPTURES": "false"}).stderr == ""
    assert "the next runs of leaky" in command("cleanup", **asked).stderr
    (capture,) = document(command("captures", "--json"))["captures"]
    assert capture["actor_name"] == ACTORS[2]


def test_leaks_of_an_empty_store(command: Command) -> None:
    assert document(command("leaks", "--json")) == {"actors": []}
    assert "Nothing is known yet" in command("leaks").stdout
