"""Accounts as they are read, compared and named; a stored file may hold anything."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from dramatiq_diag.collectors.accounting.arithmetic import Times, divide
from dramatiq_diag.reports.accounting import EXPLANATIONS, MAX_BYTES, compare_accounts, label_of, read_account
from dramatiq_diag.reports.errors import ReportError


def account(*parts: tuple[str, str | None, float]) -> dict[str, Any]:
    return {
        "wall_ms": sum(ms for _, _, ms in parts),
        "samples": 10,
        "parts": [{"part": part, "on": on, "ms": ms} for part, on, ms in parts],
        "neighbours": [{"task_id": "t", "actor_name": "crunch", "cpu_ms": 5.0, "loop_ms": 7.0}],
    }


def read(content: Any) -> Any:
    return read_account(io.BytesIO(content if isinstance(content, bytes) else json.dumps(content).encode()))


def test_an_account_is_read_as_it_was_written() -> None:
    written = account(("cpu", None, 250.0), ("blocked", "127.0.0.1:5432", 750.0))

    assert read(written) == written


def test_an_account_of_an_earlier_version_says_nothing_of_the_event_loop() -> None:
    earlier = account() | {"neighbours": [{"task_id": "t", "actor_name": "crunch", "cpu_ms": 5.0}]}

    assert read(earlier)["neighbours"][0]["loop_ms"] is None


def test_every_part_that_is_written_is_explained() -> None:
    parts = divide(1.0, Times(0.3, 0.1, 0.1), {(kind, None): 1.0 for kind in EXPLANATIONS})  # type: ignore[misc]

    assert {part["part"] for part in parts} == set(EXPLANATIONS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b" " * (MAX_BYTES + 1),
        [],
        {},
        account() | {"parts": None},
        account() | {"wall_ms": "1"},
        account() | {"wall_ms": -1},
        account() | {"samples": float("inf")},
        account() | {"parts": [{"part": "cpu", "on": 3, "ms": 1}]},
        account() | {"neighbours": [{"task_id": "t"}]},
        account() | {"neighbours": [{"task_id": "t", "actor_name": "a", "cpu_ms": 1.0, "loop_ms": "1"}]},
    ],
    ids=[
        "empty",
        "text",
        "large",
        "list",
        "nothing",
        "no parts",
        "text as number",
        "negative",
        "infinite",
        "on",
        "other",
        "loop",
    ],
)
def test_what_is_no_account_is_refused(content: Any) -> None:
    with pytest.raises(ReportError, match="cannot be read"):
        read(content)


def test_a_part_of_a_later_version_is_not_known() -> None:
    assert read(account(("later", None, 1.0)))["parts"][0]["part"] == "unknown"


def test_the_part_that_grew_most_comes_first() -> None:
    a = read(account(("cpu", None, 100.0), ("blocked", "sleep", 50.0)))
    b = read(account(("cpu", None, 90.0), ("gil_wait", None, 400.0), ("blocked", "sleep", 60.0)))

    changes = compare_accounts(a, b)

    assert [(change["part"], change["difference_ms"]) for change in changes] == [
        ("gil_wait", 400.0),
        ("blocked", 10.0),
        ("cpu", -10.0),
    ]
    assert label_of("blocked", "sleep") == "Blocked: sleep"
