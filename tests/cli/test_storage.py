"""`storage`: what is stored, by actor and by collector, and what the next cleanup removes."""

from __future__ import annotations

from typing import Any

from falcon.testing import TestClient

from support.cli import Command, add_up, document


def test_storage_prints_the_document_of_the_route(command: Command, execute: Any, web: TestClient) -> None:
    execute(add_up)

    found = document(command("storage", "--json"))

    assert found == web.simulate_get("/storage/").json
    assert found["run_count"] == 1
    assert {collector["artifact_name"] for collector in found["collectors"]} == {
        "memory_profile",
        "pyinstrument_profile",
    }


def test_storage_prints_tables_for_people(command: Command, execute: Any) -> None:
    execute(add_up, actor_name="adds\x1b[2J")
    size_bytes = document(command("storage", "--json"))["size_bytes"]

    text = " ".join(command("storage", DRAMATIQ_DIAG_MAX_RUNS="2", DRAMATIQ_DIAG_MAX_BYTES="1KiB").stdout.split())

    assert "Artifacts 2, " in text
    assert f"DRAMATIQ_DIAG_MAX_BYTES 1.0 KiB, {size_bytes / 1024:.0%} used; DRAMATIQ_DIAG_MAX_RUNS 2, 50% used" in text
    assert "A cleanup would remove now:" in text
    assert "By actor: ACTOR RUNS ARTIFACTS SIZE adds\ufffd[2J 1 2 " in text
    assert "By collector: ARTIFACT RUNS SIZE " in text


def test_storage_of_an_empty_store_has_no_tables_of_actors(command: Command) -> None:
    text = command("storage").stdout
    assert "DRAMATIQ_DIAG_MAX_BYTES is empty" in text
    assert "By actor" not in text


def test_cleanup_keeps_the_bound_of_the_environment(command: Command, execute: Any) -> None:
    for _ in range(3):
        execute(add_up)

    planned = document(command("cleanup", "--dry-run", "--json", DRAMATIQ_DIAG_MAX_RUNS="1"))
    done = document(command("cleanup", "--json", DRAMATIQ_DIAG_MAX_RUNS="1"))

    assert planned == done
    assert (done["removed_runs"], done["expired_artifacts"]) == (2, 4)
    assert document(command("storage", "--json"))["run_count"] == 1
